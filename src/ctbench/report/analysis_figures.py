"""Figures of analyses: grouped bars, lines over an axis, histograms, and scatters over the certified accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctbench.report.analyses import Result, beside_accuracies
from ctbench.report.figures import MARKERS, panels, save
from ctbench.results import Layout
from ctbench.results.decimals import decimals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HATCHES = ("", "///", "...", "xxx", "++")
STYLES = ("-", "--", ":", "-.")
BINS = 40
Drawing = Callable[[Sequence[Result], Layout], "Figure"]


def draw(results: Sequence[Result], layout: Layout, title: str, path: Path) -> None:
    """Draw the figure of an analysis into a file, PNG or SVG by its suffix.

    Raises:
        ValueError: matplotlib is not installed, or a scatter has no run that was certified at the same radius.
    """
    drawings: dict[str, Drawing] = {"bars": _bars, "lines": _lines, "histogram": _histogram, "scatter": _scatter}
    save(drawings[layout.kind](results, layout), title, path)


def _radii(results: Sequence[Result]) -> list[float]:
    return sorted({eps for result in results for eps in result.measurements.radii})


def _name(result: Result) -> str:
    run, method, radius = result.labels
    return run if method == "-" else f"{method} ({radius})"


def _bars(results: Sequence[Result], layout: Layout) -> Figure:
    """A panel for each quantity, a group of bars for each run, a colour for each eps, a hatch for each train eps."""
    radii, trained = _radii(results), list(dict.fromkeys(result.labels[2] for result in results))
    width = max(3.6, 0.35 * len(results) * len(radii))
    figure, axes = panels(len(layout.quantities), width=width)
    for axis, quantity in zip(axes, layout.quantities, strict=True):
        for number, eps in enumerate(radii):
            for place, result in enumerate(results):
                if eps not in result.measurements.radii:
                    continue
                summary = result.measurements.summary(quantity, eps)
                axis.bar(
                    place + (number + 0.5) / len(radii) * 0.8 - 0.4,
                    summary.mean,
                    0.8 / len(radii),
                    yerr=None if np.isnan(summary.error) else summary.error,
                    color=f"C{number}",
                    edgecolor="black",
                    linewidth=0.5,
                    hatch=HATCHES[trained.index(result.labels[2]) % len(HATCHES)],
                    label=f"eps {decimals(eps)}",
                )
        axis.set_xticks(range(len(results)), [_name(result) for result in results], rotation=45, ha="right", fontsize=7)
        axis.set(ylabel=layout.label, title=quantity)
        axis.grid(axis="y", alpha=0.3)
    _legend(axes[0])
    return figure


def _lines(results: Sequence[Result], layout: Layout) -> Figure:
    """A panel for each eps, a colour for each run, a line style for each quantity."""
    radii = _radii(results)
    figure, axes = panels(len(radii), width=4.4)
    for axis, eps in zip(axes, radii, strict=True):
        for number, result in enumerate(results):
            measurements = result.measurements
            if eps not in measurements.radii:
                continue
            for style, quantity in zip(cycle(STYLES), layout.quantities):
                places = [
                    x for x in measurements.places(eps) if x is not None and quantity in measurements.quantities(eps, x)
                ]
                means = [measurements.mean(quantity, eps, x) for x in places]
                name = f"{_name(result)}, {quantity}" if len(layout.quantities) > 1 else _name(result)
                axis.plot(places, means, style, color=f"C{number}", label=name, linewidth=1.2)
        axis.set(xlabel=layout.x_label, ylabel=layout.label, title=f"eps {decimals(eps)}")
        if layout.log:
            axis.set(xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    _legend(axes[0])
    return figure


def _histogram(results: Sequence[Result], layout: Layout) -> Figure:
    """A panel for each quantity and eps, an outline for each run, with bins in common."""
    radii = _radii(results)
    cells = [(quantity, eps) for eps in radii for quantity in layout.quantities]
    figure, axes = panels(len(cells))
    for axis, (quantity, eps) in zip(axes, cells, strict=True):
        shown = [result for result in results if eps in result.measurements.radii]
        numbers = {_name(result): result.measurements.values(quantity, eps) for result in shown}
        edges = np.histogram_bin_edges([value for values in numbers.values() for value in values], BINS)
        for name, values in numbers.items():
            axis.hist(values, edges.tolist(), histtype="step", density=True, label=name)
        axis.set(xlabel=layout.label, title=quantity if len(radii) == 1 else f"{quantity}, eps {decimals(eps)}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("density")
    _legend(axes[0])
    return figure


def _scatter(results: Sequence[Result], layout: Layout) -> Figure:
    """A panel for each eps, a mark for each run; the correlation is in the title of the panel."""
    (quantity,) = layout.quantities
    pairs = [pairs for pairs in beside_accuracies(results, quantity) if pairs.accuracy == "certified"]
    if not pairs:
        raise ValueError(
            "no run was certified at the radius of its analysis, on the same samples: run ctbench certify with this "
            "--eps and --samples first"
        )
    figure, axes = panels(len(pairs))
    for axis, these in zip(axes, pairs, strict=True):
        points = zip(cycle(MARKERS), these.runs, these.values, these.accuracies)
        for marker, run, value, accuracy in points:
            axis.plot(value, 100 * accuracy, marker, label=run)
        related = "" if these.correlation is None else f", correlation {these.correlation:.2f}"
        axis.set(xlabel=layout.label, ylabel="certified accuracy (%)", title=f"eps {decimals(these.eps)}{related}")
        axis.grid(alpha=0.3)
    _legend(axes[0])
    return figure


def _legend(axis: Axes) -> None:
    """A legend with each label once."""
    handles, labels = axis.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axis.legend(once.values(), once.keys(), frameon=False, fontsize=6)

"""Figures of the records of an experiment: choice of candidates, means and spreads over seeds, CSV and drawings.

A record is one trial: {"series", "x", "candidate", "seed", quantities}, or "diverged" instead of the quantities. At
each x of a series, one candidate is shown: the one with the smallest mean of `best` over the seeds. Candidates that
diverged with some seed are excluded. With `fitting`, candidates with errors on their training samples are also
excluded, unless all have such errors.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ctbench.results.jsonl import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP"
TITLE_SIZE = 10  # points


@dataclass(frozen=True, kw_only=True)
class Panel:
    quantity: str  # its name in a record
    label: str
    percent: bool = True


@dataclass(frozen=True, kw_only=True)
class Plot:
    """The layout of a figure.

    Args:
        title, x_label: the title and the label of the x axis; x is the value in the records, or the epoch.
        panels: one for each quantity, side by side.
        best: the quantity by which candidates are chosen.
        fitting: prefer candidates without errors on their training samples.
        series: the series to draw; empty draws all.
        spread: the quantity drawn around the means: the standard error of the mean, or the standard deviation.
        epochs: draw the quantities over the epochs; the records then have only one x.
    """

    title: str
    x_label: str
    panels: tuple[Panel, ...]
    best: str = "robust_error"
    fitting: bool = False
    series: tuple[str, ...] = ()
    spread: Literal["standard error", "standard deviation"] = "standard error"
    epochs: bool = False


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a line: for each quantity the mean, and the spread if there are at least two seeds."""

    series: str
    x: float
    candidate: float
    seeds: int
    fits: bool  # whether no seed has an error on its training samples
    values: dict[str, tuple[float, float | None]]


def points(records: Iterable[Record], plot: Plot) -> list[Point]:
    """The points of all lines, line by line, each in the order of x.

    Raises:
        ValueError: there are no records, or at some x every candidate diverged.
    """
    shown = [record for record in records if not plot.series or record["series"] in plot.series]
    if not shown:
        raise ValueError(f"there are no records to show as {plot.title!r}: run the experiment first")
    lines = list(dict.fromkeys(record["series"] for record in shown))
    shown.sort(key=lambda record: (lines.index(record["series"]), record["x"], record["candidate"], record["seed"]))
    places = groupby(shown, key=lambda record: (record["series"], record["x"]))
    return [point for _, there in places for point in _points(_chosen(list(there), plot), plot)]


def _chosen(records: list[Record], plot: Plot) -> list[Record]:
    """The records of the best candidate at one x; the smallest candidate among equals."""
    groups = [list(group) for _, group in groupby(records, key=lambda record: record["candidate"])]
    sound = [group for group in groups if not any("diverged" in record for record in group)]
    if not sound:
        why = next(record["diverged"] for record in records if "diverged" in record)
        raise ValueError(
            f"{records[0]['series']} diverged at {records[0]['x']:g} with every candidate: try smaller learning rates "
            f"({why})"
        )
    fitting = [group for group in sound if _fit(group)] if plot.fitting else []
    return min(fitting or sound, key=lambda group: statistics.fmean(record[plot.best] for record in group))


def _fit(records: list[Record]) -> bool:
    return all(record["train_error"] == 0 for record in records)


def _points(chosen: list[Record], plot: Plot) -> Iterator[Point]:
    """The point at one x, or one point for each epoch, from the records of its seeds."""
    if not plot.epochs:
        yield _point(chosen, chosen, chosen[0]["x"], plot)
        return
    courses = [record["epochs"] for record in chosen]
    for epoch in range(len(courses[0][plot.panels[0].quantity])):
        now = [{name: values[epoch] for name, values in course.items()} for course in courses]
        yield _point(chosen, now, epoch + 1, plot)


def _point(chosen: list[Record], quantities: list[Record], x: float, plot: Plot) -> Point:
    """Means and spreads of the quantities over the seeds."""
    values = {}
    for panel in plot.panels:
        numbers = [seed[panel.quantity] for seed in quantities]
        spread = statistics.stdev(numbers) if len(numbers) > 1 else None
        if spread is not None and plot.spread == "standard error":
            spread /= math.sqrt(len(numbers))
        values[panel.quantity] = statistics.fmean(numbers), spread
    labels = {name: chosen[0][name] for name in ("series", "candidate")}
    return Point(**labels, x=x, seeds=len(chosen), fits=_fit(chosen), values=values)


def as_csv(points: Sequence[Point], plot: Plot) -> str:
    """The numbers of a figure: a line for each point, with mean and spread of each quantity."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    names = [panel.quantity for panel in plot.panels]
    columns = [column for name in names for column in (name, f"{name} {plot.spread}")]
    out.writerow(["series", plot.x_label, "candidate", "fits", "seeds", *columns])
    for point in points:
        numbers = [number for name in names for number in point.values[name]]
        cells = ["" if number is None else f"{number:.6g}" for number in numbers]
        fits = "yes" if point.fits else "no"
        out.writerow([point.series, f"{point.x:g}", f"{point.candidate:g}", fits, point.seeds, *cells])
    return text.getvalue()


def draw(points: Sequence[Point], plot: Plot, path: Path) -> None:
    """Draw a figure into a file, PNG or SVG by its suffix; the same points give the same bytes.

    Raises:
        ValueError: matplotlib is not installed, or the suffix is another one.
    """
    figure, axes = panels(len(plot.panels))
    for axis, panel in zip(axes, plot.panels, strict=True):
        for marker, (series, line) in zip(cycle(MARKERS), groupby(points, key=lambda point: point.series)):
            _draw_line(axis, list(line), panel, label=series, marker="" if plot.epochs else marker, markersize=4)
        axis.set(xlabel=plot.x_label, ylabel=panel.label)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    save(figure, plot.title, path)


def panels(count: int, *, width: float = 3.6, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure with this many panels side by side, without a window. Raises ValueError without matplotlib."""
    try:
        from matplotlib import figure as figures
    except ImportError as error:
        raise ValueError(f"matplotlib is not there ({error}): pip install matplotlib") from None
    figure = figures.Figure(figsize=(width * count, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def save(figure: Figure, title: str, path: Path) -> None:
    """Write a figure into a file, PNG or SVG by its suffix; the same figure gives the same bytes.

    Raises:
        ValueError: the suffix is another one.
    """
    import matplotlib

    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{path} is neither a .png nor a .svg file: choose a name that ends in one of them")
    figure.suptitle(title, fontsize=TITLE_SIZE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": title}):  # otherwise the names within an SVG are random
        figure.savefig(path, dpi=150, metadata={"Software": None} if path.suffix == ".png" else {"Date": None})


def _draw_line(axis: Axes, line: list[Point], panel: Panel, **style: Any) -> None:
    """Means, and the spread around them."""
    factor = 100 if panel.percent else 1
    x, pairs = [point.x for point in line], [point.values[panel.quantity] for point in line]
    means, low, high = ([factor * (mean + sign * (spread or 0)) for mean, spread in pairs] for sign in (0, -1, 1))
    (drawn,) = axis.plot(x, means, **style)
    axis.fill_between(x, low, high, color=drawn.get_color(), alpha=0.2, linewidth=0)

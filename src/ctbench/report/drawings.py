"""Pictures and CSV files of rows: dictionaries from columns to texts and numbers, as figures of networks have them.

A drawing says which columns it shows:

    Bars(group="method", values=("sampled",), colour="eps", hatch="setting")
    Curves(x="lambda", values=("natural", "certified"), series=("method",), panel="setting")
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctbench.report.analysis_figures import HATCHES, STYLES
from ctbench.report.figures import MARKERS, panels, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = Mapping[str, Any]
FEW_LABELS = 4  # as many fit into a panel without hiding its lines
BINS = 40
HERE = "here"  # the `by` of rows that were measured; others are published


def rows_csv(rows: Sequence[Numbers]) -> str:
    """A line for each row; columns in the order in which they appear."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out.writerow(columns)
    for row in rows:
        out.writerow([_cell(row.get(name)) for name in columns])
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, kw_only=True)
class Drawing(ABC):
    """A picture of rows.

    Args:
        panel: the column whose values have a panel each; None: one panel.
    """

    panel: str | None = "setting"

    def draw(self, rows: Sequence[Numbers], title: str, path: Path) -> None:
        """Draw rows into a file, PNG or SVG by its suffix.

        Raises:
            ValueError: matplotlib is not installed, or the suffix is another one.
        """
        groups = by_columns(rows, (self.panel,) if self.panel else ())
        figure, axes = self.panels(groups)
        for axis, (key, group) in zip(axes, groups.items(), strict=False):
            self.show(axis, group)
            if self.panel:
                axis.set_title(_cell(key[0]), fontsize=9)
        _legend(figure, axes[0])
        save(figure, title, path)

    def panels(self, groups: Mapping[tuple[Any, ...], list[Numbers]]) -> tuple[Figure, list[Axes]]:
        """The empty figure."""
        return panels(len(groups), width=4.4)

    @abstractmethod
    def show(self, axis: Axes, rows: Sequence[Numbers]) -> None:
        """Draw the rows of one panel."""


def by_columns(rows: Sequence[Numbers], columns: Sequence[str]) -> dict[tuple[Any, ...], list[Numbers]]:
    """The rows by their values in some columns, in the order in which these appear."""
    groups: dict[tuple[Any, ...], list[Numbers]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in columns), []).append(row)
    return groups


def _mean(rows: Sequence[Numbers], column: str) -> float:
    values = [row[column] for row in rows if isinstance(row.get(column), int | float)]
    return statistics.fmean(values) if values else math.nan


def _standard_error(rows: Sequence[Numbers], column: str) -> float:
    """The standard error of the mean, s / sqrt(n); NaN, which draws nothing, for a single row."""
    values = [row[column] for row in rows if isinstance(row.get(column), int | float)]
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


@dataclass(frozen=True, kw_only=True)
class Bars(Drawing):
    """Groups of bars.

    Args:
        group: the column whose values have a group each.
        values: the columns with the heights; a bar for each.
        colour, hatch: columns that tell the bars of a group apart.
    """

    group: str
    values: tuple[str, ...]
    colour: str | None = None
    hatch: str | None = None

    def panels(self, groups: Mapping[tuple[Any, ...], list[Numbers]]) -> tuple[Figure, list[Axes]]:
        widest = max((len(by_columns(rows, (self.group,))) for rows in groups.values()), default=1)
        return panels(len(groups), width=max(3.6, 0.6 * widest))

    def show(self, axis: Axes, rows: Sequence[Numbers]) -> None:
        columns = [name for name in (self.colour, self.hatch) if name]
        kinds, groups = list(by_columns(rows, columns)), by_columns(rows, (self.group,))
        colours = list(dict.fromkeys(row.get(self.colour) for row in rows)) if self.colour else [None]
        hatches = list(dict.fromkeys(row.get(self.hatch) for row in rows)) if self.hatch else [None]
        bars = [(kind, value) for kind in kinds for value in self.values]
        for place, here in enumerate(groups.values()):
            for number, (kind, value) in enumerate(bars):
                those = [row for row in here if tuple(row.get(name) for name in columns) == kind]
                if not those:
                    continue
                of = dict(zip(columns, kind, strict=True))
                colour = colours.index(of.get(self.colour)) if self.colour else self.values.index(value)
                name = ", ".join([*(value for _ in self.values[1:2]), *(_labelled(at, of[at]) for at in columns)])
                axis.bar(
                    place + (number + 0.5) / len(bars) * 0.8 - 0.4,
                    _mean(those, value),
                    0.8 / len(bars),
                    color=f"C{colour % 10}",
                    edgecolor="black",
                    linewidth=0.5,
                    hatch=HATCHES[hatches.index(of.get(self.hatch)) % len(HATCHES)] if self.hatch else "",
                    label=name or None,
                )
        axis.set_xticks(range(len(groups)), [_cell(key[0]) for key in groups], rotation=45, ha="right", fontsize=7)
        axis.set_ylabel(self.values[0] if len(self.values) == 1 else "")
        axis.grid(axis="y", alpha=0.3)


@dataclass(frozen=True, kw_only=True)
class Curves(Drawing):
    """Curves over an axis.

    Args:
        x: the column of the axis.
        values: the columns with the heights; a line style for each.
        series: columns; a colour for each combination of their values.
        log: whether both axes are logarithmic.
        log_x: whether the axis of x is.
        steps: whether a height stays until the next x.
        error_bars: whether to show the standard error of a mean of several rows, e.g. over seeds.
    """

    x: str
    values: tuple[str, ...]
    series: tuple[str, ...] = ()
    log: bool = False
    log_x: bool = False
    steps: bool = False
    error_bars: bool = False
    marker: str = "."

    def show(self, axis: Axes, rows: Sequence[Numbers]) -> None:
        for number, (key, line) in enumerate(by_columns(rows, self.series).items()):
            for style, value in zip(cycle(STYLES), self.values):
                places = sorted(by_columns([row for row in line if row.get(self.x) is not None], (self.x,)).items())
                points = [(place[0], _mean(those, value), _standard_error(those, value)) for place, those in places]
                shown = [point for point in points if not math.isnan(point[1])]
                name = ", ".join([*(_cell(part) for part in key), *([value] if len(self.values) > 1 else [])])
                colour = number if self.series else self.values.index(value)
                xs, ys, bars = ([point[part] for point in shown] for part in range(3))
                drawn: dict[str, Any] = {
                    "color": f"C{colour % 10}",
                    "marker": self.marker,
                    "linewidth": 1.2,
                    "label": name,
                }
                axis.plot(xs, ys, style, drawstyle="steps-post" if self.steps else "default", **drawn)
                if self.error_bars and any(bar > 0 for bar in bars):
                    axis.errorbar(xs, ys, yerr=bars, fmt="none", ecolor=drawn["color"], elinewidth=0.8, capsize=2)
        axis.set(xlabel=self.x, ylabel=self.values[0] if len(self.values) == 1 else _common(self.values))
        if self.log:
            axis.set(xscale="log", yscale="log")
        elif self.log_x:
            axis.set(xscale="log")
        axis.grid(alpha=0.3)


@dataclass(frozen=True, kw_only=True)
class Scatter(Drawing):
    """A mark for each row, with a label; hollow marks for published results.

    Args:
        x, y: the columns.
        label: the column of the labels.
    """

    x: str
    y: str
    label: str = "method"

    def show(self, axis: Axes, rows: Sequence[Numbers]) -> None:
        works = list(by_columns(rows, ("by",)))
        for row in rows:
            across, up = row.get(self.x), row.get(self.y)
            if across is None or up is None:
                continue
            by = row.get("by", HERE)
            number = works.index((row.get("by"),))
            axis.scatter(
                [across],
                [up],
                marker=MARKERS[number % len(MARKERS)],
                facecolors=f"C{number % 10}" if by == HERE else "none",
                edgecolors=f"C{number % 10}",
                label=by if "by" in row else None,
            )
            axis.annotate(
                _cell(row.get(self.label)), (across, up), xytext=(4, 3), textcoords="offset points", fontsize=6
            )
        axis.set(xlabel=self.x, ylabel=self.y)
        axis.margins(0.12)
        axis.grid(alpha=0.3)


@dataclass(frozen=True, kw_only=True)
class HeatMap(Drawing):
    """Numbers in cells.

    Args:
        down, across: columns.
        value: the column of the numbers.
    """

    down: tuple[str, ...]
    across: str
    value: str

    def panels(self, groups: Mapping[tuple[Any, ...], list[Numbers]]) -> tuple[Figure, list[Axes]]:
        wide = max(len(by_columns(rows, (self.across,))) for rows in groups.values())
        high = max(len(by_columns(rows, self.down)) for rows in groups.values())
        return panels(len(groups), width=2.5 + 0.5 * wide, height=1.8 + 0.3 * high)

    def show(self, axis: Axes, rows: Sequence[Numbers]) -> None:
        lines, columns = by_columns(rows, self.down), list(by_columns(rows, (self.across,)))
        table = [
            [_mean(by_columns(line, (self.across,)).get(at, []), self.value) for at in columns]
            for line in lines.values()
        ]
        shown = axis.imshow(table, cmap="viridis", aspect="auto")
        low, high = shown.get_clim()
        axis.set_xticks(range(len(columns)), [_cell(at[0]) for at in columns], rotation=45, ha="right", fontsize=7)
        axis.set_yticks(range(len(lines)), [", ".join(map(_cell, key)) for key in lines], fontsize=7)
        for down, line in enumerate(table):
            for across, number in enumerate(line):
                dark = "white" if number < (low + high) / 2 else "black"
                axis.text(across, down, f"{number:.3g}", ha="center", va="center", fontsize=6, color=dark)
        axis.set_xlabel(self.across)


@dataclass(frozen=True, kw_only=True)
class Histogram(Drawing):
    """The distribution of a column: an outline for each series, with bins in common.

    Args:
        value: the column.
        series: columns; an outline for each combination of their values.
    """

    value: str
    series: tuple[str, ...]

    def show(self, axis: Axes, rows: Sequence[Numbers]) -> None:
        import numpy as np

        edges = np.histogram_bin_edges([row[self.value] for row in rows], BINS)
        for key, those in by_columns(rows, self.series).items():
            numbers = [row[self.value] for row in those]
            axis.hist(numbers, edges.tolist(), histtype="step", density=True, label=", ".join(map(_cell, key)))
        axis.set(xlabel=self.value, ylabel="density")
        axis.grid(alpha=0.3)


def _labelled(name: str, value: Any) -> str:
    return _cell(value) if isinstance(value, str) else f"{name} {_cell(value)}"


def _common(names: Sequence[str]) -> str:
    """The last word that several names share, e.g. "error"; "" if they share none."""
    last = {name.rpartition(" ")[2] for name in names}
    return last.pop() if len(last) == 1 else ""


def _legend(figure: Figure, axis: Axes) -> None:
    """A legend with each label once, if there are labels: many of them stand below the panels."""
    handles, labels = axis.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if len(once) > FEW_LABELS:
        columns = 3 * len(figure.axes)
        figure.legend(once.values(), once.keys(), frameon=False, fontsize=6, loc="outside lower center", ncols=columns)
    elif once:
        axis.legend(once.values(), once.keys(), frameon=False, fontsize=6)

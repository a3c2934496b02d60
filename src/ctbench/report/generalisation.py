"""Tables and heat maps of generalisation to corrupted images: a row for each network, a column for each corruption.

As CTBench's Figures 6 and 9: each cell is acc(corruption) / acc(clean), the last column is their unweighted mean.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ctbench.report.figures import panels, save
from ctbench.report.grid import Grid
from ctbench.results.generalisation import Generalisation

MEAN = "mean"
DARK = 0.6  # cells above this have black text on a light ground


@dataclass(frozen=True)
class Ratios:
    """A row: a network, at one severity or at all of them."""

    run: str
    severity: int | None  # None: all
    clean: float
    ratios: dict[str, float]  # by corruption, and their mean

    @property
    def label(self) -> str:
        return self.run if self.severity is None else f"{self.run}, {self.severity}"


def ratio_rows(networks: Mapping[str, Generalisation], *, by_severity: bool = False) -> list[Ratios]:
    """The rows of some networks, by name: one for each, or also one for each severity.

    Raises:
        ValueError: the networks were tested on different corruptions.
    """
    rows = []
    first = next(iter(networks.values()))
    for run, found in networks.items():
        if set(found.corruptions) != set(first.corruptions):
            different = ", ".join(sorted(set(found.corruptions) ^ set(first.corruptions)))
            raise ValueError(
                f"{run} and {next(iter(networks))} differ in the corruptions {different}: test both on them"
            )
        for severity in (None, *(found.severities if by_severity else ())):
            ratios = {name: found.ratio(name, severity) for name in first.corruptions}
            rows.append(Ratios(run, severity, found.clean_accuracy, {**ratios, MEAN: found.mean(severity)}))
    return rows


def _heading(rows: list[Ratios]) -> list[str]:
    return ["run", "severity", "clean %", *rows[0].ratios]


def _cells(row: Ratios) -> list[str]:
    severity = "all" if row.severity is None else str(row.severity)
    return [row.run, severity, f"{100 * row.clean:.2f}", *(f"{ratio:.3f}" for ratio in row.ratios.values())]


def ratio_table(rows: list[Ratios]) -> Grid:
    """The rows as a table for a terminal."""
    return Grid(headings=_heading(rows), rows=list(map(_cells, rows)))


def ratio_markdown(rows: list[Ratios]) -> str:
    """The rows as a Markdown table."""
    heading = _heading(rows)
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ratio_csv(rows: list[Ratios]) -> str:
    """The rows as CSV, not rounded; the clean accuracy is a share."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["run", "severity", "clean", *rows[0].ratios])
    for row in rows:
        out.writerow([row.run, "all" if row.severity is None else row.severity, row.clean, *row.ratios.values()])
    return text.getvalue()


def draw_heat_map(rows: list[Ratios], title: str, path: Path) -> None:
    """Draw the rows as a heat map into a file, PNG or SVG by its suffix.

    Raises:
        ValueError: matplotlib is not installed, or the suffix is another one.
    """
    columns = list(rows[0].ratios)
    figure, (axis,) = panels(1, width=2.5 + 0.5 * len(columns), height=1.6 + 0.3 * len(rows))
    ratios = [list(row.ratios.values()) for row in rows]
    shown = axis.imshow(ratios, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=7)
    axis.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=7)
    for down, line in enumerate(ratios):
        for across, ratio in enumerate(line):
            color = "black" if ratio > DARK else "white"
            axis.text(across, down, f"{ratio:.2f}", ha="center", va="center", fontsize=6, color=color)
    figure.colorbar(shown, label="accuracy / clean accuracy")
    save(figure, title, path)

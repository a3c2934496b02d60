"""One accuracy over another: a mark for each run, and hollow marks for published results of the same setting.

As CTBench's Fig. 1, SABR's Fig. 5 and TAPS' Fig. 1: a panel for each data set, norm and radius.

    marks = scatter_marks(rows(folders), "natural", "certified")
    draw_scatter(marks, "natural", "certified", Path("scatter.png"))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from ctbench.report.comparison import Row
from ctbench.report.figures import TITLE_SIZE, panels, save
from ctbench.report.labels import Label, draw_labels
from ctbench.results import Certification, published_results
from ctbench.results.decimals import decimals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCURACIES = ("natural", "adversarial", "certified")
OURS = "black"
MARKERS = "o^sDvP*X"
COLORS = (
    "tab:blue",
    "tab:orange",
    "tab:green",
    "tab:red",
    "tab:purple",
    "tab:brown",
    "tab:pink",
    "tab:olive",
    "tab:cyan",
)
OF_RUNS = ("o", OURS)
FAINT = 0.3  # of dominated runs

Styles = Mapping[str, tuple[str, str]]  # marker and colour by the work


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point of a scatter plot."""

    dataset: str
    norm: str
    eps: float
    label: str  # the name of the run, or the method
    x: float  # percent
    y: float
    by: str = ""  # whose published result it is; "" for a run
    spread: tuple[float, float] | None = None  # half the width of the intervals of x and y, of a mean over runs
    runs: int = 1
    about: tuple[str, str] = ("", "")  # the threat model as text, and a digest of the samples; nothing if published
    dominated_by: str = ""  # the label of a mark that is at least as high in x and y, and higher in one

    @property
    def panel(self) -> str:
        return f"{self.dataset}, {self.norm} eps {decimals(self.eps, 4)}"


def scatter_marks(rows: Iterable[Row], x: str, y: str) -> list[Mark]:
    """The marks of certified runs, and of the results that are published for their data sets, norms and radii.

    Args:
        rows: the rows of `ctbench.report.rows`; runs without a certification, or without one radius
            for all features, are left out.
        x, y: "natural", "adversarial" or "certified".

    Raises:
        ValueError: an accuracy has another name, or no run has a certification.
    """
    wrong = [name for name in (x, y) if name not in ACCURACIES]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not an accuracy of a run: give two of {', '.join(ACCURACIES)}")
    ours = list(_of_runs(rows, x, y))
    if not ours:
        raise ValueError("none of the runs has been certified: run ctbench certify first")
    panels = dict.fromkeys((mark.dataset, mark.norm, mark.eps) for mark in ours)
    return [mark for panel in panels for mark in (*_in_panel(ours, panel), *published_marks(*panel, x, y))]


def _of_runs(rows: Iterable[Row], x: str, y: str) -> Iterator[Mark]:
    for row in rows:
        if row.certification is not None and isinstance(row.eps, int | float):
            yield Mark(
                dataset=row.dataset,
                norm=row.norm,
                eps=row.eps,
                label=row.run,
                x=_percent(row.certification, x),
                y=_percent(row.certification, y),
                about=(row.threat, row.samples),
            )


def _percent(certification: Certification, name: str) -> float:
    return 100 * float(getattr(certification, f"{name}_accuracy"))


def _in_panel(marks: list[Mark], panel: tuple[str, str, float]) -> list[Mark]:
    return [mark for mark in marks if (mark.dataset, mark.norm, mark.eps) == panel]


def published_marks(dataset: str, norm: str, eps: float, x: str, y: str) -> list[Mark]:
    """The published marks of a panel; the same numbers of one work, printed in several papers, are one mark."""
    marks = []
    for result in published_results():
        across, up = getattr(result.accuracies, x), getattr(result.accuracies, y)
        same = (result.dataset, result.norm) == (dataset, norm) and math.isclose(result.eps, eps, rel_tol=1e-6)
        if same and across is not None and up is not None:
            mark = Mark(dataset=dataset, norm=norm, eps=eps, label=result.method, x=across, y=up, by=result.by)
            marks.append(mark)
    return list(dict.fromkeys(marks))


def draw_scatter(marks: Sequence[Mark], x: str, y: str, path: Path, *, front: bool = False) -> None:
    """Draw the marks into a file, PNG or SVG by its suffix, with a panel for each setting.

    Runs are filled marks with their names, published results are hollow marks with their methods; the shape and colour
    of a hollow mark say whose work it is. Dominated runs are faint, means have their intervals as bars, and with
    `front` a line bounds the area that our runs dominate.

    Raises:
        ValueError: matplotlib is not installed, or the suffix is another one.
    """
    settings = list(dict.fromkeys(mark.panel for mark in marks))
    works = list(dict.fromkeys(mark.by for mark in marks if mark.by))
    styles = dict(zip(works, zip(cycle(MARKERS), cycle(COLORS), strict=False), strict=False))
    figure, axes = panels(len(settings), width=6.0, height=5.5)
    for axis, setting in zip(axes, settings, strict=True):
        here = [mark for mark in marks if mark.panel == setting]
        _draw_panel(axis, here, styles)
        if front:
            _draw_front(axis, [mark for mark in here if not mark.by and not mark.dominated_by])
        axis.set(title=setting, xlabel=f"{x} accuracy (%)", ylabel=f"{y} accuracy (%)")
    title = f"{y} over {x} accuracy; hollow: published"
    figure.suptitle(title, fontsize=TITLE_SIZE)  # its room is no place for labels
    for axis, setting in zip(axes, settings, strict=True):
        draw_labels(axis, [_label(mark, styles) for mark in marks if mark.panel == setting])
    save(figure, title, path)


def _label(mark: Mark, styles: Styles) -> Label:
    _, color = styles.get(mark.by, OF_RUNS)
    return Label(
        text=mark.label,
        x=mark.x,
        y=mark.y,
        size=6 if mark.by else 8,
        color=color,
        alpha=FAINT if mark.dominated_by else 1.0,
        bars=mark.spread,
    )


def _draw_front(axis: Axes, best: Sequence[Mark]) -> None:
    """A line around the area that the marks of a front dominate, up to the edges of the panel."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    corners = sorted((mark.x, mark.y) for mark in best)
    corners = [(left, corners[0][1]), *corners, (corners[-1][0], bottom)]
    axis.plot(*zip(*corners, strict=True), drawstyle="steps-pre", color=OURS, alpha=FAINT, linewidth=0.8)
    axis.set(xlim=(left, right), ylim=(bottom, top))


def _draw_panel(axis: Axes, marks: list[Mark], styles: Styles) -> None:
    works = set[str]()
    for mark in marks:
        marker, color = styles.get(mark.by, OF_RUNS)
        strength = FAINT if mark.dominated_by else 1.0
        if mark.spread is not None:
            across, up = mark.spread
            axis.errorbar(
                [mark.x], [mark.y], yerr=up, xerr=across, color=color, alpha=strength, linewidth=0.8, capsize=2
            )
        axis.scatter(
            [mark.x],
            [mark.y],
            marker=marker,
            facecolors="none" if mark.by else color,
            edgecolors=color,
            alpha=strength,
            label=None if mark.by in works else mark.by or "runs",
        )
        works.add(mark.by)
    axis.margins(0.12)
    axis.grid(alpha=0.3)
    for handle in axis.legend(fontsize=6, frameon=False).legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)

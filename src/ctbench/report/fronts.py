"""Fronts: which runs no other run beats in both of two accuracies, and the hypervolume below them.

A point is dominated if another one of its setting is at least as high in both accuracies, and higher in one. The
hypervolume is the area that the points dominate above a reference point, as a share of all area above it up to 100 %
(Zitzler and Thiele 1999, "Multiobjective evolutionary algorithms", in two dimensions). Published results take no part:
they were measured by others, under other rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ctbench.report.drawings import Numbers
from ctbench.report.grid import Grid
from ctbench.report.groups import Group
from ctbench.report.scatter import ACCURACIES, Mark, published_marks
from ctbench.results.fronts import Point, dominates


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The area that points dominate above a reference point, in units of both axes.

    A point that is not above the reference point in both values adds nothing.
    """
    area, height = 0.0, reference[1]
    for x, y in sorted(points, reverse=True):  # from right to left, each higher one adds a box
        if x > reference[0] and y > height:
            area += (x - reference[0]) * (y - height)
            height = y
    return area


@dataclass(frozen=True)
class Front:
    """The marks of one setting: ours, with those that are dominated, and published ones."""

    setting: str
    marks: tuple[Mark, ...]
    share: float  # the hypervolume of ours, as a share of the area above the reference point


def fronts(marks: Sequence[Mark], reference: Point = (0.0, 0.0)) -> list[Front]:
    """The fronts of marks, a front for each setting, in their order.

    Args:
        marks: those of `scatter_marks` or `group_marks`.
        reference: the point above which areas are measured, in percent, below 100.

    Raises:
        ValueError: the reference point is not in [0, 100), or ours are about different samples or threat models.
    """
    if not all(0 <= value < 100 for value in reference):
        raise ValueError(f"the reference point is {reference}: give two percents in [0, 100), e.g. 0,0")
    most = (100 - reference[0]) * (100 - reference[1])
    found = []
    for setting in dict.fromkeys(mark.panel for mark in marks):
        here = [mark for mark in marks if mark.panel == setting]
        ours = [mark for mark in here if not mark.by]
        _check_comparable(ours)
        told = [_told(mark, ours) if not mark.by else mark for mark in here]
        share = hypervolume([(mark.x, mark.y) for mark in ours], reference) / most
        found.append(Front(setting, tuple(told), share))
    return found


def _check_comparable(marks: Sequence[Mark]) -> None:
    for one, other in pairwise(marks):
        if one.about != other.about:
            different = "samples" if one.about[0] == other.about[0] else "threat models"
            raise ValueError(
                f"{one.label} and {other.label} were certified for different {different}, so a front does not compare "
                f"them: certify the same, or leave one out"
            )


def _told(mark: Mark, ours: Sequence[Mark]) -> Mark:
    """The mark, with the name of the mark that dominates it: the one that is highest in y."""
    above = [other for other in ours if dominates((other.x, other.y), (mark.x, mark.y))]
    best = max(above, key=lambda other: (other.y, other.x), default=None)
    return mark if best is None else replace(mark, dominated_by=best.label)


def group_marks(groups: Sequence[Group], x: str, y: str) -> list[Mark]:
    """The marks of groups, means with their intervals, and of the results that are published for their settings.

    Raises:
        ValueError: an accuracy has another name.
    """
    wrong = [name for name in (x, y) if name not in ACCURACIES]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not an accuracy of a run: give two of {', '.join(ACCURACIES)}")
    ours = []
    for group in groups:
        if isinstance(group.eps, int | float):
            across, up = getattr(group, x), getattr(group, y)
            spread = (across.half, up.half) if across.half is not None and up.half is not None else None
            ours.append(
                Mark(
                    dataset=group.dataset,
                    norm=group.norm,
                    eps=group.eps,
                    label=group.label,
                    x=across.mean,
                    y=up.mean,
                    spread=spread,
                    runs=len(group.runs),
                    about=(group.threat, group.samples_digest),
                )
            )
    settings = dict.fromkeys((mark.dataset, mark.norm, mark.eps) for mark in ours)
    return [*ours, *(mark for setting in settings for mark in published_marks(*setting, x, y))]


def front_rows(found: Sequence[Front], x: str, y: str) -> list[Numbers]:
    """A row for each mark, for a CSV file."""
    return [
        {
            "setting": front.setting,
            "label": mark.label,
            "by": mark.by or "here",
            "runs": None if mark.by else mark.runs,
            x: mark.x,
            y: mark.y,
            f"{x} 95 % half-width": None if mark.spread is None else mark.spread[0],
            f"{y} 95 % half-width": None if mark.spread is None else mark.spread[1],
            "dominated by": mark.dominated_by,
        }
        for front in found
        for mark in front.marks
    ]


def front_table(found: Sequence[Front], x: str, y: str) -> Grid:
    """Our runs or groups, the front first."""
    rows = []
    for front in found:
        ours = sorted(
            (mark for mark in front.marks if not mark.by), key=lambda mark: (bool(mark.dominated_by), -mark.y)
        )
        for mark in ours:
            place = f"dominated by {mark.dominated_by}" if mark.dominated_by else "on the front"
            rows.append([mark.label, front.setting, place, f"{mark.x:.2f}", f"{mark.y:.2f}"])
    return Grid(headings=["run", "setting", "place", f"{x} %", f"{y} %"], rows=rows, texts=3)

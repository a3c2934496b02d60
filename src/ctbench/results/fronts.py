"""Which of two points is better in two accuracies at once."""

from __future__ import annotations

Point = tuple[float, float]


def dominates(first: Point, second: Point) -> bool:
    """Whether the first point is at least as high as the second in both values, and higher in one."""
    return first[0] >= second[0] and first[1] >= second[1] and first != second

"""Points of float64 numbers that satisfy linear constraints exactly, near points that do so up to rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from ctbench.vnnlib.halfspaces import Row, next_double

SWEEPS = 4  # over all rows
GRID = 2.0**-26  # of the coordinates that other ones are computed from, if these have too many digits


def repaired(
    point: Sequence[float], lower: Sequence[float], upper: Sequence[float], rows: Sequence[Row]
) -> list[float]:
    """The point, moved so that as many rows as possible contain it, and within a box. It may fail.

    A violated row moves one of its coordinates, where it becomes 0. If no float64 number makes it 0, as equations of
    decimals often need, the coordinates are first rounded to few digits, so that sums of them have few digits.
    """
    moved = _swept(list(point), lower, upper, rows)
    if all(row.contains(moved) for row in rows):
        return moved
    coarse = [min(max(round(x / GRID) * GRID, low), high) for x, low, high in zip(point, lower, upper, strict=True)]
    return _swept(coarse, lower, upper, rows)


def _swept(point: list[float], lower: Sequence[float], upper: Sequence[float], rows: Sequence[Row]) -> list[float]:
    for _ in range(SWEEPS):
        violated = [row for row in rows if not row.contains(point)]
        if not violated:
            break
        for row in violated:
            _satisfy(row, point, lower, upper)
    return point


def _satisfy(row: Row, point: list[float], lower: Sequence[float], upper: Sequence[float]) -> None:
    """Move coordinates of the point until the row contains it: as few as possible, the most influential ones first."""
    for i, weight in sorted(row.coefficients, key=lambda pair: -abs(pair[1])):
        excess = sum((other * Fraction(point[j]) for j, other in row.coefficients), row.offset)
        if excess < 0 or (excess == 0 and not row.strict):
            return
        wanted, side = Fraction(point[i]) - excess / weight, -1 if weight > 0 else 1
        if abs(wanted) > 2**1000:
            continue
        close = float(wanted)
        if row.strict or (Fraction(close) - wanted) * side < 0:
            close = next_double(close, side)
        point[i] = min(max(close, lower[i]), upper[i])
        assert math.isfinite(point[i]), "the box is finite"

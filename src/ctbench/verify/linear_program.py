"""Linear programs whose columns are bounded, and lower bounds of them that are proofs.

    minimise <cost, x>  over  0 <= x <= width,  lower <= A x <= upper

Neumaier and Shcherbina 2004, "Safe bounds in linear and mixed-integer linear programming": any vector y gives a bound,

    <cost, x> = <y, A x> + <cost - A^T y, x>
             >= sum_i (lower_i if y_i > 0 else upper_i) y_i  +  sum_j min(0, (cost - A^T y)_j) width_j

with no condition on y. So only y is asked of a solver: the solver may stop early, be wrong by any tolerance, or fail.
`safe_bound` computes the right side in double precision and subtracts the most that rounding can have added to it:

    a column of n entries    gamma_{n + 4} (|cost_j| + sum_i |A_ij y_i|) width_j,   gamma_n = n u / (1 - n u), u = 2^-53
    the terms alone          2 u |y_i side_i|, because `math.fsum` rounds their sum once

An empty program is proved to be empty in the same way: with cost = 0 a positive bound says that it has no point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

TWICE_UNIT = 2.0**-52  # twice the unit roundoff: TWICE_UNIT n covers gamma_n, and the rounding of its product
TINY = 2.0**-1000  # more than any sum of products loses where they underflow


@dataclass(frozen=True, eq=False)
class LinearProgram:
    """The constraints of n columns and m rows, with A as a list of entries."""

    width: Vector  # [n]: columns are between 0 and this
    lower: Vector  # [m], may be -inf
    upper: Vector  # [m], may be inf
    row: Indices  # [entries], ascending
    column: Indices  # [entries]
    value: Vector  # [entries]

    def scaled(self) -> tuple[LinearProgram, Vector]:
        """The same program in columns x / scale of width about 1, with rows whose largest entry is about 1.

        Scales are powers of two, so only underflow is rounded; rows with underflow are widened by as much.

        Returns:
            The program, and the scale of each column, [n].

        Raises:
            ValueError: an entry, a width or a row's bounds are NaN, or infinite once scaled.
        """
        with np.errstate(all="ignore"):  # non-finite values are detected below
            exponent = np.frexp(self.width)[1]
            value = np.ldexp(self.value, exponent[self.column])
            largest = np.zeros(len(self.lower))
            np.maximum.at(largest, self.row, np.abs(value))
            by_row = -np.frexp(largest)[1]
            value = np.ldexp(value, by_row[self.row])
            lower, upper = np.ldexp(self.lower, by_row), np.ldexp(self.upper, by_row)
        finite = np.isfinite(value).all() and np.isfinite(self.width).all()
        if not finite or np.isnan(lower).any() or np.isnan(upper).any():
            raise ValueError("the program has NaN or infinite coefficients: look for such weights in the network")
        lost = np.zeros(len(lower), dtype=bool)
        lost[self.row[(np.abs(value) < TINY) & (self.value != 0)]] = True
        lost |= (np.abs(lower) < TINY) & (self.lower != 0) | (np.abs(upper) < TINY) & (self.upper != 0)
        lower = np.where(lost, np.nextafter(lower - TINY, -math.inf), lower)
        upper = np.where(lost, np.nextafter(upper + TINY, math.inf), upper)
        program = LinearProgram(np.ldexp(self.width, -exponent), lower, upper, self.row, self.column, value)
        return program, np.ldexp(np.ones(len(exponent)), exponent)

    @cached_property
    def _roundings(self) -> Vector:
        """The number of roundings in a reduced cost and its product with a width, [n]."""
        return np.bincount(self.column, minlength=len(self.width)).astype(np.float64) + 4

    @cached_property
    def _sizes(self) -> Vector:
        """The sizes of the rows, weighted by the roundings of the columns: sum_j n_j |A_ij| width_j, [m]."""
        terms = np.abs(self.value) * (self._roundings * self.width)[self.column]
        return np.bincount(self.row, terms, minlength=len(self.lower)).astype(np.float64)

    def safe_bound(self, cost: Vector, y: Vector, width: Vector) -> float:
        """A lower bound of <cost, x> over the points of the program with x <= width.

        It holds in exact arithmetic for any y. Multipliers that would need an infinite side of a row count as 0.

        Args:
            cost: [n].
            y: one multiplier for each row, [m].
            width: [n], not above the widths of the program.

        Returns:
            The bound; -inf if y or the sum is not finite.
        """
        if len(y) != len(self.lower) or not np.isfinite(y).all():
            return -math.inf
        with np.errstate(all="ignore"):  # non-finite values are detected below
            side = np.where(y > 0, self.lower, self.upper)
            usable = np.isfinite(side)
            y, side = np.where(usable, y, 0.0), np.where(usable, side, 0.0)
            reduced = cost - np.bincount(self.column, self.value * y[self.row], minlength=len(cost))
            terms = np.concatenate([y * side, np.minimum(reduced, 0.0) * width])
            error = 2 * TWICE_UNIT * (np.abs(y) @ np.abs(side)) + TWICE_UNIT * (np.abs(y) @ self._sizes)
            error += TWICE_UNIT * ((self._roundings * np.abs(cost)) @ self.width) + TINY * (1 + self.width.sum())
            size = float(np.abs(terms).sum())
        if not (math.isfinite(size) and math.isfinite(error)):
            return -math.inf
        return math.nextafter(math.fsum(terms) - error, -math.inf)

    def is_empty(self, y: Vector, width: Vector) -> bool:
        """Whether y, in one sign or the other, proves that no point of the program has x <= width."""
        nothing = np.zeros(len(self.width))
        return any(self.safe_bound(nothing, ray, width) > 0 for ray in (y, -y))

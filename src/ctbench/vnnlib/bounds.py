"""Bounds of inputs in exact arithmetic, many at a time, and the boxes that they make.

A bound is a float64 number, the sign of the exact number minus it, and whether the bound is strict. So a box of
thousands of decimals is a few arrays, and around it and inside it lie boxes of float64 numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctbench.vnnlib.property import RealBox

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds of different ends of inputs: end 2 i is the lower end of input i, and end 2 i + 1 its upper end."""

    ends: NDArray[np.int64]  # [m], each end once
    nearest: Floats  # [m] the nearest float64 numbers
    beyond: NDArray[np.int8]  # [m] the sign of (exact - nearest)
    strict: NDArray[np.bool_]  # [m]
    exact: NDArray[Any]  # [m] the numbers, as text or Fraction

    @classmethod
    def one(cls, end: int, nearest: float, exact: Fraction, *, strict: bool) -> Bounds:
        beyond = (exact > Fraction(nearest)) - (exact < Fraction(nearest))
        numbers = np.array([None], dtype=object)
        numbers[0] = exact
        return cls(np.array([end]), np.array([nearest]), np.array([beyond], np.int8), np.array([strict]), numbers)

    def take(self, chosen: NDArray[Any]) -> Bounds:
        return Bounds(
            self.ends[chosen], self.nearest[chosen], self.beyond[chosen], self.strict[chosen], self.exact[chosen]
        )

    def layers(self) -> tuple[Bounds, ...]:
        """The same bounds, in parts that have each end once. Of bounds with different numbers the tightest stays."""
        if len(np.unique(self.ends)) == len(self.ends):
            return (self,)
        side = np.where(self.ends % 2, 1, -1)  # upper ends: the smaller number is tighter
        order = np.lexsort((self.beyond * side, self.nearest * side, self.ends))
        one = self.take(order)
        starts = np.concatenate([[True], one.ends[1:] != one.ends[:-1]])
        first = np.flatnonzero(starts)[np.cumsum(starts) - 1]  # the tightest bound of the same end
        equal = (one.nearest == one.nearest[first]) & (one.beyond == one.beyond[first])
        rank = np.arange(len(first)) - first
        return tuple(one.take(np.flatnonzero(equal & (rank == r))) for r in range(int(rank[equal].max()) + 1))


@dataclass(frozen=True, eq=False)
class Ends:
    """The tightest bounds of both ends of all inputs, [2 n]."""

    known: NDArray[np.bool_]  # whether there is a bound
    nearest: Floats
    beyond: NDArray[np.int8]
    strict: NDArray[np.bool_]
    exact: NDArray[Any]

    @classmethod
    def of(cls, layers: Iterable[Bounds], inputs: int) -> Ends:
        count = 2 * inputs
        ends = cls(
            np.zeros(count, bool),
            np.zeros(count),
            np.zeros(count, np.int8),
            np.zeros(count, bool),
            np.empty(count, object),
        )
        for layer in layers:
            ends._tighten(layer)
        return ends

    def _tighten(self, new: Bounds) -> None:
        at, upper = new.ends, new.ends % 2 == 1
        less, more = new.nearest < self.nearest[at], new.nearest > self.nearest[at]
        tie = ~less & ~more
        less, more = less | (tie & (new.beyond < self.beyond[at])), more | (tie & (new.beyond > self.beyond[at]))
        taken = ~self.known[at] | np.where(upper, less, more)
        for place in np.flatnonzero(self.known[at] & ~less & ~more).tolist():
            here, side = at[place], 1 if upper[place] else -1
            difference = side * (_fraction(self.exact[here]) - _fraction(new.exact[place])) if new.beyond[place] else 0
            taken[place] = difference > 0 or (difference == 0 and bool(new.strict[place]))
        at = at[taken]
        self.known[at] = True
        for name in ("nearest", "beyond", "strict", "exact"):
            getattr(self, name)[at] = getattr(new, name)[taken]

    @property
    def lower(self) -> Floats:
        return self.nearest[::2]

    @property
    def upper(self) -> Floats:
        return self.nearest[1::2]

    def missing(self) -> tuple[int, str] | None:
        """An input without a bound, and which one is missing."""
        for name, side in (("lower", self.known[::2]), ("upper", self.known[1::2])):
            if not side.all():
                return int(np.flatnonzero(~side)[0]), name
        return None

    def clash(self) -> tuple[int, bool] | None:
        """An input with no number between its bounds, and whether that is so only because a bound is strict."""
        known = self.known[::2] & self.known[1::2]
        lower, upper = self.beyond[::2], self.beyond[1::2]
        tie = known & (self.lower == self.upper)
        crossed = known & ((self.lower > self.upper) | (tie & (lower > upper)))
        tie &= lower == upper
        for i in np.flatnonzero(tie & (lower != 0)).tolist():
            difference = _fraction(self.exact[2 * i]) - _fraction(self.exact[2 * i + 1])
            crossed[i], tie[i] = difference > 0, difference == 0
        if crossed.any():
            return int(np.flatnonzero(crossed)[0]), False
        closed = tie & (self.strict[::2] | self.strict[1::2])
        return (int(np.flatnonzero(closed)[0]), True) if closed.any() else None

    def key(self) -> tuple[bytes, ...]:
        """Equal for equal boxes."""
        return self.nearest.tobytes(), self.beyond.tobytes(), self.strict.tobytes()

    def box(self, *, empty: bool) -> RealBox:
        side = np.where(np.arange(len(self.nearest)) % 2, 1, -1)
        outside = side * self.beyond  # > 0: the exact bound lies further out than the nearest number
        with np.errstate(over="ignore"):  # what lies further out than the largest number is not used
            further = np.nextafter(self.nearest, side * np.inf) + 0.0  # never -0.0
        nearer = np.nextafter(self.nearest, -side * np.inf) + 0.0
        around = np.where(outside > 0, further, self.nearest)
        belongs = (outside > 0) | ((outside == 0) & ~self.strict)
        inside = np.where(belongs, self.nearest, nearer)
        return RealBox(_corners(around), _corners(inside), empty)

    def exact_bound(self, end: int) -> Fraction | None:
        """The bound in rational numbers, if there is one."""
        if not self.known[end]:
            return None
        return _fraction(self.exact[end]) if self.beyond[end] else Fraction(float(self.nearest[end]))


def joined(runs: Sequence[tuple[str, str, str]], numbers: Sequence[tuple[float, int]], ends: Sequence[int]) -> Bounds:
    """Bounds from (comparison, name, number as text), the parsed numbers, and the ends."""
    exact = np.empty(len(runs), dtype=object)
    exact[:] = [text for _, _, text in runs]
    strict = np.fromiter((len(comparison) == 1 for comparison, _, _ in runs), dtype=bool, count=len(runs))
    nearest = np.fromiter((close for close, _ in numbers), dtype=np.float64, count=len(runs))
    beyond = np.fromiter((sign for _, sign in numbers), dtype=np.int8, count=len(runs))
    return Bounds(np.array(ends, dtype=np.int64), nearest, beyond, strict, exact)


def _corners(ends: Floats) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(ends[::2].copy()), torch.from_numpy(ends[1::2].copy())


def _fraction(number: str | Fraction) -> Fraction:
    return Fraction(number)

"""The mean of several runs, and how sure it is: standard deviation and interval.

    mean +- t s / sqrt(n),    s^2 = sum (x_i - mean)^2 / (n - 1)

where t is the 97.5 % quantile of Student's t with n - 1 degrees of freedom: for runs whose accuracies are normally
distributed, the interval holds the true mean in 95 % of all cases. It says how training varies, not how test images do.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

SURE = 0.95


@dataclass(frozen=True)
class Spread:
    """Some numbers: their mean, and with at least two of them their standard deviation and an interval."""

    mean: float
    count: int
    deviation: float | None = None
    half: float | None = None  # of the width of the interval

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        """The spread of at least one number."""
        count, mean = len(numbers), statistics.fmean(numbers)
        if count < 2:
            return cls(mean, count)
        deviation = statistics.stdev(numbers)
        return cls(mean, count, deviation, two_sided(count - 1) * deviation / math.sqrt(count))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the interval; None for a single number."""
        return None if self.half is None else (self.mean - self.half, self.mean + self.half)

    def within(self, low: float, high: float) -> tuple[float, float] | None:
        """The ends of the part of the interval between two numbers; None for a single number.

        If the true mean lies between them, this part holds it exactly as often as the whole interval.
        """
        ends = self.interval
        return None if ends is None else (max(low, ends[0]), min(high, ends[1]))

    def is_above(self, other: Spread) -> bool:
        """Whether the interval lies above that of the other.

        False if one of them has none, or a width of 0: equal numbers of a few runs do not say that all runs are equal.
        """
        mine, its = self.interval, other.interval
        return mine is not None and its is not None and bool(self.half and other.half) and mine[0] > its[1]

    def is_above_all(self, others: Collection[Spread]) -> bool:
        """Whether there are others, and the interval lies above those of all."""
        return bool(others) and all(map(self.is_above, others))


def place(number: float, numbers: Iterable[float]) -> int:
    """The place of a number among numbers, 1 for the highest. Numbers that differ by rounding alone share a place."""
    return 1 + sum(other > number and not math.isclose(other, number, rel_tol=1e-9) for other in numbers)


@cache
def two_sided(freedom: int, sure: float = SURE) -> float:
    """The t with P(|T| <= t) = `sure` for Student's t with this many degrees of freedom, by bisection."""
    low, high = 0.0, 1.0
    while _inside(high, freedom) < sure:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < sure else (low, middle)
    return high


def _inside(t: float, freedom: int) -> float:
    """P(|T| <= t), a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = total = cosine if odd else 1.0
    if odd and freedom == 1:
        return 2 * angle / math.pi
    for step in range(2 + odd, freedom - 1, 2):  # factors (step - 1) / step of the terms
        term *= (step - 1) / step * cosine**2
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total

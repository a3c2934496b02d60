"""Step functions: the sign, whether a number is negative, and roundings to whole numbers.

Such a function jumps, so a line around it has to pass both ends of every jump: f(z) - s z is extremal at an end of
[l, u], or on one side of the first or of the last jump inside it. f' is 0 except at jumps, and as slopes count those of
the lines between the ends of jumps.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ctbench.graph.ops.base import Elementwise

STEEPEST = 2.0**20  # the steepest slope of a line around a jump


class Step(Elementwise):
    """A function that is constant between jumps upward."""

    @abstractmethod
    def jumps(self, lower: Tensor, upper: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        """The first and the last jump in [l, u]: its place, and the least and the greatest value next to it there.

        Without a jump, any point of [l, u] with the value of f there.
        """

    def error(self, lower: Tensor, upper: Tensor) -> Tensor | float:
        return 0.0

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self(lower), self(upper)

    def extremes(self, lower: Tensor, upper: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        first, last = self(lower) - slope * lower, self(upper) - slope * upper
        least, greatest = torch.minimum(first, last), torch.maximum(first, last)
        for place, below, above in self.jumps(lower, upper):
            least = torch.minimum(least, below - slope * place)
            greatest = torch.maximum(greatest, above - slope * place)
        return least, greatest

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        # a line below passes the foot of a jump and an end of [l, u]: steeper ones gain little over the shorter side
        height, wide = self(upper) - self(lower), (upper - lower) / 2
        steepest = height / torch.where(height > 0, wide, 1.0).clamp(min=torch.finfo(wide.dtype).tiny)
        return torch.zeros_like(height), steepest.clamp(max=STEEPEST)

    def tightest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The best of a flat line, of the slope of the chord, and of the steepest slope, at the middle."""
        lower, upper = lower.detach(), upper.detach()
        middle, (flat, steepest) = (lower + upper) / 2, self.slopes(lower, upper)
        low, high = flat, flat
        below, above = self.image(lower, upper)
        for slope in (torch.clamp(self.chord(lower, upper), flat, steepest), steepest):
            least, greatest = self.extremes(lower, upper, slope)
            low = torch.where(least + slope * middle > below, slope, low)
            below = torch.maximum(below, least + slope * middle)
            high = torch.where(greatest + slope * middle < above, slope, high)
            above = torch.minimum(above, greatest + slope * middle)
        return low, high


@dataclass(frozen=True)
class Sign(Step):
    """-1, 0 or 1."""

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.sign(x) + 0 * x  # NaN for infinite values, which proves nothing

    def jumps(self, lower: Tensor, upper: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        place = torch.minimum(upper, lower.clamp(min=0))
        there = place == 0
        value = torch.sign(place)
        return ((place, torch.where(there & (lower < 0), -1.0, value), torch.where(there & (upper > 0), 1.0, value)),)


@dataclass(frozen=True)
class Heaviside(Step):
    """1 for z >= 0, otherwise 0. Its gradient is that of a sigmoid, which tells attacks the way to the jump."""

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        smooth = torch.sigmoid(x)
        return (x >= 0).to(x.dtype) + (smooth - smooth.detach()) + 0 * x.detach()

    def jumps(self, lower: Tensor, upper: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        place = torch.minimum(upper, lower.clamp(min=0))
        above = (place >= 0).to(place.dtype)
        return ((place, torch.where((place == 0) & (lower < 0), 0.0, above), above),)


@dataclass(frozen=True)
class Floor(Step):
    """The greatest whole number that is not above z."""

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.floor(x) + 0 * x

    def jumps(self, lower: Tensor, upper: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        # the values change by 1 from jump to jump, and s z by s: so the first and the last jump are the extreme ones
        first, last = torch.floor(lower) + 1, torch.floor(upper)
        there = first <= last

        def jump(number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            value = torch.floor(torch.where(there, number, lower))
            return torch.where(there, number, lower), torch.where(there, value - 1, value), value

        return jump(first), jump(last)


@dataclass(frozen=True)
class Trunc(Step):
    """z without its fraction: the whole numbers from 0 on below, and from 0 down above."""

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.trunc(x) + 0 * x

    def jumps(self, lower: Tensor, upper: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        # there is no jump at 0: the first and the last one of each sign
        first, last = torch.ceil(lower), torch.floor(upper)
        negative = (first.clamp(max=-1), last.clamp(max=-1), (torch.ceil(upper) - 1).clamp(max=-1))
        positive = (first.clamp(min=1), last.clamp(min=1), (torch.floor(lower) + 1).clamp(min=1))

        def jump(number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            is_there = (lower <= number) & (number <= upper)
            place = torch.where(is_there, number, lower)
            value = torch.trunc(place)
            below = torch.where(is_there & (number > 0) & (lower < number), number - 1, value)
            above = torch.where(is_there & (number < 0) & (number < upper), number + 1, value)
            return place, below, above

        return tuple(jump(number) for number in (*negative, *positive))


@dataclass(frozen=True)
class Round(Step):
    """The nearest whole number; the even one if two are as near."""

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.round(x) + 0 * x

    def jumps(self, lower: Tensor, upper: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        def jump(number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            place = number + 0.5  # between this number and the next one
            is_there = (lower <= place) & (place <= upper)
            place = torch.where(is_there, place, lower)
            value = torch.round(place)
            below = torch.where(is_there & (lower < place), number, value)
            above = torch.where(is_there & (place < upper), number + 1, value)
            return place, below, above

        first, last = torch.ceil(lower - 0.5), torch.floor(upper - 0.5)
        # the next ones: at an end of [l, u], one side of a jump lies outside. And 1/2 - 2^-54 - 1/2 is rounded
        return jump(first), jump(first + 1), jump(last), jump(last - 1)

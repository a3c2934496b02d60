"""Functions of one variable: powers, exponential, logarithm, trigonometric functions, the error function.

    function                            f' = s at                          f' changes direction at   defined on
    exp(z)                              log s                              -                         all numbers
    log(z)                              1 / s                              -                         z > 0
    z^p                                 +-|s / p|^(1 / (p - 1))            0, for odd p > 1          see `Power`
    sin(z), cos(z)                      +-arccos(s) + 2 pi k, ...          pi k                      all numbers
    tan(z)                              k pi +- arctan(sqrt(s - 1))        k pi                      between two poles
    atan(z)                             +-sqrt(1 / s - 1)                  0                         all numbers
    erf(z)                              +-sqrt(-log(s sqrt(pi) / 2))       0                         all numbers

Every relaxation follows from this table (see `smooth`). Beyond the numbers where a function is defined, bounds are NaN,
which proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.graph.ops.base import EPSILON
from ctbench.graph.ops.smooth import Smooth

# A term above exp(CAP) makes a softmax smaller than CUT, whatever its size: so a softmax cuts its terms off there, and
# no sum of them overflows. The bounds of a reciprocal allow for this change
CAP, CUT = 40.0, 2.0**-57

# slopes of a root at points below this share of the upper end are not used: they are nearly infinite
NEAREST = 2.0**-20


class Curve(Smooth):
    """A smooth function, whose values and slopes may be of any size."""

    def defined(self, lower: Tensor, upper: Tensor) -> Tensor | bool:
        """Whether the function is defined and continuous on [l, u]."""
        return True

    def valid(self, lower: Tensor, upper: Tensor) -> Tensor:
        """0, or NaN where the function is not defined on all of [l, u], or bounds are infinite."""
        inside = self.defined(lower, upper)
        nothing = super().valid(lower, upper)
        return torch.where(inside, nothing, math.nan) if isinstance(inside, Tensor) else nothing

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        valid = self.valid(lower, upper)
        least, greatest = super().slopes(lower, upper)
        return least + valid, greatest + valid

    def error(self, lower: Tensor, upper: Tensor) -> Tensor | float:
        # a stationary point is wrong by a few units of its size R, and f' there by a few units of its size D
        (first, last), (least, greatest) = self.image(lower, upper), self.slopes(lower, upper)
        reach, steepest = torch.maximum(lower.abs(), upper.abs()), torch.maximum(least.abs(), greatest.abs())
        return 64 * EPSILON * (1 + torch.maximum(first.abs(), last.abs()) + steepest * reach)

    def tightest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        if self.inflections:
            return super().tightest(lower, upper)
        # f' is monotone: the chord is on one side of f, and the tangent at the middle on the other
        lower, upper = lower.detach(), upper.detach()
        (least, greatest), chord = self.slopes(lower, upper), self.chord(lower, upper)
        tangent = torch.clamp(self.derivative((lower + upper) / 2), least, greatest)
        rising = self.derivative(upper) >= self.derivative(lower)
        return torch.where(rising, tangent, chord), torch.where(rising, chord, tangent)


class Precise(Curve):
    """A function that torch computes to a few units in the last place of its value, which is least or greatest at exact
    points: ends of [l, u], or 0.
    """

    def image_errors(self, lower: Tensor, upper: Tensor) -> tuple[Tensor | float, Tensor | float]:
        return 0.0, 0.0


class Increasing(Curve):
    """A function that increases, and is defined everywhere."""

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self(lower), self(upper)


# ---------------------------------------------------------------------------------- powers, exponentials, logarithms


@dataclass(frozen=True)
class Exp(Precise, Increasing):
    """exp(z)."""

    convex: ClassVar[bool] = True
    inflections: ClassVar[tuple[float, ...]] = ()

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.exp(x)

    def derivative(self, x: Tensor) -> Tensor:
        return torch.exp(x)

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        return [torch.clamp(slope.clamp(min=torch.finfo(slope.dtype).tiny).log(), lower, upper)]


@dataclass(frozen=True)
class CappedExp(Precise, Increasing):
    """exp(min(z, cap)): where only the reciprocal of a sum of such terms matters, it differs by at most exp(-cap)."""

    cap: float

    @property
    def inflections(self) -> tuple[float, ...]:  # type: ignore[override]
        return (self.cap,)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.exp(x.clamp(max=self.cap))

    def derivative(self, x: Tensor) -> Tensor:
        return torch.where(x > self.cap, 0.0, torch.exp(x.clamp(max=self.cap)))  # exp(cap) at the kink

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        place = slope.clamp(min=torch.finfo(slope.dtype).tiny).log().clamp(max=self.cap)
        return [torch.clamp(point, lower, upper) for point in (place, torch.full_like(place, self.cap))]

    def tightest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = lower.detach(), upper.detach()
        if bool((upper > self.cap).any()):
            return super().tightest(lower, upper)
        return self.derivative((lower + upper) / 2), self.chord(lower, upper)


@dataclass(frozen=True)
class Log(Curve):
    """log(z), for z > 0."""

    inflections: ClassVar[tuple[float, ...]] = ()

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.log(x)

    def defined(self, lower: Tensor, upper: Tensor) -> Tensor | bool:
        return lower > 0

    def derivative(self, x: Tensor) -> Tensor:
        return 1 / x

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        return [torch.clamp(1 / slope.clamp(min=torch.finfo(slope.dtype).tiny), lower, upper)]


@dataclass(frozen=True)
class Power(Precise):
    """z^p. A whole p > 0 takes all numbers, a whole p < 0 all but 0, another p > 0 takes z >= 0, and p < 0 takes z > 0.

    So the square root is p = 1/2, the reciprocal p = -1, and the reciprocal of a square root p = -1/2.
    """

    exponent: float

    @property
    def whole(self) -> bool:
        return float(self.exponent).is_integer()

    @property
    def inflections(self) -> tuple[float, ...]:  # type: ignore[override]
        return (0.0,) if self.whole and self.exponent > 2 and self.exponent % 2 == 1 else ()

    @property
    def convex(self) -> bool:  # type: ignore[override]
        return (self.whole and self.exponent > 0 and self.exponent % 2 == 0) or (
            not self.whole and not 0 < self.exponent < 1
        )

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.pow(x, self.exponent)

    def defined(self, lower: Tensor, upper: Tensor) -> Tensor | bool:
        if self.whole:
            return True if self.exponent > 0 else (lower > 0) | (upper < 0)
        return lower >= 0 if self.exponent > 0 else lower > 0

    def derivative(self, x: Tensor) -> Tensor:
        return self.exponent * torch.pow(x, self.exponent - 1)

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        if 0 < self.exponent < 1:  # f' is infinite at 0, where lines this steep would not be good ones
            nearest = upper.detach().clamp(min=2.0**-60) * NEAREST
            return super().slopes(
                torch.where(lower < 0, lower, torch.maximum(lower, nearest)), torch.maximum(upper, nearest)
            )
        return super().slopes(lower, upper)

    def image_errors(self, lower: Tensor, upper: Tensor) -> tuple[Tensor | float, Tensor | float]:
        # a softmax is the reciprocal of sums whose terms are cut off at exp(CAP): this changes it by less than CUT
        return (CUT, CUT) if self.exponent == -1 else (0.0, 0.0)

    def error(self, lower: Tensor, upper: Tensor) -> Tensor | float:
        condition = 1 + 1 / abs(self.exponent - 1)  # of the root of the slope
        return super().error(lower, upper) * condition

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        size = torch.pow((slope / self.exponent).abs(), 1 / (self.exponent - 1))
        return [torch.clamp(place, lower, upper) for place in (-size, size)]


# -------------------------------------------------------------------------------------------- trigonometric functions

TURN = 2 * math.pi


class Wave(Curve):
    """A sine or a cosine: there is no list of the places where f' changes direction."""

    inflections: ClassVar[tuple[float, ...]] = ()
    top: ClassVar[float]  # a place where f' is 1

    def angles(self, slope: Tensor) -> tuple[Tensor, Tensor]:
        """The two places in a turn with f' = slope."""
        angle = torch.acos(slope.clamp(-1, 1))
        return angle + self.top, self.top - angle

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        first, last = self.derivative(lower), self.derivative(upper)
        least, greatest = torch.minimum(first, last), torch.maximum(first, last)
        least = torch.where(_holds(lower, upper, self.top + math.pi, TURN), -1.0, least)
        return least, torch.where(_holds(lower, upper, self.top, TURN), 1.0, greatest)

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        # f(z) - s z changes by a constant from turn to turn, so it is extremal in the first turn or in the last one
        places = (
            place
            for angle in self.angles(slope)
            for place in (
                angle + TURN * torch.ceil((lower - angle) / TURN),
                angle + TURN * torch.floor((upper - angle) / TURN),
            )
        )
        return [torch.clamp(place, lower, upper) for place in places]

    def tightest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return Smooth.tightest(self, lower, upper)


def _holds(lower: Tensor, upper: Tensor, place: float, period: float) -> Tensor:
    """Whether [l, u] holds one of the places `place` + k `period`."""
    return place + period * torch.ceil((lower - place) / period) <= upper


@dataclass(frozen=True)
class Sin(Wave):
    """sin(z)."""

    top: ClassVar[float] = 0.0

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.sin(x)

    def derivative(self, x: Tensor) -> Tensor:
        return torch.cos(x)


@dataclass(frozen=True)
class Cos(Wave):
    """cos(z)."""

    top: ClassVar[float] = -math.pi / 2

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.cos(x)

    def derivative(self, x: Tensor) -> Tensor:
        return -torch.sin(x)


@dataclass(frozen=True)
class Tan(Curve):
    """tan(z), between two of its poles."""

    inflections: ClassVar[tuple[float, ...]] = ()

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tan(x)

    def defined(self, lower: Tensor, upper: Tensor) -> Tensor | bool:
        pole = (torch.round(lower / math.pi) + 0.5) * math.pi  # the first one above the lower end
        apart = 1e-6 * (1 + lower.abs())  # far more than the rounding of a pole
        return (upper < pole - apart) & (lower > pole - math.pi + apart)

    def derivative(self, x: Tensor) -> Tensor:
        return 1 + torch.tan(x).square()

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        least, greatest = super().slopes(lower, upper)
        return torch.where(_holds(lower, upper, 0.0, math.pi), least.clamp(max=1.0), least), greatest

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        middle, angle = torch.round(lower / math.pi) * math.pi, torch.atan((slope - 1).clamp(min=0).sqrt())
        return [torch.clamp(place, lower, upper) for place in (middle - angle, middle + angle)]

    def tightest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return Smooth.tightest(self, lower, upper)


@dataclass(frozen=True)
class Atan(Increasing):
    """atan(z)."""

    inflections: ClassVar[tuple[float, ...]] = (0.0,)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.atan(x)

    def derivative(self, x: Tensor) -> Tensor:
        return 1 / (1 + x.square())

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        size = ((1 - slope) / slope.clamp(min=torch.finfo(slope.dtype).tiny)).clamp(min=0).sqrt()
        return [torch.clamp(place, lower, upper) for place in (-size, size)]


@dataclass(frozen=True)
class Erf(Increasing):
    """The error function."""

    inflections: ClassVar[tuple[float, ...]] = (0.0,)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.erf(x)

    def derivative(self, x: Tensor) -> Tensor:
        return torch.exp(-x.square()) * (2 / math.sqrt(math.pi))

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        share = (slope * (math.sqrt(math.pi) / 2)).clamp(torch.finfo(slope.dtype).tiny, 1)
        size = (-share.log()).sqrt()
        return [torch.clamp(place, lower, upper) for place in (-size, size)]

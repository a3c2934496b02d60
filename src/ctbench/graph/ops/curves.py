"""Functions of one variable: powers, exponential, logarithm, trigonometric functions, and further activations.

    function                            f' = s at                          f' changes direction at   defined on
    exp(z)                              log s                              -                         all numbers
    log(z)                              1 / s                              -                         z > 0
    z^p                                 +-|s / p|^(1 / (p - 1))            0, for odd p > 1          see `Power`
    sin(z), cos(z)                      +-arccos(s) + 2 pi k, ...          pi k                      all numbers
    tan(z)                              k pi +- arctan(sqrt(s - 1))        k pi                      between two poles
    atan(z)                             +-sqrt(1 / s - 1)                  0                         all numbers
    erf(z)                              +-sqrt(-log(s sqrt(pi) / 2))       0                         all numbers
    softplus(z) = log(1 + exp(z))       log(s / (1 - s))                   -                         all numbers
    softsign(z) = z / (1 + |z|)         +-(1 / sqrt(s) - 1)                0                         all numbers
    ELU(z) = z, or a (exp(z) - 1)       log(s / a), and the kink at 0      0                         all numbers
    hardswish(z) = z min(max(z + 3, 0), 6) / 6   3 s - 3 / 2, and the kinks at +-3                   all numbers
    mish(z) = z tanh(softplus(z))       bisection                          two places                all numbers
    GELU with tanh                      bisection                          two places                all numbers

Every relaxation follows from this table (see `smooth`). Beyond the numbers where a function is defined, bounds are NaN,
which proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph.ops.base import EPSILON, Op, Shape, UnsupportedLayerError, lower
from ctbench.graph.ops.linear import Scale
from ctbench.graph.ops.moves import Shift
from ctbench.graph.ops.piecewise import Clamp
from ctbench.graph.ops.smooth import GELU, Smooth

NEAREST = (
    2.0**-20
)  # slopes of a root at points below this share of the upper end are not used: they are nearly infinite


class Curve(Smooth):
    """A smooth function, whose values and slopes may be of any size."""

    def defined(self, lower: Tensor, upper: Tensor) -> Tensor | bool:
        """Whether the function is defined and continuous on [l, u]."""
        return True

    def _valid(self, lower: Tensor, upper: Tensor) -> Tensor | float:
        """0, or NaN where the function is not defined on all of [l, u]."""
        inside = self.defined(lower, upper)
        return torch.where(inside, 0.0, math.nan).to(lower.dtype) if isinstance(inside, Tensor) else 0.0

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        valid = self._valid(lower, upper)
        least, greatest = super().slopes(lower, upper)
        return least + valid, greatest + valid

    def extremes(self, lower: Tensor, upper: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        valid = self._valid(lower, upper)
        least, greatest = super().extremes(lower, upper, slope)
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


class Increasing(Curve):
    """A function that increases, and is defined everywhere."""

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self(lower), self(upper)


# ---------------------------------------------------------------------------------- powers, exponentials, logarithms


@dataclass(frozen=True)
class Exp(Increasing):
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
class CappedExp(Increasing):
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
class Power(Curve):
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

    def error(self, lower: Tensor, upper: Tensor) -> Tensor | float:
        return super().error(lower, upper) * (
            1 + 1 / abs(self.exponent - 1)
        )  # the root of the slope has this condition

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


# --------------------------------------------------------------------------------------------------- activations


@dataclass(frozen=True)
class Softplus(Increasing):
    """log(1 + exp(z)). Above `threshold` torch returns z: the difference is part of the error of bounds."""

    convex: ClassVar[bool] = True
    inflections: ClassVar[tuple[float, ...]] = ()
    threshold: float = math.inf

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.logaddexp(x, torch.zeros_like(x))

    def derivative(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        tiny = torch.finfo(slope.dtype).tiny
        return [torch.clamp(slope.clamp(min=tiny).log() - (1 - slope).clamp(min=tiny).log(), lower, upper)]

    def error(self, lower: Tensor, upper: Tensor) -> Tensor | float:
        other = torch.where(upper > self.threshold, math.log1p(math.exp(-max(self.threshold, -700.0))), 0.0)
        return super().error(lower, upper) + 1.01 * other


@dataclass(frozen=True)
class Softsign(Increasing):
    """z / (1 + |z|)."""

    inflections: ClassVar[tuple[float, ...]] = (0.0,)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.softsign(x)

    def derivative(self, x: Tensor) -> Tensor:
        return (1 + x.abs()).pow(-2)

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        size = (slope.clamp(min=torch.finfo(slope.dtype).tiny).rsqrt() - 1).clamp(min=0)
        return [torch.clamp(place, lower, upper) for place in (-size, size)]


@dataclass(frozen=True)
class ELU(Increasing):
    """z for z >= 0, and alpha (exp(z) - 1) for z < 0, with alpha > 0."""

    inflections: ClassVar[tuple[float, ...]] = (0.0,)
    alpha: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.elu(x, self.alpha)

    def derivative(self, x: Tensor) -> Tensor:
        return torch.where(x < 0, self.alpha * torch.exp(x.clamp(max=0)), 1.0)

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        first, last = self.derivative(lower), self.derivative(upper)
        least, greatest = torch.minimum(first, last), torch.maximum(first, last)
        touches = (lower < 0) & (upper >= 0)  # f' comes close to alpha on the left of the kink
        return torch.where(touches, least.clamp(max=self.alpha), least), torch.where(
            touches, greatest.clamp(min=self.alpha), greatest
        )

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        place = (slope / self.alpha).clamp(torch.finfo(slope.dtype).tiny, 1).log()
        return [torch.clamp(point, lower, upper) for point in (place, torch.zeros_like(place))]


@dataclass(frozen=True)
class Hardswish(Curve):
    """z min(max(z + 3, 0), 6) / 6."""

    inflections: ClassVar[tuple[float, ...]] = (-3.0, 3.0)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.hardswish(x)

    def derivative(self, x: Tensor) -> Tensor:
        return torch.where(x < -3, 0.0, torch.where(x > 3, 1.0, (2 * x + 3) / 6))  # -1/2 and 3/2 at the kinks

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        places = (3 * slope - 1.5).clamp(-3, 3), torch.full_like(slope, -3.0), torch.full_like(slope, 3.0)
        return [torch.clamp(place, lower, upper) for place in places]


# where the second derivatives are 0, computed with 30 digits
_MISH_INFLECTIONS = (-2.256376396360793, 1.4905711794854285)
_TANH_GELU_INFLECTION = 1.4185040088907884


@dataclass(frozen=True)
class Mish(Curve):
    """z tanh(log(1 + exp(z)))."""

    inflections: ClassVar[tuple[float, ...]] = _MISH_INFLECTIONS
    tails: ClassVar[float] = 40.0

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.mish(x)

    def derivative(self, x: Tensor) -> Tensor:
        inner = torch.tanh(F.softplus(x))
        return inner + x * torch.sigmoid(x) * (1 - inner.square())


@dataclass(frozen=True)
class TanhGELU(Curve):
    """z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2."""

    inflections: ClassVar[tuple[float, ...]] = (-_TANH_GELU_INFLECTION, _TANH_GELU_INFLECTION)
    tails: ClassVar[float] = 12.0

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.gelu(x, approximate="tanh")

    def derivative(self, x: Tensor) -> Tensor:
        x = x.clamp(-20, 20)  # the cube of a larger number may overflow, and f' is 0 or 1 long before
        scale = math.sqrt(2 / math.pi)
        inner = torch.tanh(scale * (x + 0.044715 * x.pow(3)))
        return (1 + inner) / 2 + x / 2 * (1 - inner.square()) * scale * (1 + 3 * 0.044715 * x.square())


# -------------------------------------------------------------------------------------------------------- layers


def scaled(factor: float, shape: Shape) -> Scale:
    """z -> factor z, for values of this shape and a factor that may be rounded."""
    zero = torch.zeros((1,) * len(shape), dtype=torch.float64)
    return Scale(zero + factor, zero, zero)


def shifted(offset: float, shape: Shape) -> Shift:
    """z -> z + offset, for values of this shape."""
    return Shift(torch.full((1,) * len(shape), offset, dtype=torch.float64))


@lower.register
def _(module: nn.GELU, shape: Shape) -> Op:
    return GELU() if module.approximate == "none" else TanhGELU()


@lower.register
def _(module: nn.Mish, shape: Shape) -> Op:
    return Mish()


@lower.register
def _(module: nn.Softsign, shape: Shape) -> Op:
    return Softsign()


@lower.register
def _(module: nn.Hardswish, shape: Shape) -> Op:
    return Hardswish()


@lower.register
def _(module: nn.ELU, shape: Shape) -> Op:
    return _elu(float(module.alpha))


def _elu(alpha: float) -> Op:
    if not alpha > 0:
        raise UnsupportedLayerError(f"an ELU with alpha={alpha:g} is not supported: give alpha > 0")
    return ELU(alpha)


SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


@lower.register
def _(module: nn.SELU, shape: Shape) -> Op | Sequence[Op]:
    return ELU(SELU_ALPHA), scaled(SELU_SCALE, shape)


@lower.register
def _(module: nn.CELU, shape: Shape) -> Op | Sequence[Op]:
    _elu(alpha := float(module.alpha))
    return (ELU(),) if alpha == 1 else (scaled(1 / alpha, shape), ELU(), scaled(alpha, shape))


@lower.register
def _(module: nn.Softplus, shape: Shape) -> Op | Sequence[Op]:
    beta, softplus = float(module.beta), Softplus(float(module.threshold))
    if not beta > 0:
        raise UnsupportedLayerError(f"Softplus with beta={beta:g} is not supported: give beta > 0")
    return softplus if beta == 1 else (scaled(beta, shape), softplus, scaled(1 / beta, shape))


@lower.register
def _(module: nn.LogSigmoid, shape: Shape) -> Op | Sequence[Op]:
    return scaled(-1.0, shape), Softplus(), scaled(-1.0, shape)


@lower.register
def _(module: nn.Hardsigmoid, shape: Shape) -> Op | Sequence[Op]:
    return shifted(3.0, shape), Clamp(0.0, 6.0), scaled(1 / 6, shape)

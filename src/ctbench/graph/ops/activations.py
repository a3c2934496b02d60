"""Smooth activations besides those of `smooth`: softplus, ELU and its variants, mish, hardswish, GELU with tanh.

    function                            f' = s at                          f' changes direction at
    softplus(z) = log(1 + exp(z))       log(s / (1 - s))                   -
    softsign(z) = z / (1 + |z|)         +-(1 / sqrt(s) - 1)                0
    ELU(z) = z, or a (exp(z) - 1)       log(s / a), and the kink at 0      0
    hardswish(z) = z min(max(z + 3, 0), 6) / 6   3 s - 3 / 2, and the kinks at +-3
    mish(z) = z tanh(softplus(z))       bisection                          two places
    GELU with tanh                      bisection                          two places

Every relaxation follows from this table (see `smooth`). Other activations are chains: SELU is a scaled ELU, CELU an ELU
between scales, a hard sigmoid a clamp between a shift and a scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph.ops.base import Op, Shape, UnsupportedLayerError, lower
from ctbench.graph.ops.curves import Curve, Increasing
from ctbench.graph.ops.linear import Scale
from ctbench.graph.ops.moves import Shift
from ctbench.graph.ops.piecewise import Clamp
from ctbench.graph.ops.smooth import GELU


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

    def curvature(self, x: Tensor) -> Tensor:
        inner, share = torch.tanh(F.softplus(x)), torch.sigmoid(x)
        steepness = share * (1 - inner.square())  # of `inner`
        return steepness * (2 + x * (1 - share - 2 * share * inner))


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

    def curvature(self, x: Tensor) -> Tensor:
        scale = math.sqrt(2 / math.pi)
        inner = torch.tanh(scale * (x + 0.044715 * x.pow(3)))
        first, second = scale * (1 + 3 * 0.044715 * x.square()), scale * 6 * 0.044715 * x  # derivatives of its argument
        return (1 - inner.square()) * (first + x / 2 * second - x * inner * first.square())


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

"""Piecewise linear activations: ReLU, leaky ReLU, the absolute value, and clamps.

f(z) - s z is extremal at an end of [l, u] or at a kink inside it. This gives the tightest line of any slope.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctbench.graph.ops.base import Elementwise, Lines, Op, Shape, UnsupportedLayerError, lower

NARROWEST = 1e-20  # the smallest width of a chord: in single precision, gradients up to 1e18 can be divided by it


class Kinked(Elementwise):
    """A continuous function that is linear between any two neighbouring kinks. Entries may have kinks of their own."""

    @property
    @abstractmethod
    def kinks(self) -> Sequence[float | Tensor]:
        """The points where the slope changes, ascending; a tensor has one for each entry."""

    @property
    @abstractmethod
    def pieces(self) -> Sequence[float | Tensor]:
        """The slopes before the first kink, after the first kink, and so on; a tensor has one for each entry."""

    def error(self, lower: Tensor, upper: Tensor) -> Tensor | float:
        return 0.0

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        # a piece counts if [l, u] reaches into it; a single point counts for the piece on its right
        least = torch.full_like(lower + upper, math.inf)
        greatest = -least
        for slope, begin, end in zip(self.pieces, (-math.inf, *self.kinks), (*self.kinks, math.inf), strict=True):
            there = (lower < end) & ((upper > begin) | (lower >= begin))
            least = torch.where(there, least.clamp(max=slope), least)
            greatest = torch.where(there, greatest.clamp(min=slope), greatest)
        return least, greatest

    def extremes(self, lower: Tensor, upper: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        first, last = self(lower) - slope * lower, self(upper) - slope * upper
        least, greatest = torch.minimum(first, last), torch.maximum(first, last)
        for kink in self.kinks:
            point = torch.minimum(upper, lower.clamp(min=kink))
            value = self(point) - slope * point
            least, greatest = torch.minimum(least, value), torch.maximum(greatest, value)
        return least, greatest

    def tightest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        # the area is smallest for the best line at the middle: it joins two of the ends and kinks
        points = [lower, *(torch.minimum(upper, lower.clamp(min=kink)) for kink in self.kinks), upper]
        middle = (lower + upper) / 2
        low, high = self.slopes(lower, upper)
        below, above = self._at(middle, lower, upper, low)[0], self._at(middle, lower, upper, high)[1]
        for begin, end in combinations(points, 2):
            slope = torch.clamp(self.chord(begin, end), *self.slopes(lower, upper))
            least, greatest = self._at(middle, lower, upper, slope)
            low, below = torch.where(least > below, slope, low), torch.maximum(least, below)
            high, above = torch.where(greatest < above, slope, high), torch.minimum(greatest, above)
        return low, high

    def _at(self, middle: Tensor, lower: Tensor, upper: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """The values at the middle of the two lines of this slope."""
        least, greatest = self.extremes(lower, upper, slope)
        return slope * middle + least, slope * middle + greatest


class PiecewiseLinear(Kinked):
    """A continuous function that is linear between kinks, the same for all entries."""

    @property
    @abstractmethod
    def kinks(self) -> tuple[float, ...]:
        """The points where the slope changes, ascending."""

    @property
    @abstractmethod
    def pieces(self) -> tuple[float, ...]:
        """The slopes before the first kink, after the first kink, and so on."""


@dataclass(frozen=True)
class ReLU(PiecewiseLinear):
    """max(0, z). For l < 0 < u the upper line is the chord, and any line s z with s in [0, 1] lies below."""

    convex: ClassVar[bool] = True
    kinks: ClassVar[tuple[float, ...]] = (0.0,)
    pieces: ClassVar[tuple[float, ...]] = (0.0, 1.0)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.relu(x)

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return F.relu(lower), F.relu(upper)

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        least = ((lower >= 0) & (upper > 0)).to(lower.dtype)
        return least, (upper > 0).to(lower.dtype)

    def exact(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (lower >= 0) | (upper <= 0)

    def chord(self, lower: Tensor, upper: Tensor) -> Tensor:
        above, below = F.relu(upper), F.relu(-lower)
        return above / (above + below).clamp(min=NARROWEST)  # 0 where l = u = 0

    def tightest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return (upper > -lower).to(lower.dtype), self.chord(lower, upper)

    def lines(self, lower: Tensor, upper: Tensor, low: Tensor, high: Tensor) -> Lines:
        least, greatest = self.slopes(lower, upper)
        low, high = torch.clamp(low, least, greatest), torch.clamp(high, least, greatest)
        # with slopes in [0, 1] the minimum of f(z) - s z is 0, at the kink, and the maximum lies at an end of [l, u].
        # It is 0 if f is linear with slope s. Infinite bounds make it NaN, which certifies nothing
        return Lines(low, None, high, torch.maximum(high * F.relu(-lower), (1 - high) * F.relu(upper)))

    def tightest_lines(self, lower: Tensor, upper: Tensor) -> Lines:
        slope, offset = Chord.apply(lower, upper)  # type: ignore[no-untyped-call]
        return Lines(slope.detach().round(), None, slope, offset)  # the slope 1 where it is above 1/2


class Chord(torch.autograd.Function):
    """Slope and offset of the chord of max(0, z) on [l, u]. With a = max(0, u), b = max(0, -l):

        s = a / (a + b),   t = s b,   da: (1 - s) (ds / (a + b) + (1 - s) dt),   db: s (s dt - ds / (a + b))

    Autograd needs about three times as many passes over these tensors.
    """

    @staticmethod
    def forward(ctx: Any, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        above, below = F.relu(upper), lower.neg().clamp_(min=0)
        width = (above + below).clamp_(min=NARROWEST)  # s = 0 where l = u = 0
        slope = above / width
        ctx.save_for_backward(upper, below, slope, width)
        # the offset that is valid at both ends: the two offsets differ by rounding
        return slope, torch.maximum(below * slope, torch.addcmul(above, above, slope, value=-1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_slope: Tensor, by_offset: Tensor) -> tuple[Tensor, Tensor]:
        upper, below, slope, width = ctx.saved_tensors
        rest, rate = below / width, by_slope / width  # the rest is exactly 0 where l >= 0
        by_lower = torch.addcmul(rate, slope, by_offset, value=-1).mul_(slope)
        by_upper = rate.addcmul_(rest, by_offset).mul_(rest)
        where = torch.ops.aten.threshold_backward  # the gradient of a ReLU: faster than a mask
        return where(by_lower, below, 0.0), where(by_upper, upper, 0.0)


@dataclass(frozen=True)
class LeakyReLU(PiecewiseLinear):
    """z for z >= 0, and negative_slope z for z < 0."""

    kinks: ClassVar[tuple[float, ...]] = (0.0,)
    negative_slope: float

    @property
    def pieces(self) -> tuple[float, ...]:
        return self.negative_slope, 1.0

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.leaky_relu(x, self.negative_slope)


@dataclass(frozen=True)
class Abs(PiecewiseLinear):
    """|z|."""

    convex: ClassVar[bool] = True
    kinks: ClassVar[tuple[float, ...]] = (0.0,)
    pieces: ClassVar[tuple[float, ...]] = (-1.0, 1.0)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.abs()


@dataclass(frozen=True)
class Clamp(PiecewiseLinear):
    """min(max(z, low), high); an infinite end has no effect."""

    low: float
    high: float

    @property
    def kinks(self) -> tuple[float, ...]:
        return tuple(end for end in (self.low, self.high) if math.isfinite(end))

    @property
    def pieces(self) -> tuple[float, ...]:
        return (0.0,) * math.isfinite(self.low) + (1.0,) + (0.0,) * math.isfinite(self.high)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class ClampEach(Kinked):
    """min(max(z, low), high) with ends for each entry, which may be infinite."""

    low: Tensor  # broadcasts to the input's shape
    high: Tensor

    @property
    def kinks(self) -> tuple[Tensor, ...]:
        return self.low, torch.maximum(self.low, self.high)

    @property
    def pieces(self) -> tuple[float, ...]:
        return 0.0, 1.0, 0.0

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.minimum(torch.maximum(x, self.low), self.high)


@dataclass(frozen=True, eq=False)
class PReLU(Kinked):
    """z for z >= 0, and weight z for z < 0, with a weight for each entry."""

    kinks: ClassVar[tuple[float, ...]] = (0.0,)
    weight: Tensor  # broadcasts to the input's shape, e.g. [C, 1, 1]

    @property
    def pieces(self) -> tuple[float | Tensor, ...]:
        return self.weight, 1.0

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.where(x >= 0, x, self.weight * x)


@dataclass(frozen=True)
class Softshrink(PiecewiseLinear):
    """z - width for z > width, z + width for z < -width, and 0 between them."""

    width: float

    @property
    def kinks(self) -> tuple[float, ...]:
        return -self.width, self.width

    @property
    def pieces(self) -> tuple[float, ...]:
        return 1.0, 0.0, 1.0

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.softshrink(x, self.width)


@dataclass(frozen=True)
class Known(Elementwise):
    """z itself, where it is known that z lies in [low, high], e.g. that no entry of a normalised vector is large.

    If [l, u] is wider than that, constants around z may be better than z, whose own bounds are loose then; so slopes
    from 0 to 1 are allowed.
    """

    low: float
    high: float

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return lower.clamp(self.low, self.high), upper.clamp(self.low, self.high)

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.exact(lower, upper).to(lower.dtype), torch.ones_like(lower)

    def exact(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (lower >= self.low) & (upper <= self.high)

    def extremes(self, lower: Tensor, upper: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        first, last = ((1 - slope) * end for end in self.image(lower, upper))
        return torch.minimum(first, last), torch.maximum(first, last)

    def error(self, lower: Tensor, upper: Tensor) -> Tensor | float:
        return 0.0

    def chord(self, lower: Tensor, upper: Tensor) -> Tensor:
        return self.tightest(lower, upper)[0]

    def tightest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        slope = (self.exact(lower, upper) | (upper - lower <= self.high - self.low)).to(lower.dtype)
        return slope, slope


class Absolute(nn.Module):
    """|x| as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


@lower.register
def _(module: nn.ReLU, shape: Shape) -> Op:
    return ReLU()


@lower.register
def _(module: nn.LeakyReLU, shape: Shape) -> Op:
    return LeakyReLU(float(module.negative_slope))


@lower.register
def _(module: Absolute, shape: Shape) -> Op:
    return Abs()


@lower.register  # nn.ReLU6 is one of these
def _(module: nn.Hardtanh, shape: Shape) -> Op:
    low, high = float(module.min_val), float(module.max_val)
    if not low < high:
        raise UnsupportedLayerError(f"values cannot be clamped to [{low:g}, {high:g}]: give low < high")
    return Clamp(low, high)


@lower.register
def _(module: nn.PReLU, shape: Shape) -> Op:
    if module.num_parameters not in (1, shape[0]):
        raise ValueError(f"the layer has {module.num_parameters} slopes, its input has shape {shape}")
    return PReLU(module.weight.view(-1, *[1] * (len(shape) - 1)))


@lower.register
def _(module: nn.Softshrink, shape: Shape) -> Op:
    return Softshrink(float(module.lambd))

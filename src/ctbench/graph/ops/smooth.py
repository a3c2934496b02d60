"""Smooth activations: sigmoid, tanh, GELU, SiLU.

f(z) - s z is extremal at an end of [l, u] or where f'(z) = s. f' is monotone between the inflections of f, so there is
at most one such point on each branch. It is computed by bisection, or in closed form. Near such a point f(z) - s z is
flat, so an error of the point affects the value only quadratically.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph.ops.base import EPSILON, Elementwise, Op, Shape, lower

BISECTIONS = {torch.float32: 30, torch.float64: 60}
ENVELOPE_STEPS = 20
FAR = 64.0  # beyond this, each of these functions is a line up to rounding


class Smooth(Elementwise):
    """A function with a continuous derivative that is monotone between the inflections."""

    inflections: ClassVar[tuple[float, ...]]
    tails: ClassVar[float] = math.inf  # f is a line beyond -tails and tails, up to rounding: no search there

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor:
        """f'(x)."""

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        first, last = self.derivative(lower), self.derivative(upper)
        least, greatest = torch.minimum(first, last), torch.maximum(first, last)
        for inflection in self.inflections:
            steepness = self.derivative(_within(lower, upper, inflection))
            least, greatest = torch.minimum(least, steepness), torch.maximum(greatest, steepness)
        return least, greatest

    def error(self, lower: Tensor, upper: Tensor) -> Tensor | float:
        # libm is right to a few units in the last place of numbers up to 1 + |z|. The stationary point is computed from
        # the rounded f'. Its error is at most the tails, and over this distance f' is also off by a few such units
        reach = torch.maximum(lower.abs(), upper.abs())
        return 64 * EPSILON * (1 + reach.clamp(max=min(self.tails, FAR)))

    def extremes(self, lower: Tensor, upper: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        lowest, highest = self.touching(lower, upper, slope)
        nothing = 0 * (upper - lower)  # NaN for infinite bounds, which certifies nothing
        return self(lowest) - slope * lowest + nothing, self(highest) - slope * highest + nothing

    def touching(self, lower: Tensor, upper: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """The points of [l, u] at which f(z) - slope z is smallest and largest."""
        ends = lower + 0 * slope, upper + 0 * slope
        lowest, highest = ends[0], ends[0]
        least = greatest = self(ends[0]) - slope * ends[0]
        # the ends come first: a branch without a stationary point also returns an end, but without its gradient
        for point in (ends[1], *self.stationary(lower.detach(), upper.detach(), slope.detach())):
            value = self(point) - slope * point
            lowest, least = torch.where(value < least, point, lowest), torch.minimum(value, least)
            highest, greatest = torch.where(value > greatest, point, highest), torch.maximum(value, greatest)
        return lowest, highest

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        """A point of [l, u] on each branch of f': the one with f' = slope, if there is one."""
        ends = [_within(lower, upper, place) for place in (-self.tails, *self.inflections, self.tails)]
        return [self._bisect(begin, end, slope) for begin, end in pairwise(ends)]

    def _bisect(self, begin: Tensor, end: Tensor, slope: Tensor) -> Tensor:
        first, last = begin + 0 * slope, end + 0 * slope
        begin, end, rising = first, last, self.derivative(last) > self.derivative(first)
        for _ in range(BISECTIONS[begin.dtype]):
            middle = (begin + end) / 2
            below = (self.derivative(middle) > slope) == rising  # whether the point lies below the middle
            begin, end = torch.where(below, begin, middle), torch.where(below, middle, end)
        # an end that never moved is the point itself
        return torch.where(end == last, last, torch.where(begin == first, first, (begin + end) / 2))

    def tightest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        # the area is smallest for the best line at the middle: it touches f there, or on both sides of it. As the slope
        # grows, the point of contact moves to the right for a line below f, and to the left for a line above f
        lower, upper = lower.detach(), upper.detach()
        middle, (least, greatest) = (lower + upper) / 2, self.slopes(lower, upper)
        low, high = (least, greatest), (least, greatest)
        for _ in range(ENVELOPE_STEPS):
            slope = (low[0] + low[1]) / 2
            right = self.touching(lower, upper, slope)[0] > middle
            low = torch.where(right, low[0], slope), torch.where(right, slope, low[1])
            slope = (high[0] + high[1]) / 2
            right = self.touching(lower, upper, slope)[1] > middle
            high = torch.where(right, slope, high[0]), torch.where(right, high[1], slope)
        return (low[0] + low[1]) / 2, (high[0] + high[1]) / 2


def _within(lower: Tensor, upper: Tensor, point: float) -> Tensor:
    """The point, or the nearest end of [l, u] if it lies outside."""
    return torch.minimum(upper, lower.clamp(min=point))


class Monotone(Smooth):
    """A smooth increasing function."""

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self(lower), self(upper)


@dataclass(frozen=True)
class Sigmoid(Monotone):
    """1 / (1 + exp(-z))."""

    inflections: ClassVar[tuple[float, ...]] = (0.0,)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.sigmoid(x)

    def derivative(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * torch.sigmoid(-x)

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        # sigma (1 - sigma) = s at sigma = 1/2 -+ sqrt(1/4 - s), and z = -+ log((1 - sigma) / sigma)
        root = (0.25 - slope).clamp(min=0).sqrt()
        smaller = (slope / (0.5 + root)).clamp(
            min=torch.finfo(slope.dtype).tiny
        )  # for slopes below those at the tails, any point
        point = torch.log((0.5 + root) / smaller)
        return [torch.clamp(place, lower, upper) for place in (-point, point)]


@dataclass(frozen=True)
class Tanh(Monotone):
    """tanh(z)."""

    inflections: ClassVar[tuple[float, ...]] = (0.0,)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(x)

    def derivative(self, x: Tensor) -> Tensor:
        return 4 * torch.sigmoid(2 * x) * torch.sigmoid(-2 * x)

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        # tanh(z) = 2 sigma(2 z) - 1, with 4 times the steepness
        halves = Sigmoid().stationary(2 * lower, 2 * upper, slope / 4)
        return [place / 2 for place in halves]


@dataclass(frozen=True)
class GELU(Smooth):
    """z Phi(z) with the normal distribution function Phi."""

    inflections: ClassVar[tuple[float, ...]] = (-math.sqrt(2), math.sqrt(2))
    tails: ClassVar[float] = 40.0

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.gelu(x)

    def derivative(self, x: Tensor) -> Tensor:
        return (1 + torch.erf(x / math.sqrt(2))) / 2 + x * torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


# where the second derivative of z sigmoid(z) is 0: the root of z tanh(z / 2) = 2
_SILU_INFLECTION = 2.3993572805154675


@dataclass(frozen=True)
class SiLU(Smooth):
    """z sigmoid(z)."""

    inflections: ClassVar[tuple[float, ...]] = (-_SILU_INFLECTION, _SILU_INFLECTION)
    tails: ClassVar[float] = 40.0

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.silu(x)

    def derivative(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * (1 + x * torch.sigmoid(-x))


@lower.register
def _(module: nn.Sigmoid, shape: Shape) -> Op:
    return Sigmoid()


@lower.register
def _(module: nn.Tanh, shape: Shape) -> Op:
    return Tanh()


@lower.register
def _(module: nn.SiLU, shape: Shape) -> Op:
    return SiLU()

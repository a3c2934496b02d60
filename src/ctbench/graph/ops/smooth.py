"""Smooth activations: sigmoid, tanh, GELU, SiLU.

f(z) - s z is extremal at an end of [l, u] or where f'(z) = s. f' is monotone between the inflections of f, so there is
at most one such point on each branch. It is computed in closed form, or by steps of Newton inside a bracket. Near such
a point f(z) - s z is flat, so an error of the point affects the value only quadratically.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph.ops.base import EPSILON, Elementwise, Lines, Op, Shape, lower

NEWTON_STEPS = 15  # twice as many as nearly every point needs; bisections follow
BISECTIONS = {torch.float32: 30, torch.float64: 60}
ENVELOPE_STEPS = 20  # three times as many as nearly every line needs
NEARLY = 2.0**-24  # how far a line may be from the best one at the middle, as a share of the width and of the slopes
FAR = 64.0  # beyond this, each of these functions is a line up to rounding


class Smooth(Elementwise):
    """A function with a continuous derivative that is monotone between the inflections."""

    inflections: ClassVar[tuple[float, ...]]
    tails: ClassVar[float] = math.inf  # f is a line beyond -tails and tails, up to rounding: no search there

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor:
        """f'(x)."""

    def curvature(self, x: Tensor) -> Tensor:
        """f''(x), to a few digits: on it depends only how fast stationary points are found."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            steepness = self.derivative(x)
        return torch.autograd.grad(steepness.sum(), x)[0] if steepness.requires_grad else torch.zeros_like(x)

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
        valid = self.valid(lower, upper)
        return self(lowest) - slope * lowest + valid, self(highest) - slope * highest + valid

    def lines(self, lower: Tensor, upper: Tensor, low: Tensor, high: Tensor) -> Lines:
        both = torch.stack(torch.broadcast_tensors(low, high))
        (lowest, highest), valid = self.touching(lower, upper, both), self.valid(lower, upper)
        lowest, highest = lowest[0], highest[1]
        return Lines(low, self(lowest) - low * lowest + valid, high, self(highest) - high * highest + valid)

    def valid(self, lower: Tensor, upper: Tensor) -> Tensor:
        """0, or NaN for infinite bounds, which certifies nothing."""
        return 0 * (upper - lower)

    def touching(self, lower: Tensor, upper: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """The points of [l, u] at which f(z) - slope z is smallest and largest."""
        ends, level = (lower + 0 * slope, upper + 0 * slope), slope.detach()
        lowest, highest = ends[0], ends[0]
        least = greatest = self(ends[0].detach()) - level * ends[0].detach()
        # the ends come first: a branch without a stationary point also returns an end, but without its gradient
        for point in (ends[1], *self.stationary(lower.detach(), upper.detach(), level)):
            value = self(point.detach()) - level * point.detach()
            lowest, least = torch.where(value < least, point, lowest), torch.minimum(value, least)
            highest, greatest = torch.where(value > greatest, point, highest), torch.maximum(value, greatest)
        return lowest, highest

    def stationary(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Sequence[Tensor]:
        """A point of [l, u] on each branch of f': the one with f' = slope, if there is one."""
        ends = torch.stack([_within(lower, upper, place) for place in (-self.tails, *self.inflections, self.tails)])
        ends = ends.view(len(ends), *[1] * (slope.dim() - lower.dim()), *lower.shape)  # [branches + 1, ..., *lower]
        excess = self.derivative(ends) - slope
        there = (excess[:-1] < 0) != (excess[1:] < 0)
        brackets = (part.masked_select(there) for part in (ends[:-1], ends[1:], excess[:-1], excess[1:], slope))
        return (ends[:-1] + 0 * slope).masked_scatter(there, self._root(*brackets)).unbind()

    def _root(self, begin: Tensor, end: Tensor, first: Tensor, last: Tensor, slope: Tensor) -> Tensor:
        """The points of [begin, end] with f' = slope, all [N]; f' - slope is `first` and `last` at the ends.

        It takes steps of Newton inside the bracket, which become bisections. A point counts as found where f' is
        `slope` up to rounding: from there to the true point, f(z) - slope z changes by less than `error`.
        """
        rising, rounding = first < 0, 8 * _unit(slope) * (1 + slope.abs())
        point = begin + (end - begin) * (first / (first - last))
        point = torch.where(point.isfinite(), point, (begin + end) / 2)
        for step in range(NEWTON_STEPS + BISECTIONS[slope.dtype]):
            excess = self.derivative(point) - slope
            is_open = ~(excess.abs() <= rounding)  # also where it is NaN
            if not bool(is_open.any()):
                break
            beyond = (excess > 0) == rising
            begin, end = torch.where(beyond, begin, point), torch.where(beyond, point, end)
            closer = (begin + end) / 2
            if step < NEWTON_STEPS:
                newton = point - excess / self.curvature(point)
                closer = torch.where((newton > begin) & (newton < end), newton, closer)
            point = torch.where(is_open, closer, point)
        return point

    def tightest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        # the area is smallest for the line that is best at the middle: it touches f there, or on both sides of it. So
        # over both halves of [l, u], the least distance from the line below to f is 0. The slope for which both are
        # equal is a root, and a step of Newton towards it takes the slope of the line through both points of contact
        lower, upper = lower.detach(), upper.detach()
        middle, (least, greatest) = (lower + upper) / 2, self.slopes(lower, upper)
        halves, width, rounding = (
            (torch.stack([lower, middle]), torch.stack([middle, upper])),
            upper - lower,
            self.error,
        )
        enough = NEARLY * (greatest - least) * width + rounding(lower, upper) / 32 * _unit(lower) / EPSILON
        slope = torch.clamp(self.derivative(middle), least, greatest).expand(2, *middle.shape)  # below, and above
        for _ in range(ENVELOPE_STEPS):
            below, above = self.touching(*halves, slope.unsqueeze(1))
            left, right = torch.stack([below[0], above[1]]).unbind(1)
            gain, run = self(right) - self(left) - slope * (right - left), right - left
            is_open = gain.abs() > enough
            if not bool(is_open.any()):
                break
            least, greatest = torch.where(gain > 0, slope, least), torch.where(gain > 0, greatest, slope)
            step = slope + gain / run
            inside = (step > least) & (step < greatest)
            slope = torch.where(is_open, torch.where(inside, step, (least + greatest) / 2), slope)
        return slope[0], slope[1]


def _unit(like: Tensor) -> float:
    """The distance from 1 to the next number."""
    return torch.finfo(like.dtype).eps


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

    def curvature(self, x: Tensor) -> Tensor:
        return (2 - x.square()) * torch.exp(x.square() / -2) / math.sqrt(2 * math.pi)


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

    def curvature(self, x: Tensor) -> Tensor:
        share = torch.sigmoid(x)
        return share * (1 - share) * (2 + x * (1 - 2 * share))


@lower.register
def _(module: nn.Sigmoid, shape: Shape) -> Op:
    return Sigmoid()


@lower.register
def _(module: nn.Tanh, shape: Shape) -> Op:
    return Tanh()


@lower.register
def _(module: nn.SiLU, shape: Shape) -> Op:
    return SiLU()

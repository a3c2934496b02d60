"""How does the mean radius of boxes grow through a ReLU? In closed form, for centres of a known distribution.

A box with centre c ~ D and radius d becomes a box of radius 0 where c <= -d, of (c + d)/2 where |c| < d, and of d
where c >= d:

    E(d)   = E[(c + d)/2; |c| < d] + d P(c > d)                                            Eq. (8)
    E'(d)  = P(|c| < d)/2 + P(c > d)                                                       Eq. (5)
    E''(d) = (p(-d) - p(d))/2                                                              Eq. (6)

Müller et al. 2023, "Certified training: small boxes are all you need", section 4 and appendix A. Theorem 4.1: where
p(-z) > p(z) for all z > 0, E is strictly convex, so small boxes grow by less. If p is symmetric, E(d) = d/2.

Figure 4 is Normal(mean=-1, deviation=0.5) for d in [0, 3], next to the tangent at 0, d P(c > 0):

    centres = Normal(mean=-1.0, deviation=0.5)
    mean_radius(centres, 2.0), growth(centres, 2.0), curvature(centres, 2.0), tangent(centres, 2.0)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Centres(ABC):
    """A distribution of the centres of boxes."""

    @abstractmethod
    def density(self, z: float) -> float:
        """p(z)."""

    @abstractmethod
    def below(self, z: float) -> float:
        """P(c < z)."""

    @abstractmethod
    def first_moment(self, low: float, high: float) -> float:
        """E[c; low < c < high]."""

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Random centres, [count] in double precision."""

    def within(self, low: float, high: float) -> float:
        """P(low < c < high)."""
        return self.below(high) - self.below(low)


@dataclass(frozen=True, kw_only=True)
class Normal(Centres):
    """N(mean, deviation^2). Raises ValueError unless the deviation is a positive number."""

    mean: float
    deviation: float

    def __post_init__(self) -> None:
        if not (0 < self.deviation < math.inf and math.isfinite(self.mean)):
            raise ValueError(f"mean is {self.mean} and deviation {self.deviation}: give numbers, the deviation > 0")

    def density(self, z: float) -> float:
        t = (z - self.mean) / self.deviation
        return math.exp(-t * t / 2) / (self.deviation * math.sqrt(2 * math.pi))

    def below(self, z: float) -> float:
        return math.erfc((self.mean - z) / self.deviation / math.sqrt(2)) / 2

    def first_moment(self, low: float, high: float) -> float:
        return self.mean * self.within(low, high) + self.deviation**2 * (self.density(low) - self.density(high))

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return self.mean + self.deviation * torch.randn(count, generator=generator, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class TwoSteps(Centres):
    """The density a on [-l, 0) and b on [0, l] with l = 1 / (a + b), Eq. (11). Raises ValueError unless a, b >= 0."""

    a: float
    b: float

    def __post_init__(self) -> None:
        if not (self.a >= 0 and self.b >= 0 and 0 < self.a + self.b < math.inf):
            raise ValueError(f"a is {self.a} and b {self.b}: give densities >= 0, one of them > 0")

    @property
    def reach(self) -> float:
        """l, the largest centre."""
        return 1 / (self.a + self.b)

    def density(self, z: float) -> float:
        return 0.0 if abs(z) > self.reach else self.a if z < 0 else self.b

    def below(self, z: float) -> float:
        z = min(max(z, -self.reach), self.reach)
        return self.a * (min(z, 0.0) + self.reach) + self.b * max(z, 0.0)

    def first_moment(self, low: float, high: float) -> float:
        low, high = (min(max(z, -self.reach), self.reach) for z in (low, high))
        return (self.a * (min(high, 0) ** 2 - min(low, 0) ** 2) + self.b * (max(high, 0) ** 2 - max(low, 0) ** 2)) / 2

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        shares = torch.rand(2, count, generator=generator, dtype=torch.float64)
        return self.reach * torch.where(shares[0] < self.a * self.reach, -shares[1], shares[1])


def mean_radius(centres: Centres, radius: float) -> float:
    """E(d), Eq. (8): the mean radius after the ReLU. Raises ValueError for a negative radius."""
    _check(radius)
    inside = (centres.first_moment(-radius, radius) + radius * centres.within(-radius, radius)) / 2
    return inside + radius * (1 - centres.below(radius))


def growth(centres: Centres, radius: float) -> float:
    """E'(d), Eq. (5)."""
    _check(radius)
    return centres.within(-radius, radius) / 2 + 1 - centres.below(radius)


def curvature(centres: Centres, radius: float) -> float:
    """E''(d), Eq. (6)."""
    _check(radius)
    return (centres.density(-radius) - centres.density(radius)) / 2


def tangent(centres: Centres, radius: float) -> float:
    """The line d P(c > 0), which touches E at 0."""
    _check(radius)
    return radius * (1 - centres.below(0.0))


def two_steps_mean_radius(a: float, b: float, radius: float) -> float:
    """d^2 (a - b)/4 + d b/(a + b), Eq. (14): E(d) of `TwoSteps` for a radius up to 1 / (a + b)."""
    return radius**2 * (a - b) / 4 + radius * b / (a + b)


def sampled_mean_radius(centres: Tensor, radius: float) -> float:
    """The mean radius after the ReLU of boxes around these centres, [N]."""
    return float((torch.relu(centres + radius) - torch.relu(centres - radius)).mean() / 2)


def _check(radius: float) -> None:
    if not 0 <= radius < math.inf:
        raise ValueError(f"radius is {radius}: give a number >= 0")

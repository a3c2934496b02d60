"""What the adversary may choose from: a region per sample, and the threat model that makes it.

    Linf(eps, clip=(0, 1)).region(x) = {x' : |x' - x| <= eps, 0 <= x' <= 1}

Attacks and bounds see a region only through five questions, so neither of them knows the norm. The one that
bounds need is the support function, the minimum of a linear form over the region:

    region.minimum(a) = min over x' in the region of <a, x'>

Radii are in the space of the pixels, [0, 1]; normalisation is the first layer of a network.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor


class Region(ABC):
    """A set of inputs for each of B samples."""

    @property
    @abstractmethod
    def hull(self) -> Box:
        """The smallest box around the region."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """The points of the region nearest to x, [..., B, *shape]."""

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` random points for each sample, [count, B, *shape]."""

    @abstractmethod
    def start(self, x: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` random points near each x for a search to start from, [count, B, *shape]."""

    @abstractmethod
    def ascend(self, x: Tensor, gradient: Tensor, step: float) -> Tensor:
        """One step of steepest ascent from x, as long as `step` times the radius, kept in the region."""

    @abstractmethod
    def minimum(self, a: Tensor) -> Tensor:
        """The least value of <a, x'> over the region, for S linear forms a sample: [B, S, *shape] to [B, S]."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Region:
        """The same region in another precision."""


class Box(Region):
    """All x' with lower <= x' <= upper, coordinate by coordinate.

    Made of its corners, or with `around` of its centre and radius; the other pair is computed when it is asked for. All
    four are [B, *shape].
    """

    def __init__(self, lower: Tensor, upper: Tensor) -> None:
        vars(self).update(lower=lower, upper=upper)

    @classmethod
    def around(cls, center: Tensor, radius: Tensor) -> Box:
        """All x' with |x' - center| <= radius."""
        box = cls.__new__(cls)
        vars(box).update(center=center, radius=radius)
        return box

    @cached_property
    def lower(self) -> Tensor:
        return self.center - self.radius

    @cached_property
    def upper(self) -> Tensor:
        return self.center + self.radius

    @cached_property
    def center(self) -> Tensor:
        return (self.lower + self.upper) / 2

    @cached_property
    def radius(self) -> Tensor:
        return (self.upper - self.lower) / 2

    @property
    def hull(self) -> Box:
        return self

    def project(self, x: Tensor) -> Tensor:
        return torch.clamp(x, self.lower, self.upper)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return self.project(self.lower + self._shares(count, generator) * (self.upper - self.lower))

    def start(self, x: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        # around x, not around the centre: at the edge of the data range half of the coordinates stay at the edge
        return self.project(x + (self._shares(count, generator) - 0.5) * (self.upper - self.lower))

    def _shares(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Uniform in [0, 1], [count, B, *shape]."""
        shape = (count, *self.lower.shape)
        return torch.rand(shape, generator=generator, dtype=self.lower.dtype, device=self.lower.device)

    def ascend(self, x: Tensor, gradient: Tensor, step: float) -> Tensor:
        return self.project(x + step * self.radius * gradient.sign())

    def minimum(self, a: Tensor) -> Tensor:
        a = a.flatten(2)
        center, radius = self.center.flatten(1), self.radius.flatten(1)
        return (a @ center.unsqueeze(-1) - a.abs() @ radius.unsqueeze(-1)).squeeze(-1)

    def intersect(self, other: Box) -> Box:
        return Box(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))

    def to(self, dtype: torch.dtype) -> Box:
        return Box(self.lower.to(dtype), self.upper.to(dtype))


@dataclass(frozen=True, kw_only=True)
class Threat(ABC):
    """A threat model: makes a region around each input.

    eps is the radius, in [0, 1] pixel space; x must lie in the range `clip` that inputs can have (None: no range).
    """

    name: ClassVar[str]
    eps: float
    clip: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not math.isfinite(self.eps) or self.eps < 0:
            raise ValueError(f"eps is {self.eps}: a radius must be a number >= 0")
        if self.clip is None:
            return
        low, high = self.clip
        if not low < high:
            raise ValueError(f"clip is {self.clip}: the range of the data must be (low, high) with low < high")
        if self.eps > high - low:
            raise ValueError(
                f"eps is {self.eps}, wider than the data range [{low:g}, {high:g}]: eps is in pixel space, "
                f"so 8/255 is {8 / 255:.4f}, not 8"
            )

    def check(self, x: Tensor) -> None:
        """Raise ValueError where x cannot be the centre of a region: not finite, or outside the data range."""
        if not isinstance(x, Tensor):
            raise ValueError(f"the inputs are a {type(x).__name__}: give a torch tensor")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("the inputs hold NaN or infinite values")
        if self.clip is not None and x.numel():
            low, high = x.min().item(), x.max().item()
            if low < self.clip[0] or high > self.clip[1]:
                raise ValueError(
                    f"the inputs lie in [{low:g}, {high:g}] but the data range is [{self.clip[0]:g}, "
                    f"{self.clip[1]:g}]: give raw pixels (normalisation is the network's first layer) or another clip"
                )

    @abstractmethod
    def region(self, x: Tensor) -> Region:
        """The region around each of the inputs x, [B, *shape]."""


@dataclass(frozen=True, kw_only=True)
class Linf(Threat):
    """Every coordinate may move by eps, and stays in the data range."""

    name: ClassVar[str] = "linf"

    def region(self, x: Tensor) -> Box:
        lower, upper = x - self.eps, x + self.eps
        if self.clip is not None:
            lower, upper = lower.clamp(*self.clip), upper.clamp(*self.clip)
        return Box(lower, upper)

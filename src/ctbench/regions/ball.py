"""Norm balls intersected with the data range: the common part of the l2 and the l1 ball.

Both norms depend only on the size of each coordinate's move, and the center lies in the data range. So the sign of each
move is known (that of x - center, or of -a). It remains to find the sizes m, which are at most `room`, the distance to
the end of the data range in that direction:

    project(x)    minimise ||m - |x - center|||_2     where 0 <= m <= room, ||m|| <= radius
    minimum(a)    <a, center> - max of <|a|, m>       where 0 <= m <= room, ||m|| <= radius
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from ctbench.regions.base import Region, displaced
from ctbench.regions.box import Box, linf_box


@dataclass(frozen=True, eq=False)
class Ball(Region):
    """All x' with ||x' - center|| <= radius and low <= x' <= high, where (low, high) is `clip`; None: no range.

    The center lies in that range. Projections are exact, and every returned point lies in both sets: sizes are shrunk
    by a few units in the last place, and sums with the center are rounded toward it.
    """

    center: Tensor  # [B, *shape]
    radius: float
    clip: tuple[float, float] | None = None

    @cached_property
    def hull(self) -> Box:
        return linf_box(self.center, self.radius, self.clip)

    def project(self, x: Tensor) -> Tensor:
        center, point = self.center.flatten(1), self._flat(x)
        offset = point - center
        size = self._nearest(offset.abs(), self._room(offset, center))
        most = self.radius * (1 - 4 * torch.finfo(size.dtype).eps)
        size = size * (most / self._length(size).clamp(min=tiny(size))).clamp(max=1)
        # a point of the ball is returned unchanged: center + (x - center) may differ from x
        point = torch.where(self._length(offset) <= self.radius, point, displaced(center, offset.sign() * size))
        return (point if self.clip is None else point.clamp(*self.clip)).view(x.shape)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniform in the ball; points outside the data range are moved to its edge."""
        return self.start(self.center, count, generator)

    def start(self, x: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        flat = self.center.flatten(1)
        offsets = self._uniform(flat.new_empty(count, *flat.shape), generator)
        return self.project(x + self.radius * offsets.view(count, *self.center.shape))

    def ascend(self, x: Tensor, gradient: Tensor, step: float | Tensor) -> Tensor:
        steepest = self._steepest(self._flat(x), self._flat(gradient))
        return self.project(x + step * self.radius * steepest.view_as(x))

    def take(self, samples: Tensor) -> Self:
        return replace(self, center=self.center[samples])

    def to(self, dtype: torch.dtype) -> Self:
        return replace(self, center=self.center.to(dtype))

    @abstractmethod
    def _length(self, offset: Tensor) -> Tensor:
        """The norm, [..., n] to [..., 1]."""

    @abstractmethod
    def _nearest(self, size: Tensor, room: Tensor) -> Tensor:
        """The nearest sizes in [0, room] that fit into the ball, all [..., n]."""

    @abstractmethod
    def _uniform(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Points uniform in the unit ball, [count, B, n] as `like`."""

    @abstractmethod
    def _steepest(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The move of length 1 that raises the linear form `gradient` most, [..., B, n]; 0 where the gradient is 0."""

    def _room(self, direction: Tensor, center: Tensor) -> Tensor:
        """How far each coordinate can move in the sign of `direction` before the data range ends, [..., n]."""
        if self.clip is None:
            return torch.full_like(direction, math.inf)
        low, high = self.clip
        return torch.where(direction > 0, high - center, center - low).clamp(min=0)

    def _flat(self, x: Tensor) -> Tensor:
        """[..., B, *shape] to [..., B, n]."""
        return x.flatten(x.dim() - self.center.dim() + 1)


def tiny(like: Tensor) -> float:
    """The smallest normal number of a precision: the divisor instead of 0."""
    least: float = torch.finfo(like.dtype).tiny
    return least

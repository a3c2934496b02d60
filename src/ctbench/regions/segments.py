"""Segments through the input: perturbations along one of k directions.

"How robust accuracy suffers from certified training with convex relaxations", Eq. (3) and App. A.2:

    B(eps, k) = union over j <= k of {x + beta d_j : |beta| <= eps}
    min over it of <a, x'> = <a, x> - eps max_j |<a, d_j>|

With k random orthonormal directions (`RandomSegments`) the sets are nested, and k sets how well the perturbations align
with the signal. In "Certified defences can hurt generalisation", Eq. (3), the signal is the first coordinate of the
input, and d_1 = e_1 (`FirstCoordinate`). Neither paper intersects the segments with the data range: clip is None.

    RandomSegments(eps=2.5, count=10).region(x)
    Segments(eps=0.5, directions=d)        # d [k, *shape]
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.regions.base import Region, Threat, displaced, inner
from ctbench.regions.box import Box


@dataclass(frozen=True, eq=False)
class SegmentUnion(Region):
    """All center + beta d_j with |beta| <= radius, for k directions d_j that all samples share."""

    center: Tensor  # [B, *shape]
    radius: float
    directions: Tensor  # [k, *shape], no direction is 0

    @cached_property
    def hull(self) -> Box:
        return Box.around(self.center, (self.radius * self.directions.abs().amax(0)).expand_as(self.center))

    def project(self, x: Tensor) -> Tensor:
        inner = self._inner(x - self.center)
        share = self._shares(inner)
        return self._point(self._gain(inner, share).argmax(-1), share)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """On a random segment, uniform along it."""
        return self._point(*self._random(count, generator))

    def start(self, x: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        return self.project(self._point(*self._random(count, generator)) + (x - self.center))

    def ascend(self, x: Tensor, gradient: Tensor, step: float | Tensor) -> Tensor:
        """Along the segment that contains x; from the center, where all segments meet, along the steepest one."""
        inner, slope = self._inner(x - self.center), self._inner(gradient)
        share = self._shares(inner)
        gain = self._gain(inner, share)
        gain = torch.where((gain > 0).any(-1, keepdim=True), gain, slope.abs())
        step = self._flat(step) if isinstance(step, Tensor) else step
        moved = (share + step * self.radius * slope.sign()).clamp(-self.radius, self.radius)
        return self._point(gain.argmax(-1), moved)

    def minimum(self, a: Tensor) -> Tensor:
        return inner(a.flatten(2), self.center.flatten(1)) - self.radius * self._inner(a).abs().amax(-1)

    def take(self, samples: Tensor) -> SegmentUnion:
        return replace(self, center=self.center[samples])

    def to(self, dtype: torch.dtype) -> SegmentUnion:
        return replace(self, center=self.center.to(dtype), directions=self.directions.to(dtype))

    def _inner(self, x: Tensor) -> Tensor:
        """<x, d_j> for every direction, [..., *shape] to [..., k]."""
        return self._flat(x) @ self.directions.flatten(1).T

    def _flat(self, x: Tensor) -> Tensor:
        """[..., B, *shape] to [..., B, n]."""
        return x.flatten(x.dim() - self.center.dim() + 1)

    def _shares(self, inner: Tensor) -> Tensor:
        """The beta of the point nearest to x on each segment, from <x - center, d_j>, [..., k]."""
        return (inner / self.directions.flatten(1).square().sum(1)).clamp(-self.radius, self.radius)

    def _gain(self, inner: Tensor, share: Tensor) -> Tensor:
        """||x - center||^2 - ||x - center - beta d_j||^2: how much nearer to x than the center each is, [..., k]."""
        return share * (2 * inner - share * self.directions.flatten(1).square().sum(1))

    def _random(self, count: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """A random segment for each point, [count, B], and random shares of all segments, [count, B, k]."""
        shares = self.center.new_empty(count, len(self.center), len(self.directions))
        index = torch.empty_like(shares[..., 0], dtype=torch.long).random_(len(self.directions), generator=generator)
        return index, shares.uniform_(-1, 1, generator=generator) * self.radius

    def _point(self, index: Tensor, shares: Tensor) -> Tensor:
        """The points on the chosen segments at their shares: [..., B] and [..., B, k] to [..., B, *shape]."""
        share = shares.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        offset = share.view(*share.shape, *[1] * (self.center.dim() - 1)) * self.directions[index]
        return displaced(self.center, offset)


@dataclass(frozen=True, kw_only=True)
class AlongDirections(Threat):
    """A threat model of segments; they are not limited to the data range, so clip is None."""

    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip is not None:
            raise ValueError(f"clip is {self.clip}: segments are not limited to the data range, give clip=None")

    @abstractmethod
    def _directions(self, like: Tensor) -> Tensor:
        """The directions [k, *shape] for inputs [B, *shape], in the precision and on the device of `like`."""

    def region(self, x: Tensor) -> SegmentUnion:
        return SegmentUnion(x, self.eps, self._directions(x))


@dataclass(frozen=True, kw_only=True, eq=False)
class Segments(AlongDirections):
    """The input may move by eps times one of k directions, [k, *shape], the same for all inputs.

    A recipe cannot hold a tensor: there, use `RandomSegments` or `FirstCoordinate`.
    """

    name: ClassVar[str] = "segments"
    directions: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        flat = self.directions.flatten(1) if self.directions.dim() > 1 else self.directions[:0]
        if not flat.numel():
            raise ValueError(f"directions has the shape {list(self.directions.shape)}: give [k, *shape] with k >= 1")
        if not bool(torch.isfinite(flat).all()):
            raise ValueError("directions holds NaN or infinite values")
        zero = (~flat.any(1)).nonzero().flatten().tolist()
        if zero:
            raise ValueError(f"directions {zero} are 0 everywhere: a segment needs a direction, leave them out")

    def __repr__(self) -> str:
        # a tensor prints few of its numbers, so others would look the same in the settings of records
        content = self.directions.detach().double().cpu().contiguous().numpy().tobytes()
        digest = hashlib.sha256(f"{list(self.directions.shape)}".encode() + content).hexdigest()[:16]
        return f"Segments(eps={self.eps!r}, clip={self.clip!r}, directions={list(self.directions.shape)} {digest})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Segments) and self.eps == other.eps and torch.equal(self.directions, other.directions)

    def __hash__(self) -> int:
        return hash((self.name, self.eps, self.directions.shape))

    def _directions(self, like: Tensor) -> Tensor:
        if self.directions.shape[1:] != like.shape[1:]:
            raise ValueError(
                f"directions has the shape {list(self.directions.shape)} but one input has {list(like.shape[1:])}: "
                f"directions must be [k, *shape of one input]"
            )
        return self.directions.to(like)


@dataclass(frozen=True, kw_only=True)
class RandomSegments(AlongDirections):
    """The input may move by eps along one of `count` random orthonormal directions, which the seed determines.

    The first directions are the same for every count, so the sets of one seed are nested.
    """

    name: ClassVar[str] = "random-segments"
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"count is {self.count}: there must be at least one direction")

    def _directions(self, like: Tensor) -> Tensor:
        shape = like.shape[1:]
        if self.count > shape.numel():
            raise ValueError(f"count is {self.count} but inputs of the shape {list(shape)} have {shape.numel()} axes")
        return _orthonormal(self.count, shape, self.seed, like.dtype, like.device)


@lru_cache(maxsize=8)
def _orthonormal(count: int, shape: torch.Size, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Random orthonormal directions [count, *shape], computed in double precision, then cached on the device."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(shape.numel(), generator=generator, dtype=torch.float64) for _ in range(count)]
    columns: Tensor = torch.linalg.qr(torch.stack(rows, dim=1)).Q
    return columns.T.reshape(count, *shape).to(device, dtype)


@dataclass(frozen=True, kw_only=True)
class FirstCoordinate(AlongDirections):
    """The first coordinate of the flattened input may move by eps."""

    name: ClassVar[str] = "first-coordinate"

    def _directions(self, like: Tensor) -> Tensor:
        direction = like.new_zeros(1, *like.shape[1:])
        direction.view(-1)[0].fill_(1)
        return direction

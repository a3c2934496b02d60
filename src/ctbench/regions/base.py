"""The base classes of regions and threat models."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ctbench.regions.box import Box


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
        """`count` random points near each x, from which a search starts, [count, B, *shape]."""

    @abstractmethod
    def ascend(self, x: Tensor, gradient: Tensor, step: float | Tensor) -> Tensor:
        """One step of steepest ascent from x, of length `step` times the radius, projected onto the region.

        x and the gradient are [..., B, *shape]; the step is a number, or one number per point, [..., B, 1, ...].
        """

    @abstractmethod
    def minimum(self, a: Tensor) -> Tensor:
        """The minimum of <a, x'> over the region, for S linear forms per sample: [B, S, *shape] to [B, S].

        A batch of size 1 holds forms that all samples share.
        """

    @abstractmethod
    def take(self, samples: Tensor) -> Region:
        """The regions of some samples. `samples` holds their positions, or is a mask, [B] bool."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Region:
        """The same region in another precision."""


@dataclass(frozen=True, kw_only=True)
class Threat(ABC):
    """A threat model: makes a region around each input.

    The radius is given first: `Linf(8 / 255)`, or by name, `Linf(eps=8 / 255)`.

    Args:
        eps: the radius, in [0, 1] pixel space.
        clip: the data range, in which inputs must lie; None: no range.
    """

    name: ClassVar[str]
    nested: ClassVar[bool] = False  # whether a smaller eps, all else equal, gives a region inside: see `is_inside`
    eps: float = field(kw_only=False)
    clip: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        number = isinstance(self.eps, Real) and not isinstance(self.eps, bool)
        number = number or (isinstance(self.eps, Tensor) and self.eps.numel() == 1)
        if isinstance(self.eps, Sequence | Tensor | np.ndarray) and not isinstance(self.eps, str) and not number:
            raise ValueError(f"eps of {type(self).__name__} is an array: only Linf takes a radius for each feature")
        if not number or not math.isfinite(self.eps) or self.eps < 0:
            raise ValueError(f"eps is {self.eps!r}: a radius must be a number >= 0")
        if type(self.eps) not in (int, float):  # e.g. a tensor, which could not be written to a file
            object.__setattr__(self, "eps", float(self.eps))
        self._check_clip()

    def _check_clip(self) -> None:
        """Raise ValueError if the data range is not one."""
        if self.clip is None:
            return
        low, high = self.clip
        if not low < high:
            raise ValueError(f"clip is {self.clip}: the range of the data must be (low, high) with low < high")

    def check(self, x: Tensor) -> None:
        """Raise ValueError if x cannot be the centre of a region: it has no values, or wrong ones."""
        if not isinstance(x, Tensor):
            raise ValueError(f"the inputs are a {type(x).__name__}: give a torch tensor")
        if x.is_meta:
            raise ValueError("the inputs are on the device 'meta', where tensors have no values: move them to another")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("the inputs hold NaN or infinite values")
        if self.clip is not None and x.numel():
            low, high = x.min().item(), x.max().item()
            if low < self.clip[0] or high > self.clip[1]:
                raise ValueError(
                    f"the inputs lie in [{low:g}, {high:g}] but the data range is [{self.clip[0]:g}, "
                    f"{self.clip[1]:g}]: give raw pixels (normalisation is the network's first layer) or another clip"
                )

    def is_inside(self, other: Threat) -> bool:
        """Whether each region lies in that of `other` around the same input, in exact arithmetic; False if not known.

        Then what is certified for `other` is certified for this threat model, and a counterexample of this one is one
        of `other`. It is known for two radii, numbers, of one class that says `nested = True` itself. A subclass must
        say it again: its regions may be others, e.g. shells.
        """
        known = type(self) is type(other) and vars(type(self)).get("nested", False)
        if not known or not all(isinstance(threat.eps, Real) for threat in (self, other)):
            return False
        return self.eps <= other.eps and replace(self, eps=other.eps) == other

    @abstractmethod
    def region(self, x: Tensor) -> Region:
        """The region around each of the inputs x, [B, *shape]."""


def inner(a: Tensor, x: Tensor) -> Tensor:
    """<a, x> for S forms per sample, or S forms that all samples share: [B or 1, S, n] and [B, n] to [B, S]."""
    return x @ a[0].T if len(a) == 1 else (a @ x.unsqueeze(-1)).squeeze(-1)


def displaced(center: Tensor, offset: Tensor) -> Tensor:
    """center + offset, rounded toward the center: no coordinate moves further than its offset."""
    point = center + offset
    with torch.no_grad():
        # 0.75 + 1e-9 is 0.75 in single precision, but 0.75 + 4e-8 is 0.75 + 6e-8
        beyond = (point - center).abs() > offset.abs()
        back = torch.where(beyond, torch.nextafter(point, center) - point, 0)
    return point + back

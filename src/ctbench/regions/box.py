"""Boxes, and the threat model of the l-infinity norm that makes them.

    Linf(eps, clip=(0, 1)).region(x) = {x' : |x' - x| <= eps, 0 <= x' <= 1}
    min over the box of <a, x'>      = <a, center> - <|a|, radius>

eps may be an array, with a separate radius for each feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctbench.regions.base import Region, Threat, inner

Radii = float | Tensor | NDArray[np.float64] | Sequence[Any]  # a radius, or one for each feature


class Box(Region):
    """All x' with lower <= x' <= upper, coordinate by coordinate.

    Constructed from its corners, or by `around` from its centre and radius; the other pair is computed on first use.
    All four are [B, *shape]. `checked` also validates the corners.
    """

    def __init__(self, lower: Tensor, upper: Tensor) -> None:
        vars(self).update(lower=lower, upper=upper)

    @classmethod
    def around(cls, center: Tensor, radius: Tensor) -> Box:
        """All x' with |x' - center| <= radius."""
        box = cls.__new__(cls)
        vars(box).update(center=center, radius=radius)
        return box

    @classmethod
    def checked(cls, lower: Tensor, upper: Tensor) -> Box:
        """The box with these corners, [B, *shape] in pixel space.

        Raises:
            ValueError: the corners are not floating point tensors of one type, their shapes differ, they hold NaN or
                infinite values, or lower is above upper somewhere.
        """
        for name, corner in (("lower", lower), ("upper", upper)):
            if not isinstance(corner, Tensor) or not corner.is_floating_point():
                kind = corner.dtype if isinstance(corner, Tensor) else type(corner).__name__
                raise ValueError(f"{name} is of type {kind}: a corner must be a tensor of floating point numbers")
        if lower.dtype != upper.dtype:
            raise ValueError(f"lower is of type {lower.dtype} but upper of {upper.dtype}: give both in one precision")
        if lower.shape != upper.shape:
            raise ValueError(
                f"lower has the shape {list(lower.shape)} but upper {list(upper.shape)}: both must be [B, *shape]"
            )
        for name, corner in (("lower", lower), ("upper", upper)):
            if not bool(torch.isfinite(corner).all()):
                raise ValueError(f"{name} holds NaN or infinite values: the corners of a box must be finite")
        crossed = (lower > upper).nonzero()
        if len(crossed):
            index = tuple(crossed[0].tolist())
            raise ValueError(
                f"lower is {lower[index].item():g} but upper is {upper[index].item():g} at {list(index)}, and so in "
                f"{len(crossed)} of {lower.numel()} places: a box needs lower <= upper"
            )
        return cls(lower, upper)

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
        # around x, not around the centre: if x is at the edge of the data range, half of the coordinates stay there
        return self.project(x + (self._shares(count, generator) - 0.5) * (self.upper - self.lower))

    def _shares(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Uniform in [0, 1], [count, B, *shape]."""
        shape = (count, *self.lower.shape)
        return torch.rand(shape, generator=generator, dtype=self.lower.dtype, device=self.lower.device)

    def ascend(self, x: Tensor, gradient: Tensor, step: float | Tensor) -> Tensor:
        return self.project(torch.addcmul(x, gradient.sign(), step * self.radius))

    def minimum(self, a: Tensor) -> Tensor:
        a = a.flatten(2)
        center, radius = self.center.flatten(1), self.radius.flatten(1)
        return inner(a, center) - inner(a.abs(), radius)

    def intersect(self, other: Box) -> Box:
        return Box(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))

    def take(self, samples: Tensor) -> Box:
        return Box(self.lower[samples], self.upper[samples])

    def to(self, dtype: torch.dtype) -> Box:
        return Box(self.lower.to(dtype), self.upper.to(dtype))


@dataclass(frozen=True, kw_only=True)
class Linf(Threat):
    """Every coordinate may move by eps, and stays in the data range.

    eps is a number, or an array that broadcasts to one input, e.g. [C, 1, 1] for a separate radius per channel. An
    array is kept as nested tuples, so that a threat model can be compared, hashed and written to a file. A recipe
    takes a number.
    """

    name: ClassVar[str] = "linf"
    nested: ClassVar[bool] = True

    if TYPE_CHECKING:  # the field is a number for everyone who trains: only this threat model also takes an array

        def __init__(self, eps: Radii, *, clip: tuple[float, float] | None = (0.0, 1.0)) -> None: ...

    def __post_init__(self) -> None:
        if isinstance(self.eps, list | tuple | np.ndarray) or (isinstance(self.eps, Tensor) and self.eps.dim()):
            radii = _array(self.eps)
            object.__setattr__(self, "eps", _nested(radii.tolist()))
            self._check_clip()
            _check_radii(torch.from_numpy(radii), self.clip)
        else:
            super().__post_init__()
            _check_width(self.eps, self.clip)

    def check(self, x: Tensor) -> None:
        super().check(x)
        _check_broadcast(np.shape(self.eps), x)

    def region(self, x: Tensor) -> Box:
        eps = torch.tensor(self.eps, dtype=x.dtype, device=x.device) if isinstance(self.eps, tuple) else self.eps
        return linf_box(x, eps, self.clip)


def _array(eps: Any) -> NDArray[np.float64]:
    """The radii of an array, a tensor or nested lists of numbers."""
    try:
        return np.array(eps.detach().cpu().numpy() if isinstance(eps, Tensor) else eps, dtype=np.float64)
    except (TypeError, ValueError):  # not numbers, or rows of different lengths
        raise ValueError(f"eps is {eps!r}: a radius must be a number >= 0, or an array of such numbers") from None


def _nested(radii: Any) -> Any:
    """Nested lists as nested tuples."""
    return tuple(map(_nested, radii)) if isinstance(radii, list) else radii


def linf_box(x: Tensor, eps: float | Tensor, clip: tuple[float, float] | None = (0.0, 1.0)) -> Box:
    """The box of all x' with |x' - x| <= eps that lie in the data range.

    In double precision the corners are rounded inward, so that every point of the box lies in the exact box. Bounds
    that serve as proofs are widened by more than this rounding.

    Args:
        x: the inputs, [B, *shape], in the data range.
        eps: the radius in pixel space: a number, or a tensor that broadcasts to *shape, e.g. [C, 1, 1] for a separate
            radius per channel.
        clip: the data range (low, high), or None.

    Raises:
        ValueError: a tensor eps does not broadcast to one input, or holds a negative value, NaN, or a value larger
            than the width of the data range.
    """
    if isinstance(eps, Tensor):
        eps = _checked_radii(eps, x, clip)
    lower, upper = x - eps, x + eps
    if x.dtype == torch.float64:
        lower, upper = _inward(x, -eps, lower), _inward(x, eps, upper)
    if clip is not None:
        lower, upper = lower.clamp(*clip), upper.clamp(*clip)
    return Box(lower, upper)


def _inward(x: Tensor, move: float | Tensor, end: Tensor) -> Tensor:
    """The sum x + move, rounded toward x."""
    with torch.no_grad():
        # the exact error of a rounded sum (Knuth 1969, "Seminumerical algorithms", section 4.2.2, theorem B)
        back = end - x
        error = (x - (end - back)) + (move - back)
        beyond = error.sign() * (end - x).sign() < 0
        toward = torch.where(beyond, torch.nextafter(end, x) - end, 0.0)
    return end + toward


def _checked_radii(eps: Tensor, x: Tensor, clip: tuple[float, float] | None) -> Tensor:
    _check_broadcast(tuple(eps.shape), x)
    _check_radii(eps, clip)
    return eps.to(x)


def _check_broadcast(radii: tuple[int, ...], x: Tensor) -> None:
    """Raise ValueError unless radii of this shape broadcast to one of the inputs x, [B, *shape]."""
    shape = x.shape[1:]
    pairs = zip(reversed(radii), reversed(shape), strict=False)
    if len(radii) > len(shape) or any(mine not in (1, whole) for mine, whole in pairs):
        raise ValueError(
            f"eps has the shape {list(radii)} but one input has {list(shape)}: eps must broadcast to one input, "
            f"e.g. [C, 1, 1] to [C, H, W]; it has no batch dimension"
        )


def _check_radii(eps: Tensor, clip: tuple[float, float] | None) -> None:
    """Raise ValueError if one of several radii is not a radius, or is larger than the width of the data range."""
    if not bool((torch.isfinite(eps) & (eps >= 0)).all()):
        raise ValueError("eps holds NaN, infinite or negative values: every radius must be a number >= 0")
    _check_width(eps.max().item() if eps.numel() else 0.0, clip)


def _check_width(eps: float, clip: tuple[float, float] | None) -> None:
    """Raise ValueError if the radius is larger than the width of the data range."""
    if clip is not None and eps > clip[1] - clip[0]:
        raise ValueError(
            f"eps is {eps}, wider than the data range [{clip[0]:g}, {clip[1]:g}]: eps is in pixel space, "
            f"so 8/255 is {8 / 255:.4f}, not 8"
        )

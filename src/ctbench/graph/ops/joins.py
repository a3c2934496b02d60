"""Ops of several branches, or of several entries: sum, concatenation, maximum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph.ops.base import Lines, Op, Shape, UnsupportedLayerError, lower
from ctbench.graph.ops.convolutions import SIDES
from ctbench.graph.ops.moves import Select


@dataclass(frozen=True)
class Add(Op):
    """The sum of two branches of the same shape."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0] + inputs[1]

    def shape(self, *inputs: Shape) -> Shape:
        if inputs[0] != inputs[1]:
            raise ValueError(f"a sum needs branches of the same shape, got {inputs[0]} and {inputs[1]}: expand one")
        return inputs[0]


@dataclass(frozen=True)
class Concat(Op):
    """The concatenation of branches along a dimension of a sample."""

    dim: int  # a dimension of the shape without the batch
    sizes: tuple[int, ...]  # of the branches, along dim

    def __call__(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, dim=self.dim + 1)

    def split(self, a: Tensor) -> tuple[Tensor, ...]:
        """The coefficients [B, S, *output] that belong to each branch."""
        return torch.split(a, list(self.sizes), dim=self.dim + 2)

    def shape(self, *inputs: Shape) -> Shape:
        def rest(shape: Shape) -> Shape:
            return shape[: self.dim] + shape[self.dim + 1 :]

        sizes = tuple(shape[self.dim] for shape in inputs)
        if sizes != self.sizes or any(rest(shape) != rest(inputs[0]) for shape in inputs):
            raise ValueError(
                f"branches of shapes {', '.join(map(str, inputs))} cannot be joined in dimension {self.dim}"
            )
        return (*inputs[0][: self.dim], sum(sizes), *inputs[0][self.dim + 1 :])


@dataclass(frozen=True, eq=False)
class Max(Op):
    """The maximum of n entries: [B, n, *shape] to [B, *shape]."""

    relaxed: ClassVar[bool] = True
    repeats: Tensor | None = None  # entries that repeat another entry; broadcasts to [n, *shape]

    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0].amax(1)

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0][1:]

    def lines(self, lower: Tensor, upper: Tensor) -> Lines:
        """Planes around the maximum for entries in [l, u], [B, n, *shape]; offsets are [B, *shape].

        Below: the entry with the largest lower bound L. Above: max z <= L + sum (z_i - L)+ with the chord of each
        summand, or the largest upper bound if it is lower at the centre. Both are exact if one entry dominates the
        others. Repeats of an entry are excluded from the planes: their chord would be counted twice.
        """
        once = lower if self.repeats is None else lower.masked_fill(self.repeats, -torch.inf)
        floor, first = once.max(1, keepdim=True)
        below = torch.zeros_like(lower).scatter(1, first, 1.0)
        matters = upper > floor
        if self.repeats is not None:
            matters = matters & ~self.repeats
        # a slope of 1 is also sound, and its gradient does not overflow if the width is close to 0
        wide = upper - lower > torch.finfo(lower.dtype).tiny ** 0.5
        chord = (upper - floor) / torch.where(wide, upper - lower, 1.0)
        above = torch.where(matters, torch.where(wide, chord, 1.0), 0.0)
        above = torch.where(below > 0, 1.0, above)
        offset = floor.squeeze(1) - (above * lower).sum(1)
        highest = upper.amax(1)
        flat = (above * (upper + lower) / 2).sum(1) + offset > highest
        above = torch.where(flat.unsqueeze(1), 0.0, above)
        # NaN or infinite bounds must make the offset NaN, which certifies nothing
        return Lines(below, None, above, torch.where(flat, highest, offset) + 0 * highest)


@lower.register(nn.MaxPool2d)
@lower.register(nn.MaxPool3d)
def _(module: nn.MaxPool2d | nn.MaxPool3d, shape: Shape) -> Op | Sequence[Op]:
    """The entries of each window, and their maximum: along each side, a window has places of its own."""
    sides, pool = (2, F.max_pool2d) if isinstance(module, nn.MaxPool2d) else (3, F.max_pool3d)
    if module.return_indices:
        raise UnsupportedLayerError(
            f"MaxPool{sides}d with return_indices=True is not supported: set return_indices=False"
        )
    if len(shape) != sides + 1:
        raise ValueError(f"the layer takes (channels, {SIDES[sides]}), its input has shape {shape}")
    settings = (module.kernel_size, module.stride, module.padding, module.dilation)
    kernel, stride, padding, dilation = (_of_sides(setting, sides) for setting in settings)
    try:
        count = pool(torch.zeros(1, *shape), kernel, stride, padding, dilation, module.ceil_mode).shape[2:]
    except RuntimeError as error:  # from torch, if the windows do not fit
        raise ValueError(f"the windows do not fit inputs of shape {shape} ({error})") from None
    sizes = zip(shape[1:], count, kernel, stride, padding, dilation, strict=True)
    return _maxima([_places(*side) for side in sizes], shape)


@lower.register(nn.AdaptiveMaxPool1d)
@lower.register(nn.AdaptiveMaxPool2d)
@lower.register(nn.AdaptiveMaxPool3d)
def _(module: nn.AdaptiveMaxPool1d | nn.AdaptiveMaxPool2d | nn.AdaptiveMaxPool3d, shape: Shape) -> Sequence[Op]:
    """The maxima of windows of two sizes, if a side is not divided evenly."""
    sides = 1 if isinstance(module, nn.AdaptiveMaxPool1d) else 2 if isinstance(module, nn.AdaptiveMaxPool2d) else 3
    if module.return_indices:
        raise UnsupportedLayerError(
            f"AdaptiveMaxPool{sides}d with return_indices=True is not supported: set return_indices=False"
        )
    if len(shape) != sides + 1:
        raise ValueError(f"the layer takes (channels, {SIDES[sides]}), its input has shape {shape}")
    counts: Any = module.output_size
    counts = (counts,) * sides if counts is None or isinstance(counts, int) else tuple(counts)
    sizes = zip(shape[1:], counts, strict=True)
    return _maxima([_shares(size, size if count is None else count) for size, count in sizes], shape)


def _maxima(axes: Sequence[tuple[Tensor, Tensor]], shape: Shape) -> tuple[Op, Op]:
    """The entries of windows and their maxima: along each side the places of windows, and whether these count."""
    sides = len(axes)
    place, is_inside = torch.zeros((), dtype=torch.int64), torch.ones((), dtype=torch.bool)
    for number, (at, inside) in enumerate(axes):
        axis = [1] * (2 * sides)  # the kernel's sides, then those of the output
        axis[number], axis[sides + number] = at.shape
        place = place * shape[1 + number] + at.view(axis)
        is_inside = is_inside & inside.view(axis)
    channel = torch.arange(shape[0]).view(1, -1, *[1] * sides) * math.prod(shape[1:])
    index = channel + place.flatten(0, sides - 1).unsqueeze(1)
    repeats = None if bool(is_inside.all()) else ~is_inside.flatten(0, sides - 1).unsqueeze(1)
    return Select(index, shape), Max(repeats)


def _of_sides(setting: int | tuple[int, ...], sides: int) -> tuple[int, ...]:
    return (setting,) * sides if isinstance(setting, int) else tuple(setting)


def _places(size: int, count: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[Tensor, Tensor]:
    """The places of the windows along a side, and whether they lie inside the image; both [kernel, count].

    A place beyond the edge is not a candidate for the maximum. It is replaced by the first place of its window inside
    the image.
    """
    place = torch.arange(count) * stride - padding + torch.arange(kernel).unsqueeze(1) * dilation
    inside = (place >= 0) & (place < size)
    if not bool(inside.any(0).all()):
        raise ValueError(f"a window of {kernel} with dilation {dilation} sees only the padding of a side of {size}")
    first = place.gather(0, inside.to(torch.int8).argmax(0, keepdim=True))
    return torch.where(inside, place, first), inside


def _shares(size: int, count: int) -> tuple[Tensor, Tensor]:
    """The places of `count` windows that share a side, and whether they count; both [largest window, count].

    A window goes from floor(i size / count) to ceil((i + 1) size / count); a smaller one repeats its first place.
    """
    part = torch.arange(count)
    first, end = part * size // count, ((part + 1) * size + count - 1) // count
    place = first + torch.arange(int((end - first).max())).unsqueeze(1)
    inside = place < end
    return torch.where(inside, place, first), inside

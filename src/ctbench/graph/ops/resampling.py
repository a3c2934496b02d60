"""Layers that resample or that have one or three sides: interpolation, all average poolings, convolutions in 1D and 3D.

They are maps along axes, moves of entries, or layers for images between reshapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph.ops.activations import scaled
from ctbench.graph.ops.along import CUBIC, Weights, along, interpolated, resampled, window_means
from ctbench.graph.ops.averages import AdaptiveAvgPool2d, AvgPool2d
from ctbench.graph.ops.base import Op, Shape, UnsupportedLayerError, lower
from ctbench.graph.ops.convolutions import SIDES, Conv3d, ConvTranspose2d, ConvTranspose3d, padded
from ctbench.graph.ops.moves import Reshape, rearrangement

# the modes of interpolation, and how many sides they have
SIDES_OF = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}


def numbers(value: Any, sides: int) -> tuple[Any, ...]:
    """A setting as one number for each side."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * sides


# ------------------------------------------------------------------------------------------------- interpolation


@lower.register
def _(module: nn.Upsample, shape: Shape) -> Op | Sequence[Op]:
    return resized(
        shape,
        size=module.size,
        scale_factor=module.scale_factor,
        mode=module.mode,
        align_corners=module.align_corners,
        again=module.recompute_scale_factor,
    )


def resized(
    shape: Shape,
    *,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    again: bool | None = None,
) -> Sequence[Op]:
    """The ops of F.interpolate for values of this shape; `again` is its `recompute_scale_factor`."""
    sides = len(shape) - 1

    def resize(x: Tensor) -> Tensor:
        return F.interpolate(x, size, scale_factor, mode, align_corners, again)

    if mode in ("nearest", "nearest-exact"):
        return rearrangement(resize, shape)
    if SIDES_OF.get(mode) != sides:
        raise UnsupportedLayerError(
            f"interpolation with mode={mode!r} of values of shape {shape} is not supported: use 'nearest', "
            f"'nearest-exact', 'linear', 'bilinear' or 'trilinear' for one, two or three sides, or 'bicubic' for two"
        )
    counts = tuple(resize(torch.zeros(1, *shape)).shape[2:])
    factors = numbers(scale_factor, sides)
    maps = list[tuple[int, Weights]]()
    for dim, (n, count, factor) in enumerate(zip(shape[1:], counts, factors, strict=True), 1):
        if align_corners:
            scale = Fraction(n - 1, count - 1) if count > 1 else Fraction(0)
        elif factor is not None and not again:
            scale = 1 / Fraction(factor)
        else:
            scale = Fraction(n, count)
        if mode == "bicubic":
            begin = Fraction(0) if align_corners else (scale - 1) / 2
            maps.append((dim, resampled([begin + part * scale for part in range(count)], n, cubic=CUBIC)))
        else:
            maps.append((dim, interpolated(n, count, scale, align_corners=bool(align_corners))))
    return along(maps, shape)


# ----------------------------------------------------------------------------------------------------- averages


@lower.register(nn.AvgPool1d)
@lower.register(nn.AvgPool2d)
@lower.register(nn.AvgPool3d)
def _(module: nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d, shape: Shape) -> Op | Sequence[Op]:
    sides = len(shape) - 1
    wanted = {nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3}[type(module)]
    if sides != wanted:
        raise ValueError(f"the layer takes the channels and {wanted} sides, its input has shape {shape}")
    stride = module.kernel_size if module.stride is None else module.stride
    kernel, stride, padding = (numbers(value, sides) for value in (module.kernel_size, stride, module.padding))
    divisor = getattr(module, "divisor_override", None)
    counted = module.count_include_pad or not any(padding)
    if sides == 2 and counted and not module.ceil_mode and divisor is None:
        return AvgPool2d(kernel, stride, padding, shape)  # type: ignore[arg-type]
    try:
        counts = module(torch.zeros(1, *shape)).shape[2:]
    except RuntimeError as error:
        raise ValueError(f"the windows do not fit inputs of shape {shape} ({error})") from None
    maps = list[tuple[int, Weights]]()
    for dim, (n, count, *window) in enumerate(zip(shape[1:], counts, kernel, stride, padding, strict=True), 1):
        rows = window_means(n, count, *window, padded=counted)
        maps.append((dim, rows if divisor is None else [dict.fromkeys(row, Fraction(1)) for row in rows]))
    ops = along(maps, shape)
    return ops if divisor is None else (*ops, scaled(1 / divisor, shape))


@lower.register(nn.AdaptiveAvgPool1d)
@lower.register(nn.AdaptiveAvgPool2d)
@lower.register(nn.AdaptiveAvgPool3d)
def _(module: Any, shape: Shape) -> Op | Sequence[Op]:
    sides = {nn.AdaptiveAvgPool1d: 1, nn.AdaptiveAvgPool2d: 2, nn.AdaptiveAvgPool3d: 3}[type(module)]
    if len(shape) != sides + 1:
        raise ValueError(f"the layer takes the channels and {sides} sides, its input has shape {shape}")
    wanted = numbers(module.output_size, sides)
    counts = tuple(n if count is None else count for n, count in zip(shape[1:], wanted, strict=True))
    if sides == 2:
        return AdaptiveAvgPool2d(counts, shape)  # type: ignore[arg-type]
    return along(
        [(dim, _parts(n, count)) for dim, (n, count) in enumerate(zip(shape[1:], counts, strict=True), 1)], shape
    )


def _parts(size: int, count: int) -> Weights:
    """The means of `count` parts of a side."""
    ends = ((part * size // count, -(-(part + 1) * size // count)) for part in range(count))
    return [dict.fromkeys(range(begin, end), Fraction(1, end - begin)) for begin, end in ends]


# ------------------------------------------------------------------------------- layers with one or three sides


def of_height_one(layer: Callable[[Shape], Op | Sequence[Op]], shape: Shape) -> Sequence[Op]:
    """The ops of a layer for images, for sequences (channels, length) as images of height 1."""
    if len(shape) != 2:
        raise ValueError(f"the layer takes (channels, length), its input has shape {shape}")
    image: Shape = (shape[0], 1, shape[1])
    lowered = layer(image)
    ops = tuple(lowered) if isinstance(lowered, Sequence) else (lowered,)
    result = image
    for op in ops:
        result = op.shape(result)
    return Reshape(shape, image), *ops, Reshape(result, (result[0], result[2]))


@lower.register
def _(module: nn.MaxPool1d, shape: Shape) -> Op | Sequence[Op]:
    settings = (module.kernel_size, module.stride, module.padding, module.dilation)
    kernel, stride, padding, dilation = (numbers(value, 1)[0] for value in settings)
    image = nn.MaxPool2d(
        (1, kernel), (1, stride), (0, padding), (1, dilation), module.return_indices, ceil_mode=module.ceil_mode
    )
    return of_height_one(lambda shape: lower(image, shape), shape)


@lower.register
def _(module: nn.ConvTranspose1d, shape: Shape) -> Op | Sequence[Op]:
    settings = (module.stride, module.padding, module.output_padding, module.dilation)
    stride, padding, more, dilation = (numbers(value, 1)[0] for value in settings)
    op = ConvTranspose2d(
        module.weight.unsqueeze(2), module.bias, (1, stride), (0, padding), (0, more), (1, dilation), module.groups
    )
    return of_height_one(lambda shape: op, shape)


@lower.register
def _(module: nn.Conv3d, shape: Shape) -> Sequence[Op]:
    if len(shape) != 4:
        raise ValueError(f"the layer takes (channels, {SIDES[3]}), its input has shape {shape}")
    before, padding = padded(module, shape)
    shape = before[-1].shape(shape) if before else shape
    stride, dilation = (numbers(side, 3) for side in (module.stride, module.dilation))
    return *before, Conv3d(module.weight, module.bias, stride, padding, dilation, module.groups, shape)


@lower.register
def _(module: nn.ConvTranspose3d, shape: Shape) -> Op:
    settings = (module.stride, module.padding, module.output_padding, module.dilation)
    stride, padding, more, dilation = (numbers(setting, 3) for setting in settings)
    return ConvTranspose3d(module.weight, module.bias, stride, padding, more, dilation, module.groups)


# --------------------------------------------------------------------------------------------- moves of entries


@lower.register(nn.CircularPad1d)
@lower.register(nn.CircularPad2d)
@lower.register(nn.CircularPad3d)
@lower.register(nn.ConstantPad3d)
@lower.register(nn.ReflectionPad1d)
@lower.register(nn.ReflectionPad3d)
@lower.register(nn.ReplicationPad1d)
@lower.register(nn.ReplicationPad3d)
@lower.register(nn.Unfold)
@lower.register(nn.ZeroPad1d)
@lower.register(nn.ZeroPad3d)
def _(module: nn.Module, shape: Shape) -> Op | Sequence[Op]:
    return rearrangement(module, shape)

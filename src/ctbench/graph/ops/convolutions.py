"""Convolutions and transposed convolutions of images and of volumes; those of sequences are images of height 1."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph.ops.base import Affine, Op, Shape, lower
from ctbench.graph.ops.moves import Reshape, rearrangement

FOURIER = ("cuda",)  # devices that may compute convolutions in double precision by Fourier transforms


@contextmanager
def sums_of_products(x: Tensor) -> Iterator[None]:
    """Compute convolutions of x in double precision as sums of products, because error bounds are made for these.

    cuDNN uses Fourier transforms for some kernels of height or width 1; torch's own kernels multiply matrices.
    """
    if x.dtype != torch.float64 or x.device.type not in FOURIER:
        yield
        return
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


SIDES = {1: "length", 2: "height, width", 3: "depth, height, width"}


class OfImages:
    """Torch's functions for height and width."""

    @staticmethod
    def convolve(*arguments: Any) -> Tensor:
        return F.conv2d(*arguments)

    @staticmethod
    def spread(*arguments: Any) -> Tensor:
        return F.conv_transpose2d(*arguments)


class OfVolumes:
    """Torch's functions for depth, height and width."""

    @staticmethod
    def convolve(*arguments: Any) -> Tensor:
        return F.conv3d(*arguments)

    @staticmethod
    def spread(*arguments: Any) -> Tensor:
        return F.conv_transpose3d(*arguments)


class Convolution(Affine):
    """A convolution of images or of volumes; all settings have one number for each side."""

    weight: Tensor  # [out, in / groups, *kernel]
    bias: Tensor | None  # [out]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    input_shape: Shape  # (channels, *sides)

    @staticmethod
    @abstractmethod
    def convolve(*arguments: Any) -> Tensor:
        """torch's convolution for this number of sides."""

    @staticmethod
    @abstractmethod
    def spread(*arguments: Any) -> Tensor:
        """torch's transposed convolution for this number of sides."""

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        with sums_of_products(x):
            return self.convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self._convolve(x, self.weight, self.bias)

    def linear(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight, None)

    def magnitude(self, r: Tensor) -> Tensor:
        return self._convolve(r, self.weight.abs(), None)

    def adjoint(self, a: Tensor) -> Tensor:
        # rows and columns at the far edge that the stride skips get zero coefficients
        left_over = tuple(
            size - ((out - 1) * s - 2 * p + d * (k - 1) + 1)
            for size, out, s, p, d, k in zip(
                self.input_shape[1:],
                self.shape(self.input_shape)[1:],
                self.stride,
                self.padding,
                self.dilation,
                self.weight.shape[2:],
                strict=True,
            )
        )
        with sums_of_products(a):
            back = self.spread(
                a.flatten(0, 1),
                self.weight,
                None,
                self.stride,
                self.padding,
                left_over,
                self.groups,
                self.dilation,
            )
        return back.reshape(*a.shape[:2], *self.input_shape)

    def offset(self, a: Tensor) -> Tensor | float:
        return 0.0 if self.bias is None else a.sum(dim=tuple(range(3, a.dim()))) @ self.bias

    def shape(self, *inputs: Shape) -> Shape:
        channels, sides = self.weight.shape[1] * self.groups, self.weight.dim() - 2
        if len(inputs[0]) != sides + 1 or inputs[0][0] != channels:
            raise ValueError(f"the layer takes ({channels}, {SIDES[sides]}), its input has shape {inputs[0]}")
        window = windows(inputs[0][1:], self.weight.shape[2:], self.stride, self.padding, self.dilation)
        return (self.weight.shape[0], *window)


@dataclass(frozen=True, eq=False)
class Conv2d(OfImages, Convolution):
    weight: Tensor  # [out, in / groups, kernel, kernel]
    bias: Tensor | None  # [out]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    input_shape: Shape  # (channels, height, width)


@dataclass(frozen=True, eq=False)
class Conv3d(OfVolumes, Convolution):
    weight: Tensor  # [out, in / groups, kernel, kernel, kernel]
    bias: Tensor | None  # [out]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    input_shape: Shape  # (channels, depth, height, width)


def windows(size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape | None = None) -> Shape:
    """The number of windows along each side."""
    count = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation or (1,) * len(size), strict=True)
    )
    if min(count) < 1:
        raise ValueError(f"a window of {tuple(kernel)} does not fit into {tuple(size)} with padding {tuple(padding)}")
    return count


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _convolution(module: nn.Conv1d | nn.Conv2d, shape: Shape, weight: Tensor, *sides: tuple[int, ...]) -> Conv2d:
    """The convolution of a layer; stride, padding and dilation are two numbers each."""
    stride, padding, dilation = (pair(side) for side in sides)
    return Conv2d(weight, module.bias, stride, padding, dilation, module.groups, shape)


@lower.register
def _(module: nn.Conv2d, shape: Shape) -> Op | Sequence[Op]:
    before, padding = padded(module, shape)
    shape = before[-1].shape(shape) if before else shape
    return *before, _convolution(module, shape, module.weight, module.stride, padding, module.dilation)


@lower.register
def _(module: nn.Conv1d, shape: Shape) -> Op | Sequence[Op]:
    if len(shape) != 2:
        raise ValueError(f"the layer takes (channels, length), its input has shape {shape}")
    before, padding = padded(module, shape)
    shape = before[-1].shape(shape) if before else shape
    image = (shape[0], 1, shape[1])  # of height 1
    sides = ((1, *module.stride), (0, *padding), (1, *module.dilation))
    op = _convolution(module, image, module.weight.unsqueeze(2), *sides)
    channels, _, length = op.shape(image)
    return *before, Reshape(shape, image), op, Reshape((channels, 1, length), (channels, length))


def padded(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, shape: Shape) -> tuple[tuple[Op, ...], tuple[int, ...]]:
    """The ops that pad the inputs of a layer, and the zeros that the convolution pads itself on each side."""
    if module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return (), tuple(module.padding)
    ends = module._reversed_padding_repeated_twice  # also for "same" and "valid"; the last side first
    if module.padding_mode == "zeros" and ends[::2] == ends[1::2]:
        return (), tuple(ends[::2][::-1])
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return rearrangement(lambda x: F.pad(x, tuple(ends), mode=mode), shape), (0,) * (len(ends) // 2)


class ConvTranspose(Affine):
    """A transposed convolution of images or of volumes; all settings have one number for each side."""

    weight: Tensor  # [in, out / groups, *kernel]
    bias: Tensor | None  # [out]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @staticmethod
    @abstractmethod
    def convolve(*arguments: Any) -> Tensor:
        """torch's convolution for this number of sides."""

    @staticmethod
    @abstractmethod
    def spread(*arguments: Any) -> Tensor:
        """torch's transposed convolution for this number of sides."""

    def _spread(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        with sums_of_products(x):
            return self.spread(
                x, weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
            )

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self._spread(x, self.weight, self.bias)

    def linear(self, x: Tensor) -> Tensor:
        return self._spread(x, self.weight, None)

    def magnitude(self, r: Tensor) -> Tensor:
        return self._spread(r, self.weight.abs(), None)

    def adjoint(self, a: Tensor) -> Tensor:
        with sums_of_products(a):
            back = self.convolve(
                a.flatten(0, 1), self.weight, None, self.stride, self.padding, self.dilation, self.groups
            )
        # with an output padding of at least the stride, the convolution sees a row after the last row of the input
        for side, (s, extra) in enumerate(zip(self.stride, self.output_padding, strict=True), 2):
            back = back.narrow(side, 0, back.shape[side] - extra // s)
        return back.reshape(*a.shape[:2], *back.shape[1:])

    def offset(self, a: Tensor) -> Tensor | float:
        return 0.0 if self.bias is None else a.sum(dim=tuple(range(3, a.dim()))) @ self.bias

    def shape(self, *inputs: Shape) -> Shape:
        channels, sides = self.weight.shape[0], self.weight.dim() - 2
        if len(inputs[0]) != sides + 1 or inputs[0][0] != channels:
            raise ValueError(f"the layer takes ({channels}, {SIDES[sides]}), its input has shape {inputs[0]}")
        size = (
            (n - 1) * s - 2 * p + d * (k - 1) + 1 + extra
            for n, s, p, d, k, extra in zip(
                inputs[0][1:],
                self.stride,
                self.padding,
                self.dilation,
                self.weight.shape[2:],
                self.output_padding,
                strict=True,
            )
        )
        return (self.weight.shape[1] * self.groups, *size)


@dataclass(frozen=True, eq=False)
class ConvTranspose2d(OfImages, ConvTranspose):
    weight: Tensor  # [in, out / groups, kernel, kernel]
    bias: Tensor | None  # [out]
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


@dataclass(frozen=True, eq=False)
class ConvTranspose3d(OfVolumes, ConvTranspose):
    weight: Tensor  # [in, out / groups, kernel, kernel, kernel]
    bias: Tensor | None  # [out]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@lower.register
def _(module: nn.ConvTranspose2d, shape: Shape) -> Op:
    assert not isinstance(module.padding, str)
    sides = (module.stride, module.padding, module.output_padding, module.dilation)
    stride, padding, output_padding, dilation = (pair(side) for side in sides)
    return ConvTranspose2d(module.weight, module.bias, stride, padding, output_padding, dilation, module.groups)

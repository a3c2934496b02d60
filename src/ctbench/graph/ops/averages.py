"""Means: of windows, of parts of an image, over dimensions. Affine maps with positive weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.graph.ops.base import Positive, Shape
from ctbench.graph.ops.convolutions import Conv2d, windows


@dataclass(frozen=True)
class AvgPool2d(Positive):
    """The mean of every window, including the zeros of the padding."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    input_shape: Shape  # (channels, height, width)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.avg_pool2d(x, self.kernel, self.stride, self.padding)

    def adjoint(self, a: Tensor) -> Tensor:
        return self.as_convolution(a).adjoint(a)

    def as_convolution(self, like: Tensor) -> Conv2d:
        """The same map, with weights of this precision."""
        channels = self.input_shape[0]
        weight = like.new_full((channels, 1, *self.kernel), 1 / math.prod(self.kernel))
        return Conv2d(weight, None, self.stride, self.padding, (1, 1), channels, self.input_shape)

    def shape(self, *inputs: Shape) -> Shape:
        if len(inputs[0]) != 3:
            raise ValueError(f"the layer takes (channels, height, width), its input has shape {inputs[0]}")
        return (inputs[0][0], *windows(inputs[0][1:], self.kernel, self.stride, self.padding))


@dataclass(frozen=True)
class AdaptiveAvgPool2d(Positive):
    """The mean of each of size[0] x size[1] parts of an image; parts of unequal sides overlap, like in torch."""

    size: tuple[int, int]
    input_shape: Shape  # (channels, height, width)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.adaptive_avg_pool2d(x, self.size)

    def adjoint(self, a: Tensor) -> Tensor:
        rows, columns = (_parts(n, m, a) for n, m in zip(self.input_shape[1:], self.size, strict=True))
        return rows.T @ a @ columns

    def shape(self, *inputs: Shape) -> Shape:
        if len(inputs[0]) != 3:
            raise ValueError(f"the layer takes (channels, height, width), its input has shape {inputs[0]}")
        return (inputs[0][0], *self.size)


def _parts(length: int, count: int, like: Tensor) -> Tensor:
    """The means of `count` parts of a side, as a matrix [count, length]."""
    place = torch.arange(length, device=like.device)
    part = torch.arange(count, device=like.device).unsqueeze(1)
    begin, end = part * length // count, -(-(part + 1) * length // count)
    inside = ((place >= begin) & (place < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


@dataclass(frozen=True)
class Mean(Positive):
    """The mean over some dimensions of a sample; the dimensions are kept with size 1."""

    dims: tuple[int, ...]  # of the shape without the batch
    input_shape: Shape

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.mean([dim + 1 for dim in self.dims], keepdim=True)

    def adjoint(self, a: Tensor) -> Tensor:
        share = 1 / math.prod(self.input_shape[dim] for dim in self.dims)
        return (a * share).expand(*a.shape[:2], *self.input_shape)

    def shape(self, *inputs: Shape) -> Shape:
        return tuple(1 if dim in self.dims else size for dim, size in enumerate(inputs[0]))

"""Affine ops without arithmetic: each output is one input entry, or a constant.

A function that only moves entries is read by running it on the numbers of the entries, 1 to n. So slices, permutations,
padding, pixel shuffles and repetitions are one op, `Select`, and do not need code of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph.ops.base import Affine, Op, Positive, Shape, UnsupportedLayerError, lower


@dataclass(frozen=True)
class Reshape(Positive):
    mixes: ClassVar[bool] = False
    input_shape: Shape
    output_shape: Shape

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.reshape(len(x), *self.output_shape)

    def adjoint(self, a: Tensor) -> Tensor:
        return a.reshape(*a.shape[:2], *self.input_shape)

    def shape(self, *inputs: Shape) -> Shape:
        if math.prod(inputs[0]) != math.prod(self.output_shape):
            raise ValueError(f"{inputs[0]} cannot be reshaped to {self.output_shape}")
        return self.output_shape


@dataclass(frozen=True, eq=False)
class Select(Positive):
    """Entries of the input, each any number of times, and zeros."""

    index: Tensor  # integers [*output]: the index into the flat input, or its size for a zero
    input_shape: Shape

    @cached_property
    def uses(self) -> int:
        """The maximal number of times that an entry of the input is used."""
        size = math.prod(self.input_shape)
        return int(self.index.flatten().bincount(minlength=size + 1)[:size].max())

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.pad(x.flatten(1), (0, 1))[:, self.index]

    def adjoint(self, a: Tensor) -> Tensor:
        size = math.prod(self.input_shape)
        back = a.new_zeros(*a.shape[:2], size + 1).index_add(2, self.index.flatten(), a.flatten(2))
        return back[:, :, :size].reshape(*a.shape[:2], *self.input_shape)

    def shape(self, *inputs: Shape) -> Shape:
        if inputs[0] != self.input_shape:
            raise ValueError(f"the layer takes {self.input_shape}, its input has shape {inputs[0]}")
        return tuple(self.index.shape)


@dataclass(frozen=True, eq=False)
class Shift(Affine):
    """x -> x + bias."""

    mixes: ClassVar[bool] = False
    bias: Tensor  # broadcasts to the input's shape

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x + self.bias

    def linear(self, x: Tensor) -> Tensor:
        return x

    def magnitude(self, r: Tensor) -> Tensor:
        return r

    def adjoint(self, a: Tensor) -> Tensor:
        return a

    def offset(self, a: Tensor) -> Tensor | float:
        return (a * self.bias).flatten(2).sum(2)

    def shape(self, *inputs: Shape) -> Shape:
        if not broadcasts(self.bias.shape, inputs[0]):
            raise ValueError(f"a shift of shape {tuple(self.bias.shape)} does not fit inputs of shape {inputs[0]}")
        return inputs[0]


BATCH_FIRST = "with the batch as dimension 0: leave it in its place, and write -1 or x.size(0) for its size"


def broadcasts(shape: Sequence[int], target: Shape) -> bool:
    """Whether a constant of this shape broadcasts to values of the target shape."""
    padded = (1,) * (len(target) - len(shape)) + tuple(shape)
    return len(padded) == len(target) and all(size in (1, n) for size, n in zip(padded, target, strict=True))


def rearrangement(function: Callable[[Tensor], Tensor], shape: Shape) -> tuple[Op, ...]:
    """The ops of a function that only moves entries and sets constants, for inputs of this shape.

    An input or output shape without axes is (1,) in the ops.

    Raises:
        UnsupportedLayerError: the function moves entries between samples, or does more than move entries.
        ValueError: the function rejects inputs of this shape, or its output is empty.
    """
    size = math.prod(shape)
    numbers = torch.arange(1, 2 * size + 1, dtype=torch.float64).view(2, *shape)
    try:
        constants = function(torch.zeros_like(numbers))
        moved = function(numbers) - constants
    except (RuntimeError, IndexError, TypeError, ValueError) as error:  # from torch, if the shape does not fit
        raise ValueError(f"it does not fit inputs of shape {shape}, {BATCH_FIRST} ({error})") from None
    if moved.numel() == 0:
        raise ValueError(f"its output for inputs of shape {shape} is empty")
    if not bool(constants.isfinite().all()):
        raise UnsupportedLayerError("it pads with values that are not finite")
    if moved.shape[:1] != (2,):
        raise UnsupportedLayerError(f"it makes {tuple(moved.shape)} of 2 samples of shape {shape}, {BATCH_FIRST}")
    index = moved.long()
    again = torch.where(index[0] > 0, index[0] + size, 0)
    if not torch.equal(index.double(), moved) or not torch.equal(index[1], again) or int(index[0].max()) > size:
        raise UnsupportedLayerError(f"it mixes samples of shape {shape}, {BATCH_FIRST}, or does more than move entries")
    entries, shape = torch.atleast_1d(torch.where(index[0] > 0, index[0] - 1, size)), shape or (1,)
    if torch.equal(entries.flatten(), torch.arange(size)):
        return (Reshape(shape, tuple(entries.shape)),)
    select = Select(entries, shape)
    return (select, Shift(constants[0])) if bool(constants.any()) else (select,)


@lower.register
def _(module: nn.Flatten, shape: Shape) -> Op | Sequence[Op]:
    if module.start_dim % (len(shape) + 1) == 0:
        raise UnsupportedLayerError("Flatten(start_dim=0) mixes the samples of a batch: flatten from dimension 1 on")
    return rearrangement(module, shape)


@lower.register(nn.Identity)
@lower.register(nn.Unflatten)
@lower.register(nn.ConstantPad1d)
@lower.register(nn.ConstantPad2d)
@lower.register(nn.ZeroPad2d)
@lower.register(nn.ReflectionPad2d)
@lower.register(nn.ReplicationPad2d)
@lower.register(nn.PixelShuffle)
@lower.register(nn.PixelUnshuffle)
@lower.register(nn.ChannelShuffle)
def _(module: nn.Module, shape: Shape) -> Op | Sequence[Op]:
    return rearrangement(module, shape)

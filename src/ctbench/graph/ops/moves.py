"""Affine ops that compute nothing: each output is one input entry, or a constant.

A function that only moves entries is understood by running it on their numbers, 1 to n. So slices, permutations,
padding, pixel shuffles and repetitions are one op, `Select`, and none of them has to be written out.
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
        return x.reshape(-1, *self.output_shape)

    def adjoint(self, a: Tensor) -> Tensor:
        return a.reshape(*a.shape[:2], *self.input_shape)

    def shape(self, *inputs: Shape) -> Shape:
        if math.prod(inputs[0]) != math.prod(self.output_shape):
            raise ValueError(f"{inputs[0]} cannot be reshaped to {self.output_shape}")
        return self.output_shape


@dataclass(frozen=True, eq=False)
class Select(Positive):
    """Entries of the input, each at any number of places, and zeros."""

    index: Tensor  # integers [*output]: which entry of the flat input, or its size for a zero
    input_shape: Shape

    @cached_property
    def uses(self) -> int:
        """At how many places an entry of the input stands, at most."""
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


BATCH = "before which dimension 0 is the batch: leave it in its place, and write -1 or x.size(0) for its size"


def broadcasts(shape: Sequence[int], target: Shape) -> bool:
    """Whether a constant of this shape can be joined with values of the target's shape, and leaves it as it is."""
    padded = (1,) * (len(target) - len(shape)) + tuple(shape)
    return len(padded) == len(target) and all(size in (1, n) for size, n in zip(padded, target, strict=True))


def rearrangement(function: Callable[[Tensor], Tensor], shape: Shape) -> tuple[Op, ...]:
    """The ops that a function is, for inputs of this shape, if all it does is to move entries and set constants.

    Raises:
        UnsupportedLayerError: it moves entries from one sample of the batch to another, or does more than move.
        ValueError: it does not take inputs of this shape, or nothing comes out.
    """
    size = math.prod(shape)
    numbers = torch.arange(1, 2 * size + 1, dtype=torch.float64).view(2, *shape)
    try:
        constants = function(torch.zeros_like(numbers))
        moved = function(numbers) - constants
    except (RuntimeError, IndexError, TypeError, ValueError) as error:  # torch's own word on what does not fit
        raise ValueError(f"it does not fit inputs of shape {shape}, {BATCH} ({error})") from None
    if moved.numel() == 0:
        raise ValueError(f"nothing of inputs of shape {shape} comes out of it")
    if not bool(constants.isfinite().all()):
        raise UnsupportedLayerError("it pads with values that are not finite")
    if moved.shape[:1] != (2,):
        raise UnsupportedLayerError(f"it makes {tuple(moved.shape)} of 2 samples of shape {shape}, {BATCH}")
    index = moved.long()
    again = torch.where(index[0] > 0, index[0] + size, 0)
    if not torch.equal(index.double(), moved) or not torch.equal(index[1], again) or int(index[0].max()) > size:
        raise UnsupportedLayerError(f"it mixes samples of shape {shape}, {BATCH}, or does more than move entries")
    entries = torch.where(index[0] > 0, index[0] - 1, size)
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

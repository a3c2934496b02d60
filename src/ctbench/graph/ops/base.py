"""What an op is, and the two families that carry almost every network.

    Affine       x -> W x + b      linear(x) = W x,  magnitude(r) = |W| r,  adjoint(a) = W^T a,  offset(a) = <a, b>
    Elementwise  x -> f(x)         slopes(l, u): the range of f' on [l, u],  extremes(l, u, s): that of f(z) - s z

Every domain is written in these few questions. W is never formed. Any slope gives a sound line around f, because its
offset is asked for: which slope is a good one is the business of a relaxation.

Tensors with a leading batch are [B, *shape], coefficients of S linear forms a sample are [B, S, *shape]; a `shape`
alone is without them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import singledispatch
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
EPSILON = 2.0**-52  # the distance from 1 to the next number in double precision


class UnsupportedLayerError(ValueError):
    """A layer that no op has been registered for."""


class Op(ABC):
    """A function of one or more tensors. Ops are frozen dataclasses; parameters are held, never copied."""

    relaxed: ClassVar[bool] = False  # whether linear bounds need lines around it, and so bounds of its input

    @abstractmethod
    def __call__(self, *inputs: Tensor) -> Tensor: ...

    @abstractmethod
    def shape(self, *inputs: Shape) -> Shape:
        """The shape that comes out for the shapes that go in; ValueError where they do not fit."""

    def freeze(self, *inputs: Tensor, training: bool) -> Op:
        """This op with every quantity fixed that it takes from the batch."""
        return self

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same op with each of its tensors changed."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        changed = {name: change(value) for name, value in tensors.items() if isinstance(value, Tensor)}
        return replace(self, **changed)  # type: ignore[type-var]


@dataclass(frozen=True)
class Input(Op):
    """The start of a graph."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


class Affine(Op):
    """x -> W x + b."""

    mixes: ClassVar[bool] = True  # whether an output may depend on several inputs

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor: ...  # type: ignore[override]

    @abstractmethod
    def linear(self, x: Tensor) -> Tensor:
        """W x."""

    @abstractmethod
    def magnitude(self, r: Tensor) -> Tensor:
        """|W| r, for a radius r >= 0."""

    @abstractmethod
    def adjoint(self, a: Tensor) -> Tensor:
        """W^T a, for coefficients a of the output, [B, S, *output] to [B, S, *input]."""

    @abstractmethod
    def offset(self, a: Tensor) -> Tensor | float:
        """<a, b>, [B, S]."""


class Positive(Affine):
    """x -> W x with no negative weight: a mean, a choice of entries. `__call__` is all of it."""

    def linear(self, x: Tensor) -> Tensor:
        return self(x)

    def magnitude(self, r: Tensor) -> Tensor:
        return self(r)

    def offset(self, a: Tensor) -> Tensor | float:
        return 0.0


class Lines(NamedTuple):
    """lower_slope z + lower_offset <= f(z) <= upper_slope z + upper_offset, for all z in [l, u]."""

    lower_slope: Tensor
    lower_offset: Tensor | None  # None is 0 everywhere
    upper_slope: Tensor
    upper_offset: Tensor


class Elementwise(Op):
    """x -> f(x), coordinate by coordinate. Bounds l, u and slopes are tensors that broadcast together."""

    relaxed: ClassVar[bool] = True
    convex: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor: ...  # type: ignore[override]

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    @abstractmethod
    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the greatest slope of f on [l, u]."""

    @abstractmethod
    def extremes(self, lower: Tensor, upper: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the greatest value of f(z) - slope z on [l, u]."""

    @abstractmethod
    def tightest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The slopes of a lower and an upper line that leave the smallest area between themselves and f."""

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the greatest value of f on [l, u]."""
        return self.extremes(lower, upper, torch.zeros_like(lower))

    def error(self, lower: Tensor, upper: Tensor) -> Tensor | float:
        """What f, as torch computes it in double precision, and its extremes may be wrong by for z in [l, u].

        Not counted are the rounding of the value itself and of a product with a slope: some units in their last place.
        """
        return 64 * EPSILON * (1 + torch.maximum(lower.abs(), upper.abs()))

    def exact(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where f is itself a line on [l, u], so that tighter bounds of the input would change nothing."""
        least, greatest = self.slopes(lower, upper)
        return least == greatest

    def chord(self, lower: Tensor, upper: Tensor) -> Tensor:
        """The slope of the line through both ends; where their distance is lost in rounding, a slope of f there."""
        width, (least, greatest) = upper - lower, self.slopes(lower, upper)
        # sigmoid(1e-320) - sigmoid(0) is a rounding error, and any number when it is divided by 1e-320; dividing by 1
        # there keeps it from the gradients, too, which would pass through where()
        wide = width > torch.finfo(width.dtype).eps * (1 + lower.abs() + upper.abs())
        slanted = (self(upper) - self(lower)) / torch.where(wide, width, 1.0)
        return torch.where(wide, torch.clamp(slanted, least, greatest), least)

    def lines(self, lower: Tensor, upper: Tensor, low: Tensor, high: Tensor) -> Lines:
        """Lines around f on [l, u], of slope `low` below and `high` above: sound for any slopes."""
        return Lines(low, self.extremes(lower, upper, low)[0], high, self.extremes(lower, upper, high)[1])

    def tightest_lines(self, lower: Tensor, upper: Tensor) -> Lines:
        """The lines of the tightest slopes."""
        return self.lines(lower, upper, *self.tightest(lower, upper))


@singledispatch
def lower(module: nn.Module, shape: Shape) -> Op | Sequence[Op]:
    """The op that a layer is, for inputs of this shape; or the ops that it is one after the other.

    Open to other layers: `@lower.register` a function of the layer and its input shape that returns them.
    """
    raise UnsupportedLayerError(
        f"layer type {type(module).__module__}.{type(module).__qualname__} is not supported: register an op for "
        f"it with @ctbench.graph.lower.register, a function of the layer and its input shape"
    )

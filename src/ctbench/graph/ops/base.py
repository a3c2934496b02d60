"""The base class of ops, and the two families that cover almost every network.

    Affine       x -> W x + b      linear(x) = W x,  magnitude(r) = |W| r,  adjoint(a) = W^T a,  offset(a) = <a, b>
    Elementwise  x -> f(x)         slopes(l, u): the range of f' on [l, u],  extremes(l, u, s): that of f(z) - s z

Every domain uses only these few methods. W is never formed. Any slope gives a sound line around f, because the op
computes its offset. A relaxation only has to choose a good slope.

Tensors with a batch are [B, *shape], coefficients of S linear forms per sample are [B, S, *shape]; a `shape` alone does
not include B and S.
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
    """A layer without a registered op."""


class Op(ABC):
    """A function of one or more tensors. Ops are frozen dataclasses; they refer to parameters, without copies."""

    relaxed: ClassVar[bool] = False  # whether linear bounds need lines around it, and so bounds of its input

    @abstractmethod
    def __call__(self, *inputs: Tensor) -> Tensor: ...

    @abstractmethod
    def shape(self, *inputs: Shape) -> Shape:
        """The output shape for these input shapes; ValueError if they do not fit."""

    def freeze(self, *inputs: Tensor, training: bool) -> Op:
        """This op, with all quantities fixed that depend on the batch."""
        return self

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same op with `change` applied to each of its tensors."""
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
    """x -> W x without negative weights: a mean, a selection of entries. `linear` and `magnitude` are `__call__`."""

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
        """The smallest and the largest slope of f on [l, u]."""

    @abstractmethod
    def extremes(self, lower: Tensor, upper: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value of f(z) - slope z on [l, u]."""

    @abstractmethod
    def tightest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The slopes of a lower and an upper line with the smallest area between them and f."""

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value of f on [l, u]."""
        return self.extremes(lower, upper, torch.zeros_like(lower))

    def error(self, lower: Tensor, upper: Tensor) -> Tensor | float:
        """A bound of the error of torch's f in double precision, and of the extremes, for z in [l, u].

        It does not include the rounding of the value itself, and of a product with a slope, to a few units in the last
        place.
        """
        return 64 * EPSILON * (1 + torch.maximum(lower.abs(), upper.abs()))

    def image_errors(self, lower: Tensor, upper: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Bounds of the errors of both ends of the image, besides a few units in the last place of each end."""
        error = self.error(lower, upper)
        return error, error

    def exact(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Whether f is a line on [l, u], so that tighter bounds of the input would change nothing."""
        least, greatest = self.slopes(lower, upper)
        return least == greatest

    def chord(self, lower: Tensor, upper: Tensor) -> Tensor:
        """The slope of the line through both ends; if their distance is lost in rounding, a slope of f there."""
        width, (least, greatest) = upper - lower, self.slopes(lower, upper)
        # sigmoid(1e-320) - sigmoid(0) is a rounding error, and dividing it by 1e-320 gives an arbitrary number.
        # Dividing by 1 there also keeps it out of the gradients, which would pass through where()
        wide = width > torch.finfo(width.dtype).eps * (1 + lower.abs() + upper.abs())
        slope = (self(upper) - self(lower)) / torch.where(wide, width, 1.0)
        return torch.where(wide, torch.clamp(slope, least, greatest), least)

    def lines(self, lower: Tensor, upper: Tensor, low: Tensor, high: Tensor) -> Lines:
        """Lines around f on [l, u], with slope `low` below and `high` above: sound for any slopes."""
        return Lines(low, self.extremes(lower, upper, low)[0], high, self.extremes(lower, upper, high)[1])

    def seen_by(self, view: Callable[[Tensor], Tensor], like: Tensor) -> Self:
        """The op whose tensors are seen by `view`, a function of tensors [B, *shape] like `like`, e.g. `Form.view`."""
        return self.map(lambda tensor: view(tensor.expand(like.shape)))

    def tightest_lines(self, lower: Tensor, upper: Tensor) -> Lines:
        """The lines with the tightest slopes."""
        return self.lines(lower, upper, *self.tightest(lower, upper))


@singledispatch
def lower(module: nn.Module, shape: Shape) -> Op | Sequence[Op]:
    """The op of a layer for inputs of this shape, or a sequence of ops.

    For a new layer, register a function of the layer and its input shape with `@lower.register`.
    """
    raise UnsupportedLayerError(
        f"layer type {type(module).__module__}.{type(module).__qualname__} is not supported: register an op for "
        f"it with @ctbench.graph.lower.register, a function of the layer and its input shape"
    )

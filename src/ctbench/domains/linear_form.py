"""Linear forms over a node of a graph, and how they are carried back to the input.

    affine        <a, W x + b> + c  =  <W^T a, x> + (c + <a, b>)
    elementwise   <a, f(x)> + c    >=  <a+ s_low + a- s_up, x> + (c + <a+, t_low> + <a-, t_up>)
    region        min over it of <a, x>, plus c

Every backward bound consists of such forms: intervals merge them with the last layer, CROWN carries them to the input.
If both lines of every op have one slope, a lower and an upper bound have the same coefficients and differ only in the
constant: a form with an `upper_constant` carries both. A form whose coefficients are zero outside a window of an image
is a `WindowForm`, which needs less memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctbench.graph import Affine, Lines
from ctbench.regions import Region
from ctbench.regions.base import inner

MOST = 1e270  # the largest rounding error, about 10^-15 of an overflow: above it, sums may have overflowed


class Form(ABC):
    """<a, value of a node> + constant, for S forms of each of B samples: a lower bound of the form that it began as.

    With an `upper_constant`, <a, value of a node> + upper_constant is an upper bound of that form.
    """

    coefficients: Tensor

    @abstractmethod
    def __add__(self, other: Form) -> Form: ...

    @property
    @abstractmethod
    def count(self) -> int:
        """S, the number of forms per sample."""

    @abstractmethod
    def inside(self) -> Self:
        """The form with coefficients of 0 outside the node, i.e. beyond the edge of an image."""

    @abstractmethod
    def through(self, op: Affine) -> Form:
        """The same form, over the input of an affine op."""

    @abstractmethod
    def view(self, image: Tensor) -> Tensor:
        """The part of a tensor over the node where the form has coefficients, in a shape that broadcasts with them."""

    def relaxed(self, lines: Lines) -> Form:
        """A bound of the form, as a form over the input of an elementwise op, with lines [B, *node] around the op.

        With an `upper_constant`, the upper slopes must be the lower ones.
        """
        return self.between(Lines(*(None if line is None else self.view(line) for line in lines)))  # type: ignore[arg-type]

    @abstractmethod
    def between(self, lines: Lines) -> Form:
        """`relaxed` for lines in the shape of `view` or, with separate lines for each form, of the coefficients."""

    @abstractmethod
    def lowered(self, each: Tensor, unit: float, floor: Tensor) -> Form:
        """The form minus <|a|, each> + unit |constant| + floor, for `each` [B, *node] and `floor` [B, 1].

        The same amount is added to an `upper_constant`.
        """

    @abstractmethod
    def minimum(self, region: Region) -> Tensor:
        """The minimum of the form over a region, [B, S]."""

    @abstractmethod
    def maximum(self, region: Region) -> Tensor:
        """The maximum over a region of a form with an `upper_constant`, [B, S]."""

    @abstractmethod
    def with_upper_constant(self) -> Self:
        """The form, which is also an upper bound of itself."""

    @property
    @abstractmethod
    def width(self) -> int:
        """The number of coefficients of a form."""

    @abstractmethod
    def without_constant(self) -> Self:
        """The form with 0 for its constant, and for its `upper_constant` if it has one."""

    @abstractmethod
    def dense(self) -> LinearForm:
        """The form with all its coefficients."""


@dataclass(frozen=True, eq=False)
class LinearForm(Form):
    coefficients: Tensor  # [B, S, *node]
    constant: Tensor | float  # [B, S]
    upper_constant: Tensor | float | None = None  # [B, S]

    def __add__(self, other: Form) -> LinearForm:
        other = other.dense()
        upper = added(self.upper_constant, other.upper_constant)
        return LinearForm(self.coefficients + other.coefficients, self.constant + other.constant, upper)

    @property
    def count(self) -> int:
        return self.coefficients.shape[1]

    def inside(self) -> LinearForm:
        return self

    def through(self, op: Affine) -> LinearForm:
        return self.moved(op.adjoint(self.coefficients), op.offset(self.coefficients))

    def moved(self, coefficients: Tensor, offset: Tensor | float) -> LinearForm:
        """The form with other coefficients, and with an offset added to both constants."""
        return LinearForm(coefficients, self.constant + offset, added(self.upper_constant, offset))

    def view(self, image: Tensor) -> Tensor:
        return image.unsqueeze(1)

    def between(self, lines: Lines) -> LinearForm:
        return LinearForm(*relaxed_form(self.coefficients, lines, self.constant, self.upper_constant, _inner_product))

    def lowered(self, each: Tensor, unit: float, floor: Tensor) -> LinearForm:
        lost = inner(self.coefficients.detach().flatten(2).abs(), each.flatten(1)) + floor
        constant, upper = outward(self.constant, self.upper_constant, lost, unit)
        return replace(self, constant=constant, upper_constant=upper)

    def minimum(self, region: Region) -> Tensor:
        return region.minimum(self.coefficients) + self.constant

    def maximum(self, region: Region) -> Tensor:
        assert self.upper_constant is not None
        return self.upper_constant - region.minimum(-self.coefficients)

    def with_upper_constant(self) -> LinearForm:
        return replace(self, upper_constant=self.constant)

    @property
    def width(self) -> int:
        return self.coefficients[0, 0].numel()

    def without_constant(self) -> LinearForm:
        return replace(self, constant=0.0, upper_constant=None if self.upper_constant is None else 0.0)

    def dense(self) -> LinearForm:
        return self


def added(first: Tensor | float | None, second: Tensor | float | None) -> Tensor | float | None:
    """The sum of two constants; None if one of them is None."""
    return None if first is None or second is None else first + second


def outward(
    constant: Tensor | float, upper: Tensor | float | None, lost: Tensor, unit: float
) -> tuple[Tensor, Tensor | None]:
    """A lower and an upper constant, moved outward by `lost` and by `unit` times their absolute values."""

    def margin(of: Tensor | float) -> Tensor:
        total = lost + unit * (of.detach().abs() if isinstance(of, Tensor) else abs(of))
        return torch.where(total < MOST, total, torch.nan)  # NaN proves nothing

    return constant - margin(constant), None if upper is None else upper + margin(upper)


def relaxed_form(
    a: Tensor,
    lines: Lines,
    constant: Tensor | float,
    upper: Tensor | float | None,
    inner_product: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A form of f(z) relaxed to a form of z: its coefficients, its constant and its upper constant."""
    low, lower_offset, high, upper_offset = lines
    if upper is None and lower_offset is None and _expands(low, a) and _expands(high, a):
        coefficients, negative = RelaxedCoefficients.apply(a, low, high)  # type: ignore[no-untyped-call]
        return coefficients, constant + inner_product(negative, upper_offset), None
    negative = F.hardtanh(a, -math.inf, 0.0)  # clamp(max=0), whose gradient is slower
    constant = constant + inner_product(negative, upper_offset)
    positive = F.relu(a)
    if lower_offset is not None:
        constant = constant + inner_product(positive, lower_offset)
    if upper is None:
        return torch.addcmul(positive * low, negative, high), constant, None
    upper = upper + inner_product(positive, upper_offset)
    return a * low, constant, upper if lower_offset is None else upper + inner_product(negative, lower_offset)


def _expands(tensor: Tensor, like: Tensor) -> bool:
    """Whether a tensor of as many axes expands to the shape of another: samples and windows share no form."""
    return all(size in (1, wanted) for size, wanted in zip(tensor.shape, like.shape, strict=True))


class RelaxedCoefficients(torch.autograd.Function):
    """a+ low + a- high, and a-, in the shape of the coefficients a, to which the slopes broadcast.

    Autograd needs about twice as many passes over these tensors.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        negative, steeper = F.hardtanh(a, -math.inf, 0.0), high - low
        ctx.save_for_backward(a, low, negative, steeper)
        return torch.addcmul(a * low, negative, steeper), negative

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_both: Tensor, by_negative: Tensor) -> tuple[Tensor | None, ...]:
        # autograd sums the gradients of tensors that were broadcast
        (a, low, negative, steeper), wanted = ctx.saved_tensors, ctx.needs_input_grad
        by_a = by_low = by_high = None
        if wanted[0]:
            by_negative = torch.addcmul(by_negative, by_both, steeper)
            by_a = torch.ops.aten.hardtanh_backward(by_negative, a, -math.inf, 0.0).addcmul_(by_both, low)
        if wanted[1]:
            by_low = by_both * (a - negative)
        if wanted[2]:
            by_high = by_both * negative
        return by_a, by_low, by_high


def _inner_product(a: Tensor, offset: Tensor) -> Tensor:
    """<a, offset>: [B, S, *node] and [B, 1, *node] or [B, S, *node] to [B, S]."""
    if offset.shape[1] == 1 < a.shape[1]:  # a single form is faster without a product of matrices
        return (a.flatten(2) @ offset.flatten(1).unsqueeze(-1)).squeeze(-1)
    return (a * offset).flatten(2).sum(2)


def every_output(batch: int, outputs: int, like: Tensor) -> Tensor:
    """The specification with one form for each output, [B, K, K]."""
    return torch.eye(outputs, dtype=like.dtype, device=like.device).expand(batch, -1, -1)

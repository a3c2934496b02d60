"""Linear forms over a node of a graph, and how they travel back to the input.

    affine        <a, W x + b> + c  =  <W^T a, x> + (c + <a, b>)
    elementwise   <a, f(x)> + c    >=  <a+ s_low + a- s_up, x> + (c + <a+, t_low> + <a-, t_up>)
    region        min over it of <a, x>, plus c

Every backward bound is made of these: intervals merge them with the last layer, CROWN carries them to the input. A form
whose coefficients are zero but for a window of an image is a `WindowForm`, which is the same on less memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ctbench.graph import Affine, Lines
from ctbench.regions import Region


class Form(ABC):
    """<a, value of a node> + constant, for S forms of each of B samples."""

    @abstractmethod
    def __add__(self, other: Form) -> Form: ...

    @abstractmethod
    def through(self, op: Affine) -> Form:
        """The same form, over the input of an affine op."""

    @abstractmethod
    def relaxed(self, lines: Lines) -> Form:
        """A lower bound of the form, over the input of an elementwise op between these lines."""

    @abstractmethod
    def minimum(self, region: Region) -> Tensor:
        """Its least value over a region, [B, S]."""

    @property
    @abstractmethod
    def width(self) -> int:
        """How many coefficients a form has."""

    @abstractmethod
    def without_constant(self) -> Self:
        """The form with a constant of 0."""

    @abstractmethod
    def dense(self) -> LinearForm:
        """The form with all its coefficients."""


@dataclass(frozen=True, eq=False)
class LinearForm(Form):
    coefficients: Tensor  # [B, S, *node]
    constant: Tensor | float  # [B, S]

    def __add__(self, other: Form) -> LinearForm:
        other = other.dense()
        return LinearForm(self.coefficients + other.coefficients, self.constant + other.constant)

    def through(self, op: Affine) -> LinearForm:
        return LinearForm(op.adjoint(self.coefficients), self.constant + op.offset(self.coefficients))

    def relaxed(self, lines: Lines) -> LinearForm:
        positive, negative = self.coefficients.clamp(min=0), self.coefficients.clamp(max=0)
        coefficients = positive * lines.lower_slope.unsqueeze(1)
        coefficients = torch.addcmul(coefficients, negative, lines.upper_slope.unsqueeze(1))
        constant = self.constant + _inner_product(negative, lines.upper_offset)
        if lines.lower_offset is not None:
            constant = constant + _inner_product(positive, lines.lower_offset)
        return LinearForm(coefficients, constant)

    def minimum(self, region: Region) -> Tensor:
        return region.minimum(self.coefficients) + self.constant

    @property
    def width(self) -> int:
        return self.coefficients[0, 0].numel()

    def without_constant(self) -> LinearForm:
        return replace(self, constant=0.0)

    def dense(self) -> LinearForm:
        return self


def _inner_product(a: Tensor, offset: Tensor) -> Tensor:
    """<a, offset>: [B, S, *node] and [B, *node] to [B, S]."""
    return (a.flatten(2) @ offset.flatten(1).unsqueeze(-1)).squeeze(-1)


def every_output(batch: int, outputs: int, like: Tensor) -> Tensor:
    """The specification that asks for each output itself, [B, K, K]."""
    return torch.eye(outputs, dtype=like.dtype, device=like.device).expand(batch, -1, -1)

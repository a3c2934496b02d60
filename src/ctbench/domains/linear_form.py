"""Linear forms over a node of a graph, and how an affine op carries them to its input.

    <a, W x + b> + c  =  <W^T a, x> + (c + <a, b>)

Every backward bound is made of these: intervals merge them with the last layer, CROWN carries them to the input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ctbench.graph import Affine
from ctbench.regions import Region


@dataclass(frozen=True, eq=False)
class LinearForm:
    """<coefficients, value of a node> + constant, for S forms of each of B samples."""

    coefficients: Tensor  # [B, S, *node]
    constant: Tensor | float  # [B, S]

    def __add__(self, other: LinearForm) -> LinearForm:
        return LinearForm(self.coefficients + other.coefficients, self.constant + other.constant)

    def through(self, op: Affine) -> LinearForm:
        """The same form, over the input of an affine op."""
        return LinearForm(op.adjoint(self.coefficients), self.constant + op.offset(self.coefficients))

    def minimum(self, region: Region) -> Tensor:
        """Its least value over a region, [B, S]."""
        return region.minimum(self.coefficients) + self.constant


def every_output(batch: int, outputs: int, like: Tensor) -> Tensor:
    """The specification that asks for each output itself, [B, K, K]."""
    return torch.eye(outputs, dtype=like.dtype, device=like.device).expand(batch, -1, -1)

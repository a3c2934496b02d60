"""The product of two values of the network, entry by entry.

For x in [x_l, x_u] and y in [y_l, y_u], with any p and q,

    x y  >=  p x + q y + t        t = min (x y - p x - q y), which a corner of the rectangle attains

With p = y_l + s (y_u - y_l) and q = x_l + s (x_u - x_l) these are, for s = 0 and s = 1, the planes of McCormick 1976,
"Computability of global solutions to factorable nonconvex programs", and for other s planes between them; above, q has
the share 1 - s. A product of matrices is a product of entries, and sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ctbench.graph.ops.base import Lines, Op, Shape


class Planes(NamedTuple):
    """Planes around a function of two values: lines over the first one, with the offsets, and over the second one."""

    first: Lines
    second: Lines


@dataclass(frozen=True)
class Product(Op):
    """x y, entry by entry, for two values of the same shape. Bounds are tensors that broadcast together."""

    relaxed: ClassVar[bool] = True

    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * inputs[1]

    def shape(self, *inputs: Shape) -> Shape:
        if inputs[0] != inputs[1]:
            raise ValueError(f"a product needs values of the same shape, got {inputs[0]} and {inputs[1]}: expand one")
        return inputs[0]

    def image(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The smallest and the largest product, for lower and upper ends of both factors."""
        return _extremes([x * y for x in first for y in second])

    def extremes(
        self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], p: Tensor, q: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value of x y - p x - q y."""
        return _extremes([x * y - p * x - q * y for x in first for y in second])

    def planes(
        self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], low: Tensor | float, high: Tensor | float
    ) -> Planes:
        """Planes around x y, at a share of the way from one plane of McCormick to the other: `low` below, `high` above.

        Both planes have the same slopes for the shares 1/2.
        """
        (x, x_width), (y, y_width) = ((lower, upper - lower) for lower, upper in (first, second))
        below = y + low * y_width, x + low * x_width
        above = y + high * y_width, x + (1 - high) * x_width
        least = self.extremes(first, second, *below)[0]
        greatest = self.extremes(first, second, *above)[1]
        return Planes(
            Lines(below[0], least, above[0], greatest), Lines(below[1], None, above[1], torch.zeros_like(greatest))
        )


def _extremes(values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The smallest and the largest of four values; NaN if one of them is NaN."""
    first, second, third, fourth = values
    least = torch.minimum(torch.minimum(first, second), torch.minimum(third, fourth))
    return least, torch.maximum(torch.maximum(first, second), torch.maximum(third, fourth))

"""Affine maps along one axis: sums, cumulative sums, differences, interpolation, means of windows.

A map that treats axes one after the other, such as a bilinear resize or an average pooling, is one such op per axis.
Its weights are the fractions of the definition, rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ctbench.graph.ops.base import Affine, Op, Shape

Weights = Sequence[dict[int, Fraction]]  # for each output, the weights of inputs by their places


@dataclass(frozen=True, eq=False)
class AlongAxis(Affine):
    """y = M x along one axis of a sample, for a constant matrix M."""

    weight: Tensor  # [out, in]
    dim: int  # of the shape without the batch
    rises: bool = False  # whether it is known that no weight is negative

    @classmethod
    def of(cls, weights: Weights, size: int, dim: int) -> AlongAxis:
        """The map with these weights, of inputs with `size` entries along the axis."""
        matrix = torch.zeros(len(weights), size, dtype=torch.float64)
        for row, terms in zip(matrix, weights, strict=True):
            row[list(terms)] = torch.tensor([float(weight) for weight in terms.values()], dtype=torch.float64)
        return cls(matrix, dim, rises=all(weight >= 0 for terms in weights for weight in terms.values()))

    def _along(self, x: Tensor, weight: Tensor, dim: int) -> Tensor:
        return (x.movedim(dim, -1) @ weight.T).movedim(-1, dim)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self._along(x, self.weight, self.dim + 1)

    def linear(self, x: Tensor) -> Tensor:
        return self(x)

    def magnitude(self, r: Tensor) -> Tensor:
        return self._along(r, self.weight.abs(), self.dim + 1)

    def adjoint(self, a: Tensor) -> Tensor:
        return self._along(a, self.weight.T, self.dim + 2)

    def offset(self, a: Tensor) -> Tensor | float:
        return 0.0

    def shape(self, *inputs: Shape) -> Shape:
        (shape,), (out, size) = inputs, self.weight.shape
        if not 0 <= self.dim < len(shape) or shape[self.dim] != size:
            raise ValueError(f"the map takes {size} entries along axis {self.dim}, its input has shape {shape}")
        return (*shape[: self.dim], out, *shape[self.dim + 1 :])


@dataclass(frozen=True, eq=False)
class Given(Affine):
    """A constant as a value of the network: the map x -> 0 x + value."""

    value: Tensor
    input_shape: Shape

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.value.expand(len(x), *self.value.shape)

    def linear(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), *self.value.shape)

    def magnitude(self, r: Tensor) -> Tensor:
        return self.linear(r)

    def adjoint(self, a: Tensor) -> Tensor:
        return a.new_zeros(*a.shape[:2], *self.input_shape)

    def offset(self, a: Tensor) -> Tensor | float:
        return (a * self.value).flatten(2).sum(2)

    def shape(self, *inputs: Shape) -> Shape:
        return tuple(self.value.shape)


# ---------------------------------------------------------------------------------------------------- the maps


def total(size: int) -> Weights:
    """The sum."""
    return [dict.fromkeys(range(size), Fraction(1))]


def cumulative(size: int) -> Weights:
    """The sums of the first 1, 2, ... entries."""
    return [dict.fromkeys(range(last + 1), Fraction(1)) for last in range(size)]


def centred(size: int) -> Weights:
    """The difference of each entry from the mean."""
    return [{place: Fraction(int(place == row)) - Fraction(1, size) for place in range(size)} for row in range(size)]


def differences(size: int) -> Weights:
    """The differences x_j - x_i, for i and j = 0, 1, ...: [size x size]."""
    return [{} if i == j else {j: Fraction(1), i: Fraction(-1)} for i in range(size) for j in range(size)]


def interpolated(size: int, count: int, scale: Fraction, *, align_corners: bool = False) -> Weights:
    """Linear interpolation at `count` places; `scale` is the distance of neighbouring places.

    The first place is 0 with `align_corners`, and otherwise (scale - 1) / 2; places beyond the ends are moved to them.
    """
    places = (
        part * scale if align_corners else (part + Fraction(1, 2)) * scale - Fraction(1, 2) for part in range(count)
    )
    rows = list[dict[int, Fraction]]()
    for place in (min(max(at, Fraction(0)), Fraction(size - 1)) for at in places):
        first = math.floor(place)
        rows.append({at: weight for at, weight in ((first, first + 1 - place), (first + 1, place - first)) if weight})
    return rows


CUBIC = Fraction(-3, 4)  # torch's coefficient of cubic interpolation


def resampled(
    places: Sequence[Fraction], size: int, *, cubic: Fraction | None = None, inside: bool = False
) -> list[dict[int, Fraction]]:
    """Interpolation at some places of a side, which is continued beyond its ends by its outermost entries.

    It is linear or, with the coefficient `cubic`, that of Keys 1981, "Cubic convolution interpolation for digital image
    processing". With `inside`, entries beyond the ends have the weight 0, and the others sum up to 1.
    """
    rows = list[dict[int, Fraction]]()
    for place in places:
        first, row = math.floor(place), dict[int, Fraction]()
        for at in range(first - 1, first + 3):
            weight = _weight(abs(place - at), cubic)
            if inside and not 0 <= at < size:
                continue
            entry = min(max(at, 0), size - 1)
            row[entry] = row.get(entry, Fraction(0)) + weight
        whole = sum(row.values()) if inside else Fraction(1)
        rows.append({at: weight / whole for at, weight in row.items() if weight})
    return rows


def _weight(distance: Fraction, cubic: Fraction | None) -> Fraction:
    """The weight of an entry in this distance."""
    if cubic is None:
        return max(1 - distance, Fraction(0))
    if distance <= 1:
        return (cubic + 2) * distance**3 - (cubic + 3) * distance**2 + 1
    return cubic * (distance**3 - 5 * distance**2 + 8 * distance - 4) if distance < 2 else Fraction(0)


def window_means(size: int, count: int, kernel: int, stride: int, padding: int, *, padded: bool) -> Weights:
    """The means of windows: with `padded`, zeros of the padding count as entries, but not what lies beyond it."""
    rows = list[dict[int, Fraction]]()
    for part in range(count):
        begin = part * stride - padding
        end = min(begin + kernel, size + padding)
        inside = range(max(begin, 0), min(end, size))
        rows.append(dict.fromkeys(inside, Fraction(1, end - begin if padded else len(inside))))
    return rows


def along(maps: Sequence[tuple[int, Weights]], shape: Shape) -> tuple[Op, ...]:
    """Maps along axes, one after the other, for values of this shape."""
    ops = list[Op]()
    for dim, weights in maps:
        op = AlongAxis.of(weights, shape[dim], dim)
        ops.append(op)
        shape = op.shape(shape)
    return tuple(ops)

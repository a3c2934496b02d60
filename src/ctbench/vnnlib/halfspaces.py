"""Half-spaces in exact arithmetic: rows of rational numbers, and the nearest float64 tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class Row(NamedTuple):
    """<coefficients, y> + offset <= 0, or < 0, in rational numbers."""

    coefficients: tuple[tuple[int, Fraction], ...]  # (index, value) of the coefficients that are not 0
    offset: Fraction
    strict: bool = False

    def contains(self, outputs: Sequence[float | Fraction]) -> bool:
        value = sum((weight * Fraction(outputs[k]) for k, weight in self.coefficients), self.offset)
        return value < 0 or (value == 0 and not self.strict)

    @property
    def never(self) -> bool:
        """Whether it contains no outputs, because it does not depend on them and its offset excludes all."""
        return not self.coefficients and not self.contains(())

    def scaled(self, width: int) -> tuple[list[float], float]:
        """Coefficients [K] and an offset in float64, for a multiple of the row; the offset is rounded downward.

        The coefficients are exact if some multiple has exact ones: 0.1 and 0.3 are not exact in float64, 1 and 3 are.
        """
        factor, values = Fraction(1), [weight for _, weight in self.coefficients]
        if any(Fraction(float(value)) != value for value in values):
            whole = math.lcm(*(value.denominator for value in values))
            most = max(map(abs, values))
            if most * whole < 2**53:
                factor = Fraction(whole, 2 ** whole.bit_length())  # near 1, because bounds are reported in this unit
            if most < Fraction(2) ** -900:  # too small for all of its digits
                most = max(most, abs(self.offset))
                factor *= Fraction(2) ** (most.denominator.bit_length() - most.numerator.bit_length())
        row = [0.0] * width
        for place, weight in self.coefficients:
            row[place] = float(weight * factor)
        return row, greatest_double_below(self.offset * factor)


@dataclass(frozen=True, eq=False)
class Halfspaces:
    """All outputs y with A y + b <= 0 in every row, or < 0 if the row is strict.

    Raises:
        ValueError: there is no row, shapes do not fit, or numbers are not finite float64.
    """

    rows: Tensor  # A, [m, K]
    offsets: Tensor  # b, [m]
    strict: Tensor | None = None  # whether each row excludes its edge, [m]; None if no row does
    exact: tuple[Row, ...] | None = None  # the rows before rounding; None if A and b are exact

    def __post_init__(self) -> None:
        if self.rows.dim() != 2 or not len(self.rows) or self.offsets.shape != self.rows.shape[:1]:
            raise ValueError(
                f"rows are {list(self.rows.shape)} and offsets {list(self.offsets.shape)}: give [m, K] and [m], m >= 1"
            )
        check_numbers(self.rows, self.offsets)
        if self.strict is not None and (self.strict.shape != self.offsets.shape or self.strict.dtype != torch.bool):
            raise ValueError(f"strict is {self.strict.dtype} {list(self.strict.shape)}: give a bool for each row, [m]")

    @cached_property
    def comparisons(self) -> tuple[Row, ...]:
        """The rows in rational numbers."""
        if self.exact is not None:
            return self.exact
        strict = [False] * len(self.rows) if self.strict is None else self.strict.tolist()
        return tuple(
            Row(tuple((k, Fraction(value)) for k, value in enumerate(row) if value != 0), Fraction(offset), edge)
            for row, offset, edge in zip(self.rows.tolist(), self.offsets.tolist(), strict, strict=True)
        )

    @cached_property
    def never(self) -> bool:
        """Whether a row that does not depend on the outputs excludes them all."""
        return any(row.never for row in self.comparisons)

    def margins(self) -> tuple[Tensor, Tensor]:
        """Rows [m, K] and offsets [m] in float64: if a row is positive, so is the exact row.

        This holds except for the rounding of coefficients that have no exact multiple in float64.
        """
        if self.exact is None:
            return self.rows, self.offsets
        rows, offsets = zip(*(row.scaled(self.rows.shape[1]) for row in self.exact), strict=True)
        return torch.tensor(rows, dtype=torch.float64), torch.tensor(offsets, dtype=torch.float64)

    def around(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [m, n] and offsets [m] in float64 that contain all exact points of a box that lie in it.

        The offsets are lower than the exact ones by what the rounding of coefficients changes in the box, [n] each.
        """
        sizes = torch.maximum(lower.abs(), upper.abs()).tolist()
        offsets = []
        for row in self.comparisons:
            errors = (abs(Fraction(float(weight)) - weight) * Fraction(sizes[i]) for i, weight in row.coefficients)
            offsets.append(greatest_double_below(row.offset - sum(errors, Fraction(0))))
        return self.rows, torch.tensor(offsets, dtype=torch.float64)

    def is_near(self, point: Tensor, tolerance: float) -> bool:
        """Whether a point [n] satisfies all rows up to what moves of its coordinates by the tolerance change."""
        excess = self.rows @ point.to(self.rows) + self.offsets
        return bool((excess <= tolerance * self.rows.abs().sum(1)).all())

    def contains(self, outputs: Tensor) -> Tensor:
        """Whether outputs lie in it: [..., K] to [...], decided exactly; False for NaN and infinite outputs."""
        outputs = outputs.detach().to(self.rows)
        finite = torch.isfinite(outputs).all(-1)
        values, largest = outputs @ self.rows.T + self.offsets, outputs.abs() @ self.rows.abs().T + self.offsets.abs()
        # the rounding of the rows and of sums in any order, and a term for numbers below the range of float64
        error = (outputs.shape[-1] + 4) * 2.0**-52 * largest + 1e-300 * (1 + outputs.abs().sum(-1, keepdim=True))
        inside = values < 0
        for place in (~(values.abs() > error) & finite.unsqueeze(-1)).nonzero().tolist():
            *sample, row = place
            inside[tuple(place)] = self.comparisons[row].contains(outputs[tuple(sample)].tolist())
        return inside.all(-1) & finite

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Halfspaces):
            return NotImplemented
        edges = [[row.strict for row in one.comparisons] for one in (self, other)]
        same = torch.equal(self.rows, other.rows) and torch.equal(self.offsets, other.offsets)
        return same and edges[0] == edges[1]


def next_double(number: float, direction: int) -> float:
    """The next float64 number."""
    return math.nextafter(number, direction * math.inf) + 0.0  # never -0.0


def greatest_double_below(number: Fraction) -> float:
    """The greatest float64 number <= `number`."""
    nearest = float(number)
    return nearest if Fraction(nearest) <= number else next_double(nearest, -1)


def check_numbers(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float64 or not bool(torch.isfinite(tensor).all()):
            raise ValueError("the numbers of a property must be finite, and in float64")

"""The content of a VNN-LIB file: input boxes, and half-spaces that must not contain the outputs for these inputs.

The numbers of a file are rational: 0.1 + 0.2 - 0.3 is 0. Float64 tensors hold the nearest numbers. The exact rows are
kept with them, and two boxes of float64 numbers: one around the file's box, and one inside it. So a proof covers the
file's whole box, and whether a float64 point is a counterexample is decided exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ctbench.specification import check_labels, margin_rows


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
        _check_numbers(self.rows, self.offsets)
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


@dataclass(frozen=True, eq=False)
class RealBox:
    """A box whose bounds may not be float64 numbers, or may not belong to it, described by float64 numbers."""

    around: tuple[Tensor, Tensor]  # the corners of the smallest box around it, [n] each
    # the least and the greatest number in it, [n] each; if an input has no such number, the first is the greater one
    inside: tuple[Tensor, Tensor]
    empty: bool  # whether an input has no real number between its bounds


@dataclass(frozen=True, eq=False)
class Case:
    """One input box, and the alternatives that must not contain an output for it.

    The property holds for the case iff, for each alternative and every x in the box, some row has A y + b > 0, or = 0
    if the row is strict.

    Raises:
        ValueError: the box is empty, there is no alternative, or shapes or dtypes differ from those below.
    """

    lower: Tensor  # [n] float64, in C order of the input's shape
    upper: Tensor  # [n] float64
    unsafe: tuple[Halfspaces, ...]
    real: RealBox | None = None  # the box before rounding; None if lower and upper are exact

    def __post_init__(self) -> None:
        if self.lower.dim() != 1 or self.lower.shape != self.upper.shape:
            raise ValueError(f"lower is {list(self.lower.shape)}, upper {list(self.upper.shape)}: both must be [n]")
        _check_numbers(self.lower, self.upper)
        empty = (self.lower > self.upper).nonzero()
        if len(empty):
            raise ValueError(f"the box is empty: lower > upper at input {int(empty[0])}")
        if not self.unsafe:
            raise ValueError("unsafe has no alternatives: a case needs at least one")

    @property
    def empty(self) -> bool:
        """Whether no input lies in the box, e.g. for `x < 1 and x >= 1`."""
        return self.real is not None and self.real.empty

    @property
    def around(self) -> tuple[Tensor, Tensor]:
        """The corners of a box of float64 numbers that contains all inputs, [n] each."""
        return (self.lower, self.upper) if self.real is None else self.real.around

    @property
    def rounded(self) -> bool:
        """Whether some input has no float64 number between its bounds, so that the nearest number is used instead."""
        return self.real is not None and bool((self.real.inside[0] > self.real.inside[1]).any())

    def nearest(self, x: Tensor) -> Tensor:
        """The nearest float64 inputs of the box, [..., n] to [..., n].

        If no float64 number lies between the bounds of an input, it is the number nearest to the lower bound.
        """
        lower, upper = (corner.to(x.device) for corner in self._inside)
        return torch.minimum(torch.maximum(x, lower), upper)

    @property
    def _inside(self) -> tuple[Tensor, Tensor]:
        if self.real is None:
            return self.lower, self.upper
        lower, upper = self.real.inside
        return torch.where(lower > upper, self.lower, lower), torch.where(lower > upper, self.lower, upper)

    def includes(self, x: Tensor, *, tolerance: float = 0.0) -> bool:
        """Whether an input [n] lies in the box, decided exactly, or outside by at most the tolerance."""
        if self.empty:
            return False
        if tolerance == 0:
            return torch.equal(self.nearest(x), x)
        return bool(((self.lower - tolerance <= x) & (x <= self.upper + tolerance)).all())

    def violated(self, outputs: Tensor) -> Tensor:
        """Whether outputs are unsafe: [..., K] to [...], decided exactly. Inputs do not matter here."""
        return torch.stack([alternative.contains(outputs) for alternative in self.unsafe]).any(0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Case):
            return NotImplemented
        boxes = torch.equal(self.lower, other.lower) and torch.equal(self.upper, other.upper)
        return boxes and self.empty == other.empty and self.unsafe == other.unsafe


@dataclass(frozen=True)
class Property:
    """The statement that no input in the box of a case has an unsafe output.

    Raises:
        ValueError: there is no case, or a case has other sizes.
    """

    inputs: int  # n
    outputs: int  # K
    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        if not self.cases:
            raise ValueError("a property needs at least one case")
        for case in self.cases:
            widths = {alternative.rows.shape[1] for alternative in case.unsafe}
            if len(case.lower) != self.inputs or widths != {self.outputs}:
                raise ValueError(
                    f"a case has {len(case.lower)} inputs and rows of {sorted(widths)} outputs; the property has "
                    f"{self.inputs} and {self.outputs}"
                )

    def is_counterexample(self, x: Tensor, y: Tensor, *, tolerance: float = 0.0) -> bool:
        """Whether the input x with the network's output y violates the property, decided in rational numbers.

        If no float64 number satisfies the bounds of an input, e.g. if it must be 0.1, the nearest number is accepted.

        Args:
            x: n numbers in any shape, read in C order.
            y: K numbers in any shape.
            tolerance: how far each input may be outside of its bounds; if > 0, strict bounds count like others.

        Raises:
            ValueError: x or y has another count of numbers.
        """
        if (x.numel(), y.numel()) != (self.inputs, self.outputs):
            raise ValueError(
                f"x has {x.numel()} numbers and y {y.numel()}: the property has {self.inputs} inputs and "
                f"{self.outputs} outputs"
            )
        x, y = x.detach().cpu().double().flatten(), y.detach().cpu().flatten()
        return any(case.includes(x, tolerance=tolerance) and bool(case.violated(y)) for case in self.cases)


def robustness(lower: Tensor, upper: Tensor, y: int, classes: int) -> Property:
    """The property that class y wins everywhere in the box: unsafe is y_y - y_k <= 0, for k != y in ascending order.

    Args:
        lower: the lower corner, n numbers in the space of the network's input; of at most three dimensions, or a
            batch of one. It is kept exactly, as float64.
        upper: the upper corner, likewise.
        y: the class.
        classes: the number of classes, two or more.

    Raises:
        ValueError: the box is empty, there are several inputs, y is not a class, or there are fewer than two classes.
    """
    wrong = next((corner for corner in (lower, upper) if not isinstance(corner, Tensor)), None)
    if wrong is not None:
        raise ValueError(f"a corner of the box is a {type(wrong).__name__}: give torch tensors")
    if lower.dim() > 3 and len(lower) != 1:
        raise ValueError(f"lower has the shape {list(lower.shape)}, a batch of {len(lower)}: a property has one input")
    if classes < 2:
        raise ValueError(f"classes is {classes}: robustness needs two classes or more")
    label = torch.tensor([y])
    check_labels(label, classes)
    zero = torch.zeros(1, dtype=torch.float64)
    unsafe = tuple(Halfspaces(row.unsqueeze(0), zero) for row in margin_rows(label, classes, torch.float64)[0])
    lower, upper = (corner.detach().cpu().double().flatten() for corner in (lower, upper))
    return Property(len(lower), classes, (Case(lower, upper, unsafe),))


def next_double(number: float, direction: int) -> float:
    """The next float64 number."""
    return math.nextafter(number, direction * math.inf) + 0.0  # never -0.0


def greatest_double_below(number: Fraction) -> float:
    """The greatest float64 number <= `number`."""
    nearest = float(number)
    return nearest if Fraction(nearest) <= number else next_double(nearest, -1)


def _check_numbers(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float64 or not bool(torch.isfinite(tensor).all()):
            raise ValueError("the numbers of a property must be finite, and in float64")

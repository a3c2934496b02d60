"""The content of a VNN-LIB file: input boxes, and half-spaces that must not contain the outputs for these inputs.

The numbers of a file are rational: 0.1 + 0.2 - 0.3 is 0. Float64 tensors hold the nearest numbers. The exact rows are
kept with them, and two boxes of float64 numbers: one around the file's box, and one inside it. So a proof covers the
file's whole box, and whether a float64 point is a counterexample is decided exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ctbench.specification import check_labels, margin_rows
from ctbench.vnnlib.halfspaces import Halfspaces, check_numbers
from ctbench.vnnlib.repairing import repaired
from ctbench.vnnlib.variables import Network


@dataclass(frozen=True, eq=False)
class RealBox:
    """A box whose bounds may not be float64 numbers, or may not belong to it, described by float64 numbers."""

    around: tuple[Tensor, Tensor]  # the corners of the smallest box around it, [n] each
    # the least and the greatest number in it, [n] each; if an input has no such number, the first is the greater one
    inside: tuple[Tensor, Tensor]
    empty: bool  # whether an input has no real number between its bounds


@dataclass(frozen=True, eq=False)
class Case:
    """A set of inputs, and the alternatives that must not contain an output for it.

    The inputs are those of a box, with G x + h <= 0 if there are constraints. The property holds for the case iff, for
    each alternative and every such x, some row has A y + b > 0, or = 0 if the row is strict. The rows of an alternative
    with K + n columns are over the outputs followed by the inputs, (y, x).

    Raises:
        ValueError: the box is empty, there is no alternative, or shapes or dtypes differ from those below.
    """

    lower: Tensor  # [n] float64, in C order of the input's shape
    upper: Tensor  # [n] float64
    unsafe: tuple[Halfspaces, ...]
    real: RealBox | None = None  # the box before rounding; None if lower and upper are exact
    constraints: Halfspaces | None = None  # rows over the inputs, which all inputs satisfy; None for the whole box

    def __post_init__(self) -> None:
        if self.lower.dim() != 1 or self.lower.shape != self.upper.shape:
            raise ValueError(f"lower is {list(self.lower.shape)}, upper {list(self.upper.shape)}: both must be [n]")
        check_numbers(self.lower, self.upper)
        empty = (self.lower > self.upper).nonzero()
        if len(empty):
            raise ValueError(f"the box is empty: lower > upper at input {int(empty[0])}")
        if not self.unsafe:
            raise ValueError("unsafe has no alternatives: a case needs at least one")
        if self.constraints is not None and self.constraints.rows.shape[1] != len(self.lower):
            raise ValueError(
                f"constraints has rows of {self.constraints.rows.shape[1]} inputs, the box has {len(self.lower)}: give "
                f"rows over the inputs"
            )

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
        """The nearest float64 inputs of the box, [..., n] to [..., n]; constraints do not count.

        If no float64 number lies between the bounds of an input, it is the number nearest to the lower bound.
        """
        lower, upper = (corner.to(x.device) for corner in self.inside)
        return torch.minimum(torch.maximum(x, lower), upper)

    def constrained(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points of the box, [B, n], moved by about their rounding errors, and whether they satisfy the constraints.

        Whether they do, [B], is decided exactly.
        """
        if self.constraints is None:
            return points, torch.ones_like(points[:, 0], dtype=torch.bool)
        lower, upper = (corner.tolist() for corner in self.inside)
        moved = [repaired(point, lower, upper, self.constraints.comparisons) for point in points.tolist()]
        points = points.new_tensor(moved).view_as(points)
        return points, self.constraints.contains(points.cpu()).to(points.device)

    @property
    def inside(self) -> tuple[Tensor, Tensor]:
        """The corners of the largest box of float64 numbers in it, [n] each; where there is none, the lower bound."""
        if self.real is None:
            return self.lower, self.upper
        lower, upper = self.real.inside
        return torch.where(lower > upper, self.lower, lower), torch.where(lower > upper, self.lower, upper)

    def includes(self, x: Tensor, *, tolerance: float = 0.0) -> bool:
        """Whether an input [n] lies in the box and satisfies the constraints, decided exactly.

        With a tolerance each input may lie outside of the box by that much, and the rows of the constraints may be
        violated by what such a move changes.
        """
        if self.empty:
            return False
        if tolerance == 0:
            return torch.equal(self.nearest(x), x) and (self.constraints is None or bool(self.constraints.contains(x)))
        inside = bool(((self.lower - tolerance <= x) & (x <= self.upper + tolerance)).all())
        return inside and (self.constraints is None or self.constraints.is_near(x, tolerance))

    def violated(self, outputs: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Whether outputs are unsafe, [..., K] to [...], decided exactly.

        The inputs, [..., n], count only in rows over outputs and inputs.
        """
        return torch.stack([one.contains(self._columns(one, outputs, inputs)) for one in self.unsafe]).any(0)

    def _columns(self, one: Halfspaces, outputs: Tensor, inputs: Tensor | None) -> Tensor:
        """What the columns of an alternative belong to."""
        if one.rows.shape[1] == outputs.shape[-1]:
            return outputs
        if inputs is None:
            raise ValueError("a row is about inputs and outputs: give both")
        return torch.cat([outputs.double(), inputs.to(outputs.device).double()], dim=-1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Case):
            return NotImplemented
        boxes = torch.equal(self.lower, other.lower) and torch.equal(self.upper, other.upper)
        same = self.empty == other.empty and self.constraints == other.constraints
        return boxes and same and self.unsafe == other.unsafe


@dataclass(frozen=True)
class Property:
    """The statement that no input of a case has an unsafe output.

    If a query of VNN-LIB 2.0 declares several networks, the inputs are those of all networks, one after the other, and
    so are the outputs.

    Raises:
        ValueError: there is no case, or a case has other sizes.
    """

    inputs: int  # n
    outputs: int  # K
    cases: tuple[Case, ...]
    networks: tuple[Network, ...] = ()  # those that a query of VNN-LIB 2.0 declares

    def __post_init__(self) -> None:
        if not self.cases:
            raise ValueError("a property needs at least one case")
        for case in self.cases:
            widths = {alternative.rows.shape[1] for alternative in case.unsafe}
            if len(case.lower) != self.inputs or not widths <= {self.outputs, self.outputs + self.inputs}:
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
        return any(case.includes(x, tolerance=tolerance) and bool(case.violated(y, x)) for case in self.cases)


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

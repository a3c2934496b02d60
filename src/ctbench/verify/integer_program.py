"""A network over a box as a mixed-integer program. Tjeng et al. 2019, "Evaluating robustness of neural networks with
mixed integer programming", section 4 and appendix A.

    minimise <c, output>  over  the input in its box, and for each maximum z = max_i x_i of l_i <= x_i <= u_i

    x_i - z + t_i = 0,   0 <= t_i <= r_i = max over j != i of u_j - l_i,   sum_i t_i / r_i <= n - 1,   some t_i is 0

The choice of the t_i that is 0 takes the place of the integers in the paper; without it the program is linear, and for
two entries the last row is the upper edge of the triangle. A ReLU is the maximum of x and 0; for the entry 0, t is z
itself. A function of several straight pieces is a line plus a multiple of max(0, x - k) for each kink k. Only entries
that the bounds of the pre-activations (`inner`) leave open have columns. Everything else is linear, and is carried back
to the columns before it in the way of CROWN.

**Rounding.** The program contains the network on its stored weights in exact arithmetic, given rigorous inner boxes.
So each entry is x_i = <row, columns> + offset with an offset between two numbers: the constant and the upper constant
of a form that is rounded outward on its way back (`domains.rounding`). Each rounding of this module widens the offset
by u = 2^-53 times the sum of all |terms| (`TWICE_UNIT`, which covers the products of errors). Differences of bounds are
rounded outward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.domains import backward, rounding
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.rounding import Losses
from ctbench.graph import Graph, Node
from ctbench.graph.ops import Max, PiecewiseLinear
from ctbench.regions import Box, Region
from ctbench.verify.linear_program import TINY, TWICE_UNIT, Indices, LinearProgram, Vector


@dataclass(frozen=True, eq=False)
class Choices:
    """The linear program, scaled, and the choices of the integer program: one slack of each maximum must be 0."""

    linear: LinearProgram
    base: Vector  # [N + Z]: an input or a maximum is its base plus its scale times its column
    scale: Vector  # [columns]
    maximum: Indices  # [E], ascending: the maximum that each entry belongs to
    slack: Indices  # [E]: the column that is 0 where the entry is the greatest
    chord: Indices  # [Z]: the row that bounds a maximum from above

    @property
    def count(self) -> int:
        """Z, the number of maxima."""
        return len(self.chord)


@dataclass(frozen=True, eq=False)
class _Lowered:
    """f(x) = <slope, x> + offset + sum of weight z for each output; its open entries have columns z."""

    slope: Tensor  # [*node], of a maximum [n, *node]
    offset: Tensor | float
    columns: tuple[tuple[float, Tensor, int], ...] = ()  # weight, open [*node] bool, and the first of their columns
    error: Tensor | float = 0.0  # of a coefficient of 1 times the right side, over the bounds of x


@dataclass(frozen=True, eq=False)
class _Rows:
    """x = <rows, columns> + an offset between `low` and `high`, for S quantities."""

    rows: Tensor  # [S, N + Z]
    low: Tensor  # [S]
    high: Tensor  # [S]

    def minus(self, number: float) -> _Rows:
        """The quantities minus a number."""
        return _Rows(self.rows, _down(self.low - number), _up(self.high - number)) if number else self

    def and_zeros(self) -> _Rows:
        """The quantities, followed by as many zeros: the entries of ReLUs."""
        return _Rows(_and_zeros(self.rows), _and_zeros(self.low), _and_zeros(self.high))


@dataclass(frozen=True, eq=False)
class _Maxima:
    """Columns z = max_i x_i of entries x_i; they follow the columns of the input."""

    least: Tensor  # [Z], a lower bound of each z
    greatest: Tensor  # [Z]
    z: Tensor  # [E]: the column that each entry belongs to
    entries: _Rows  # [E]
    reach: Tensor  # [E]: z - x_i is not above this

    @classmethod
    def empty(cls, inputs: int) -> _Maxima:
        nothing = torch.empty(0, dtype=torch.float64)
        return cls(nothing, nothing, nothing.long(), _Rows(nothing.view(0, inputs), nothing, nothing), nothing)

    @property
    def columns(self) -> int:
        """N + Z."""
        return self.entries.rows.shape[1]

    def and_of(self, lower: Tensor, upper: Tensor, entries: _Rows, keep: Tensor | None = None) -> _Maxima:
        """With Z more maxima, of n entries each: bounds [n, Z], and rows for the entries that are kept, [n, Z] bool."""
        keep = torch.ones_like(lower, dtype=torch.bool) if keep is None else keep
        first, second = upper.topk(2, dim=0).values
        others = torch.where(upper == first, second, first)
        mine, count = self.entries, lower.shape[1]
        return _Maxima(
            torch.cat([self.least, lower.amax(0)]),
            torch.cat([self.greatest, first]),
            torch.cat([self.z, self.columns + keep.nonzero()[:, 1]]),
            _Rows(
                torch.cat(
                    [
                        F.pad(mine.rows, (0, count)),
                        F.pad(entries.rows, (0, self.columns + count - entries.rows.shape[1])),
                    ]
                ),
                torch.cat([mine.low, entries.low]),
                torch.cat([mine.high, entries.high]),
            ),
            torch.cat([self.reach, _up(others - lower)[keep].clamp(min=0)]),
        )


@dataclass(frozen=True, eq=False)
class Program:
    """The program of a network on a box, except the objective; for many objectives on one box."""

    graph: Graph
    box: Box  # [1, *input]
    losses: Losses | None  # of forms on their way back
    lowered: dict[int, _Lowered]  # by the positions of the nodes
    maxima: _Maxima

    @classmethod
    def of(cls, graph: Graph, box: Region, inner: list[Box]) -> Program:
        """The program of a frozen graph in double precision over one box; arguments as in `worst_case.minimum`.

        Raises:
            ValueError: an op that is not piecewise linear, a region other than one box in double precision, bounds
                that are NaN or infinite.
        """
        box, graph = _one_box(box), graph.detach().rounded_outward()
        inner = [Box(bounds.lower.detach(), bounds.upper.detach()) for bounds in inner]
        for node in graph.nodes:
            if node.op.relaxed:
                _check_bounds(node, inner[node.inputs[0]])
        program = cls(graph, box, rounding.losses(graph, box, inner), {}, _Maxima.empty(box.lower.numel()))
        for at, node in enumerate(graph.nodes):
            if node.op.relaxed:
                bounds = inner[node.inputs[0]]
                lowered, maxima = program._lower(node, bounds.lower[0], bounds.upper[0])
                program = replace(program, lowered=program.lowered | {at: lowered}, maxima=maxima)
        return program

    def _lower(self, node: Node, lower: Tensor, upper: Tensor) -> tuple[_Lowered, _Maxima]:
        """A node as a line and columns, from the bounds of its input; and the maxima, with those of the node."""
        if isinstance(node.op, Max):
            return self._maximum(node, lower, upper)
        if isinstance(node.op, PiecewiseLinear):
            return self._pieces(node, node.op, lower, upper)
        raise ValueError(
            f"{node.name!r} is a {type(node.op).__name__}, which is not piecewise linear: a mixed-integer program "
            f"takes affine and piecewise linear ops, sums, concatenations and maxima; bound this one with a domain"
        )

    def _maximum(self, node: Node, lower: Tensor, upper: Tensor) -> tuple[_Lowered, _Maxima]:
        """One entry, if its lower bound is above the upper bounds of the others; otherwise a column."""
        floor, first = lower.max(0, keepdim=True)
        leading = torch.zeros_like(lower).scatter(0, first, 1.0)
        keep = (upper > floor) | (leading > 0)
        wide = keep.sum(0) > 1
        lowered = _Lowered(torch.where(wide, 0.0, leading), 0.0, ((1.0, wide, self.maxima.columns),))
        if not bool(wide.any()):
            return lowered, self.maxima
        entries = self._neurons(node.inputs[0], keep & wide)
        return lowered, self.maxima.and_of(lower[:, wide], upper[:, wide], entries, keep[:, wide])

    def _pieces(self, node: Node, op: PiecewiseLinear, lower: Tensor, upper: Tensor) -> tuple[_Lowered, _Maxima]:
        """f(x) = p x + q + sum over kinks k inside of (p_k - p_k-1) max(0, x - k), p x + q the piece of the least x."""
        start = lower.new_tensor(op.kinks[0] if op.kinks else 0.0)
        slope = torch.full_like(lower, op.pieces[0])  # of the line through (anchor, f(anchor))
        anchor = start.expand_as(lower)
        columns, maxima = list[tuple[float, Tensor, int]](), self.maxima
        reach = torch.maximum(lower.abs(), upper.abs())
        error = torch.zeros_like(lower)
        for kink, (before, after) in zip(op.kinks, pairwise(op.pieces), strict=True):
            inside, is_above, weight = (lower < kink) & (kink < upper), lower >= kink, after - before
            slope, anchor = torch.where(is_above, after, slope), torch.where(is_above, kink, anchor)
            error = error + 2 * TWICE_UNIT * abs(weight) * (reach + abs(kink)) * inside
            if bool(inside.any()):
                columns.append((weight, inside, maxima.columns))
                entries = self._neurons(node.inputs[0], inside).minus(kink).and_zeros()
                least, greatest = _and_zeros(_down(lower[inside] - kink)), _and_zeros(_up(upper[inside] - kink))
                maxima = maxima.and_of(least.view(2, -1), greatest.view(2, -1), entries)
        value, share = op(anchor), slope * anchor
        offset = value - share
        error = error + TWICE_UNIT * (slope.abs() * reach + (3 + offset.numel()) * offset.abs())
        error = error + 2 * TWICE_UNIT * (value.abs() + share.abs())
        return _Lowered(slope, offset, tuple(columns), error), maxima

    def _neurons(self, at: int, chosen: Tensor) -> _Rows:
        """Some neurons of a node ([*node] bool) as rows over the columns."""
        index = chosen.flatten().nonzero().T
        return self._rows(backward.neurons(index, tuple(chosen.shape), torch.ones(1, dtype=torch.float64)), at)

    def _rows(self, form: Form, at: int = -1) -> _Rows:
        """S forms of a node as rows over the columns."""
        inputs = self.box.lower.numel()
        rows = torch.zeros(form.count, self.maxima.columns, dtype=torch.float64)

        def relax(at: int, node: Node, form: Form) -> tuple[Form, ...]:
            form, lowered = form.dense(), self.lowered[at]
            a = form.coefficients
            for weight, among, first in lowered.columns:
                part = a[0][:, among]
                rows[:, first : first + part.shape[1]] = weight * part
            assert form.upper_constant is not None
            shift = (a * lowered.offset).flatten(2).sum(2)
            error = (a.abs() * lowered.error).flatten(2).sum(2) + 2 * TWICE_UNIT * shift.abs()
            low, high = form.constant + torch.zeros_like(shift), form.upper_constant + torch.zeros_like(shift)
            low = low + shift - (error + 2 * TWICE_UNIT * low.abs())
            high = high + shift + (error + 2 * TWICE_UNIT * high.abs())
            return (LinearForm((a.unsqueeze(2) if isinstance(node.op, Max) else a) * lowered.slope, low, high),)

        last = backward.back_to_input(self.graph, form.with_upper_constant(), relax, self.losses, at).dense()
        rows[:, :inputs] = last.coefficients[0].flatten(1)
        assert last.upper_constant is not None
        nothing = rows.new_zeros(1, len(rows))
        return _Rows(rows, (last.constant + nothing)[0], (last.upper_constant + nothing)[0])

    @cached_property
    def base(self) -> Tensor:
        """The least values of inputs and maxima, which are subtracted so that all columns begin at 0, [N + Z]."""
        return torch.cat([self.box.lower.flatten(), self.maxima.least])

    def _based(self, rows: _Rows) -> _Rows:
        """The same quantities by columns that begin at 0."""
        shift, size = rows.rows @ self.base, rows.rows.abs() @ self.base.abs()
        error = TWICE_UNIT * (len(self.base) + 4) * size + TINY
        low = rows.low + shift - error - 2 * TWICE_UNIT * rows.low.abs()
        high = rows.high + shift + error + 2 * TWICE_UNIT * rows.high.abs()
        return _Rows(rows.rows, _down(low), _up(high))

    def objective(self, c: Tensor) -> tuple[Vector, float]:
        """<c, output> >= <cost, columns> + constant, for c [*output]: the cost, of the unscaled columns."""
        rows = self._based(self._rows(LinearForm(c.view(1, 1, *c.shape), 0.0)))
        cost, constant = rows.rows[0].numpy(), rows.low.item()
        if not (np.isfinite(cost).all() and math.isfinite(constant)):
            raise ValueError("the program has NaN or infinite coefficients: look for such weights in the network")
        return np.pad(cost, (0, len(self.choices.scale) - len(cost))), constant

    @cached_property
    def choices(self) -> Choices:
        """Rows x - z + t = 0 of the entries that are not 0, then the sum of t / reach for each maximum.

        Raises:
            ValueError: weights that are NaN or infinite.
        """
        maxima, entries, values = self.maxima, self._based(self.maxima.entries), self.maxima.columns
        inputs = values - len(maxima.least)
        order = maxima.z.argsort(stable=True)
        which = (maxima.z - inputs)[order]
        rows, low, high = entries.rows[order], maxima.entries.low[order], maxima.entries.high[order]
        # the slack of an entry that is 0 is its maximum itself, if that has no base
        zero = (rows == 0).all(1) & (low == 0) & (high == 0) & (maxima.least[which] == 0)
        own = (~zero).nonzero().flatten()
        number = torch.arange(len(own))
        slack = torch.where(zero, maxima.z[order], 0)
        slack[own] = values + number
        reach = maxima.reach[order]
        width = torch.cat(
            [
                _widths(self.box.lower.flatten(), self.box.upper.flatten()),
                _widths(maxima.least, maxima.greatest),
                reach[own],
            ]
        )
        at, column = rows[own].nonzero(as_tuple=True)
        # at the network's own values one t is 0 and each other is not above its reach
        share = torch.where(reach > 0, torch.nextafter(1 / reach, torch.zeros_like(reach)), 0.0)
        one = torch.ones(len(own), dtype=torch.float64)
        parts = [
            (at, column, rows[own][at, column]),
            (number, maxima.z[order][own], -one),
            (number, slack[own], one),
            (len(own) + which, slack, share),
        ]
        row, column, value = (torch.cat(part) for part in zip(*parts, strict=True))
        sort = row.argsort(stable=True)
        base = maxima.least[which[own]]
        chords = torch.bincount(which, minlength=len(maxima.least)).double() - 1
        linear, scale = LinearProgram(
            width.numpy(),
            torch.cat([_down(base - entries.high[order][own]), torch.full_like(chords, -torch.inf)]).numpy(),
            torch.cat([_up(base - entries.low[order][own]), chords]).numpy(),
            *(part[sort].numpy() for part in (row, column, value)),
        ).scaled()
        return Choices(
            linear,
            self.base.numpy(),
            scale,
            which.numpy(),
            slack.numpy(),
            np.arange(len(own), len(own) + len(chords)),
        )


def _and_zeros(x: Tensor) -> Tensor:
    """The entries, followed by as many zeros."""
    return torch.cat([x, torch.zeros_like(x)])


def _down(x: Tensor) -> Tensor:
    """The next number below each entry: not above the exact result of one operation."""
    return torch.nextafter(x, torch.full_like(x, -torch.inf))


def _up(x: Tensor) -> Tensor:
    return torch.nextafter(x, torch.full_like(x, torch.inf))


def _widths(lower: Tensor, upper: Tensor) -> Tensor:
    """The widths, rounded up; the width is 0 if both ends are equal."""
    return torch.where(lower == upper, 0.0, _up(upper - lower))


def one_box(region: Region) -> Box:
    """The region, which must be a box.

    Raises:
        ValueError: the region is not a box.
    """
    if not isinstance(region, Box):
        raise ValueError(f"the region is a {type(region).__name__}: a mixed-integer program takes a Box")
    return region


def _one_box(region: Region) -> Box:
    box = one_box(region)
    if box.lower.dtype != torch.float64 or len(box.lower) != 1:
        raise ValueError(
            f"the box is {box.lower.dtype}, of {len(box.lower)} samples: give one sample, in double precision"
        )
    return box


def _check_bounds(node: Node, bounds: Box) -> None:
    ends = torch.stack([bounds.lower, bounds.upper])
    if ends.dtype != torch.float64 or not bool(torch.isfinite(ends).all()):
        raise ValueError(
            f"the bounds of the input of {node.name!r} are {ends.dtype}, NaN or infinite: give finite bounds, in "
            f"double precision, of a network with finite weights"
        )

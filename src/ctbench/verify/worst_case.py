"""Exact worst cases by mixed-integer programming: branch and bound over linear programs.

The program is that of Tjeng et al. 2019 (`integer_program`). Each of its maxima, e.g. a ReLU, has entries, one of which
is the greatest.

    until the least bound of an open node is good enough:
        take the node with the least bound, and in it the maximum that costs the bound most
        for each of its entries: a node in which that entry is the greatest, and its linear program

    inner = crown.boxes(graph.rounded_outward(), box)
    least = minimum(graph, box, c, inner, timeout=60.0)  # least.lower <= min <c, graph(x)> <= least.upper

**What the numbers are worth.** `lower` is a proof. It is the least bound of the leaves of the tree. Each bound of a
leaf is computed from the multipliers that HiGHS gave, by the formula of Neumaier and Shcherbina, which holds for any
multipliers, minus its own rounding (`linear_program`). If HiGHS calls the program of a leaf infeasible, the leaf is
left out only if the ray that HiGHS gives proves that in the same way; otherwise the leaf keeps the bound of its parent
and is branched on. So a wrong answer of the solver costs time, and never a certificate. The proof is about the network
as real arithmetic on its stored weights. It needs rigorous boxes (`inner`), e.g. those of `crown.boxes` for a graph
that is `outward`; all other rounding is counted (`integer_program`). `upper` is the value of the network at a point of
the box, up to the rounding of that one pass. A lower bound above the value at a point raises an error: one of the two
is wrong, and neither counts.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctbench import time_budget
from ctbench.domains import crown
from ctbench.domains.backward import open_neurons
from ctbench.graph import Graph
from ctbench.regions import Box, Region
from ctbench.specification import margin_rows, robust_cross_entropy
from ctbench.verify.highs import Solution, Solver
from ctbench.verify.integer_program import Program
from ctbench.verify.linear_program import Vector

GAP = 1e-7  # between the bound and the best point, relative to their size
NARROW = 1e-9  # the same, relative to the width of the range of the form
OPTIMAL, LATE = "Optimal", "Time limit reached"
ABOVE, BELOW = "Interrupted by user", "Target for objective reached"  # the bound, or a point, is good enough
ENDS = (OPTIMAL, LATE, ABOVE, BELOW)


class FalseBoundError(ArithmeticError):
    """A bound and the value at a point cannot both be true: neither counts."""


@dataclass(frozen=True, eq=False)
class Minimum:
    """The least value of a form over a box lies in [lower, upper].

    `status` is one of `ENDS`: why the search ended.
    """

    lower: float  # -inf if there was no time for a bound
    upper: float  # the value of the network at the point; inf if there is no point
    point: Tensor | None  # [*input], in the box
    status: str


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The least margins of one sample over its box."""

    margins: tuple[Minimum, ...]  # z_y - z_k for k != y, ascending

    @property
    def lower(self) -> float:
        """A lower bound of the least margin: the sample is robust if it is positive."""
        return min(least.lower for least in self.margins)

    @property
    def upper(self) -> float:
        """An upper bound of the least margin, attained by one of the points."""
        return min(least.upper for least in self.margins)

    @property
    def loss(self) -> float:
        """An upper bound of the cross-entropy over the box, from the lower bounds: exact for two classes."""
        return robust_cross_entropy(torch.tensor([[least.lower for least in self.margins]], dtype=torch.float64)).item()


def minimum(
    graph: Graph,
    box: Region,
    c: Tensor,
    inner: list[Box],
    *,
    timeout: float,
    stop_above: float = math.inf,
    stop_below: float = -math.inf,
) -> Minimum:
    """The least value of <c, graph(x)> over a box, for one sample, in double precision.

    Args:
        graph: a frozen graph in double precision, of affine and piecewise linear ops, sums, concatenations and maxima.
        box: the inputs, [1, *input].
        c: the form, [*output].
        inner: sound boxes of all nodes, [1, *node], e.g. those of `crown.boxes` for `graph.rounded_outward()`.
        timeout: seconds, for making the program and for solving it.
        stop_above: a lower bound above this is good enough.
        stop_below: a point with a value below this is good enough.

    Raises:
        ValueError: an op is not piecewise linear; the region is not one box in double precision; weights or bounds are
            NaN or infinite; the boxes exclude each other; or the timeout is negative.
    """
    end = end_of(timeout)
    program = Program.of(graph, box, inner)
    return Search(program, c, end).minimum(stop_above, stop_below)


def worst_case(graph: Graph, box: Region, y: int, inner: list[Box], *, timeout: float) -> WorstCase:
    """The least margins of label y over a box, each as by `minimum`; `timeout` is for all of them together."""
    end = end_of(timeout)
    program = Program.of(graph, box, inner)
    rows = margin_rows(torch.tensor([y]), graph.classes, dtype=torch.float64)[0]
    return WorstCase(tuple(Search(program, row, end).minimum() for row in rows))


def least(graph: Graph, box: Region, rows: Tensor, inner: list[Box], *, timeout: float) -> Minimum:
    """The least value of several forms over a box, as by `minimum`: forms that cannot be the least end early.

    Args:
        graph, box, inner: as for `minimum`.
        rows: the forms, [S, *output].
        timeout: seconds, for all of them together.
    """
    end = end_of(timeout)
    bounds = crown.lower_bounds(graph.rounded_outward(), box, rows.unsqueeze(0), inner=inner)[0]
    program = Program.of(graph, box, inner)
    lower, best, late = math.inf, Minimum(math.inf, math.inf, None, OPTIMAL), False
    for k in bounds.argsort().tolist():
        if bounds[k] > best.upper:
            break
        one = Search(program, rows[k], end).minimum(stop_above=best.upper)
        lower, late = min(lower, max(one.lower, float(bounds[k]))), late or one.status == LATE
        best = one if one.upper < best.upper else best
    return Minimum(min(lower, best.upper), best.upper, best.point, LATE if late else OPTIMAL)


def unstable(graph: Graph, inner: list[Box]) -> int:
    """The number of neurons of a sample that the boxes leave open; for a maximum, all entries count."""
    readers = [node for node in graph.nodes if node.op.relaxed]
    return sum(int(open_neurons([node.op], inner[node.inputs[0]]).sum()) for node in readers)


@dataclass(frozen=True, order=True)
class _Node:
    """Some maxima whose greatest entry is chosen, and a lower bound of the form under these choices."""

    bound: float
    number: int  # in the order in which the nodes are made
    chosen: tuple[int, ...] = field(compare=False)  # slacks that are 0
    branch: int = field(compare=False)  # the maximum to choose for next, -1 if no choice can raise the bound
    basis: Any = field(compare=False, repr=False)


class Search:
    """The tree of one objective, and the best point so far."""

    def __init__(self, program: Program, c: Tensor, end: float) -> None:
        self.program, self.c, self.choices, self.end = program, c, program.choices, end
        cost, self.constant = program.objective(c)
        cost = cost * self.choices.scale
        self.exponent = int(np.frexp(np.abs(cost).max(initial=0.0))[1])
        self.cost = np.ldexp(cost, -self.exponent)
        self.solver = Solver(self.choices.linear, self.cost)
        self.narrow = NARROW * float(np.ldexp(np.abs(self.cost) @ self.choices.linear.width, self.exponent))
        self.best, self.nodes = math.inf, 0
        self.point: Tensor | None = None

    def minimum(self, stop_above: float = math.inf, stop_below: float = -math.inf) -> Minimum:
        if self.is_late():
            return Minimum(-math.inf, math.inf, None, LATE)
        tree = [node for node in [self.bounded((), -math.inf, None)] if node is not None]
        status = ""
        while tree:
            node = tree[0]
            status = self.status(node, stop_above, stop_below)
            if status:
                break
            children = list[_Node]()
            for slack in self.choices.slack[self.choices.maximum == node.branch].tolist():
                child = self.bounded((*node.chosen, slack), node.bound, node.basis)
                if child is not None:
                    children.append(child)
            heapq.heappop(tree)
            for child in children:
                heapq.heappush(tree, child)
        if not tree:
            raise ValueError("no input of the box fits the inner boxes: give sound ones, e.g. those of crown.boxes")
        self.check(tree[0].bound)
        return Minimum(tree[0].bound, self.best, self.point, status)

    def status(self, node: _Node, stop_above: float, stop_below: float) -> str:
        """Why to end if this node has the least bound; empty to go on."""
        if self.best < stop_below:
            return BELOW
        if node.bound > stop_above:
            return ABOVE
        if node.branch < 0 or node.bound >= self.best - GAP * abs(self.best) - self.narrow:
            return OPTIMAL
        return LATE if self.is_late() else ""

    def is_late(self) -> bool:
        return time_budget.now() >= self.end or time_budget.is_over()

    def bounded(self, chosen: tuple[int, ...], bound: float, basis: Any) -> _Node | None:
        """The node of these choices, whose parent has this bound; None if the node is proved to be empty."""
        linear = self.choices.linear
        width = linear.width.copy()
        width[list(chosen)] = 0.0
        solution = self.solver.solve(width, self.end - time_budget.now(), basis)
        if solution.ray is not None and linear.is_empty(solution.ray, width):
            return None
        if solution.y is not None:
            bound = max(bound, self.value(linear.safe_bound(self.cost, solution.y, width)))
        if solution.x is not None:
            self.visit(self.inputs(solution.x))
        self.nodes += 1
        basis = solution.basis if bound < self.best else None
        return _Node(bound, self.nodes, chosen, self.branch(chosen, solution), basis)

    def value(self, bound: float) -> float:
        """A lower bound of the form, for a lower bound of the scaled costs."""
        return math.nextafter(self.constant + float(np.ldexp(bound, self.exponent)), -math.inf)

    def inputs(self, x: Vector) -> Tensor:
        """The input at the columns of a linear program, [1, *input]."""
        box, choices = self.program.box, self.choices
        count = box.lower.numel()
        return torch.from_numpy(choices.base[:count] + choices.scale[:count] * x[:count]).view_as(box.lower)

    def visit(self, point: Tensor) -> None:
        """Evaluate the network near a point, [1, *input]; a value that is NaN does not count."""
        point = self.program.box.project(point)
        value = (self.c * self.program.graph(point)[0]).sum().item()
        if value < self.best:
            self.best, self.point = value, point[0]

    def branch(self, chosen: tuple[int, ...], solution: Solution) -> int:
        """The maximum that is furthest from all of its entries, weighted by what that costs; -1 if there is none."""
        choices = self.choices
        is_open = np.ones(choices.count, dtype=bool)
        is_open[choices.maximum[np.isin(choices.slack, chosen)]] = False
        if not is_open.any():
            return -1
        if solution.x is None or not np.isfinite(solution.x).all():
            return int(is_open.argmax())
        width = choices.linear.width[choices.slack]
        share = solution.x[choices.slack] / np.where(width > 0, width, 1.0)
        apart = np.full(choices.count, np.inf)
        np.minimum.at(apart, choices.maximum, share)
        apart = np.where(is_open, apart, 0.0)
        if not apart.max() > 1e-9:
            return -1
        price = np.ones(choices.count) if solution.y is None else np.abs(solution.y[choices.chord])
        return int((apart * (price + 1e-6 * price.max() + 1e-12)).argmax())

    def check(self, lower: float) -> None:
        if lower > self.best:
            raise FalseBoundError(
                f"the lower bound {lower} is above the value {self.best} at a point of the box: the inner boxes may "
                f"not be sound, or this is an error of the library; the bound is discarded"
            )


def end_of(timeout: float) -> float:
    """The time `timeout` seconds from now."""
    if not timeout >= 0:
        raise ValueError(f"timeout is {timeout}: give a number of seconds >= 0")
    return time_budget.now() + timeout

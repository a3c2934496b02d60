"""Exact worst cases by mixed-integer programming: branch and bound over linear programs.

The program is that of Tjeng et al. 2019 (`integer_program`); each of its maxima, a ReLU's for one, has entries one of
which is the greatest.

    until the least bound of an open node is known to be good enough:
        take the node with the least bound, and in it the maximum that costs the bound most
        for each of its entries: a node in which that entry is the greatest, and its linear program

    inner = crown.boxes(graph.rounded_outward(), box)
    exact = minimum(graph, box, c, inner, timeout=60.0)  # exact.lower <= min <c, graph(x)> <= exact.upper

**What the numbers are worth.** `lower` is a proof. It is the least of the bounds of the tree's leaves, and each of
these was computed from the multipliers that HiGHS gave, by Neumaier and Shcherbina's formula, which holds for any
multipliers, less its own rounding (`linear_program`). A leaf whose program HiGHS calls infeasible is left out only if
the ray that it gives proves that in the same way; else it keeps its parent's bound and is branched on. So a solver
that is wrong costs time, and never a certificate. The proof is about the network as real arithmetic on its stored
weights. It takes rigorous boxes (`inner`), as `crown.boxes` gives them for a graph that is `outward`; the rounding of
all else is counted (`integer_program`). `upper` is the value of the network at a point of the box, up to the rounding
of that one pass. A lower bound above the value at a point is raised as an error: one of the two is wrong then, and
neither counts.
"""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ctbench import deadline
from ctbench.deadline import OutOfTime
from ctbench.domains import crown
from ctbench.domains.backward import open_neurons
from ctbench.graph import Graph
from ctbench.graph.ops import Max, PiecewiseLinear
from ctbench.regions import Box, Region
from ctbench.specification import margin_rows, robust_cross_entropy
from ctbench.verify.integer_program import Program, one_box
from ctbench.verify.linear_program import Solution, Solver, Vector
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.stages import Stage
from ctbench.verify.watch import Watch

GAP = 1e-7  # between the bound and the best point, relative to them
NARROW = 1e-9  # the same, relative to how far apart the values of the form can lie
OPTIMAL, LATE = "Optimal", "Time limit reached"
ABOVE, BELOW = "Interrupted by user", "Target for objective reached"  # where a bound, or a point, is good enough
ENDS = (OPTIMAL, LATE, ABOVE, BELOW)


class ContradictionError(ArithmeticError):
    """A lower bound is above the value at a point: neither counts."""


@dataclass(frozen=True, eq=False)
class Exact:
    """The least value of a form over a box lies in [lower, upper].

    `status` is the solver's: one of `ENDS`, or an error of its own, with which there is no bound.
    """

    lower: float  # -inf where there was no time for any bound
    upper: float  # the network's own value at the point; inf where none was found
    point: Tensor | None  # [*input], in the box
    status: str


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The least margins of one sample over its box."""

    margins: tuple[Exact, ...]  # z_y - z_k for k != y, ascending

    @property
    def lower(self) -> float:
        """Of the least of the margins: robust where it is positive."""
        return min(exact.lower for exact in self.margins)

    @property
    def upper(self) -> float:
        """Of the least of the margins: attained, by one of the points."""
        return min(exact.upper for exact in self.margins)

    @property
    def loss(self) -> float:
        """An upper bound of the cross-entropy over the box, from the lower bounds: exact for two classes."""
        return robust_cross_entropy(torch.tensor([[exact.lower for exact in self.margins]], dtype=torch.float64)).item()


def minimum(
    graph: Graph,
    box: Region,
    c: Tensor,
    inner: list[Box],
    *,
    timeout: float,
    stop_above: float = math.inf,
    stop_below: float = -math.inf,
) -> Exact:
    """The least value of <c, graph(x)> over a box, for one sample, in double precision.

    Args:
        graph: a frozen graph in double precision, of affine and piecewise linear ops, sums, concatenations and maxima.
        box: the inputs, [1, *input].
        c: the form, [*output].
        inner: sound boxes of all nodes, [1, *node], as `crown.boxes` gives them for `graph.rounded_outward()`.
        timeout: seconds, for the program and its solution.
        stop_above: a lower bound above this is good enough.
        stop_below: a point with a value below this is good enough.

    Raises:
        ValueError: an op that is not piecewise linear, a region other than one box in double precision, NaN or
            infinite weights or bounds, boxes that exclude each other, or highspy is not installed.
    """
    end = _end(timeout)
    program = Program.of(graph, box, inner)
    return _Search(program, c, end).minimum(stop_above, stop_below)


def worst_case(graph: Graph, box: Region, y: int, inner: list[Box], *, timeout: float) -> WorstCase:
    """The least margins of label y over a box, each as by `minimum`; `timeout` is for all of them together."""
    end = _end(timeout)
    program = Program.of(graph, box, inner)
    rows = margin_rows(torch.tensor([y]), graph.classes, dtype=torch.float64)[0]
    return WorstCase(tuple(_Search(program, row, end).minimum() for row in rows))


def least(graph: Graph, box: Region, rows: Tensor, inner: list[Box], *, timeout: float) -> Exact:
    """The least value of several forms over a box, as by `minimum`: forms that cannot be the least end early.

    Args:
        graph, box, inner: as for `minimum`.
        rows: the forms, [S, *output].
        timeout: seconds, for all of them together.
    """
    end = _end(timeout)
    bounds = crown.lower_bounds(graph, box, rows.unsqueeze(0), inner=inner)[0]
    program = Program.of(graph, box, inner)
    lower, best, late = math.inf, Exact(math.inf, math.inf, None, OPTIMAL), False
    for k in bounds.argsort().tolist():
        if bounds[k] > best.upper:
            lower = min(lower, float(bounds[k]))
            break
        exact = _Search(program, rows[k], end).minimum(stop_above=best.upper)
        lower, late = min(lower, max(exact.lower, float(bounds[k]))), late or exact.status == LATE
        best = exact if exact.upper < best.upper else best
    return Exact(min(lower, best.upper), best.upper, best.point, LATE if late else OPTIMAL)


def unstable(graph: Graph, inner: list[Box]) -> int:
    """How many neurons of a sample the boxes leave open; of a maximum, all entries count."""
    readers = [node for node in graph.nodes if node.op.relaxed]
    return sum(int(open_neurons([node.op], inner[node.inputs[0]]).sum()) for node in readers)


@dataclass(frozen=True, order=True)
class _Node:
    """Some maxima whose greatest entry is chosen, and a lower bound of the values that this leaves."""

    bound: float
    number: int  # in the order in which they were found
    chosen: tuple[int, ...] = field(compare=False)  # slacks that are 0
    branch: int = field(compare=False)  # the maximum to choose for next, -1 where nothing is to be gained
    basis: Any = field(compare=False, repr=False)


class _Search:
    """The tree of one objective, and the best point that was found in it."""

    def __init__(self, program: Program, c: Tensor, end: float) -> None:
        self.program, self.c, self.choices, self.end = program, c, program.choices, end
        cost, self.constant = program.objective(c)
        cost = cost * self.choices.scale
        self.exponent = int(np.frexp(np.abs(cost).max(initial=0.0))[1])
        self.cost = np.ldexp(cost, -self.exponent)
        self.solver = Solver(self.choices.linear, self.cost)
        self.narrow = NARROW * float(np.ldexp(np.abs(self.cost) @ self.choices.linear.width, self.exponent))
        self.best, self.found = math.inf, 0
        self.point: Tensor | None = None

    def minimum(self, stop_above: float = math.inf, stop_below: float = -math.inf) -> Exact:
        if self.is_late():
            return Exact(-math.inf, math.inf, None, LATE)
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
            raise ValueError("no input of the box fits the inner boxes: give sound ones, as crown.boxes does")
        self.check(tree[0].bound)
        return Exact(tree[0].bound, self.best, self.point, status)

    def status(self, node: _Node, stop_above: float, stop_below: float) -> str:
        """Why to end where this node has the least bound, empty for no reason."""
        if self.best < stop_below:
            return BELOW
        if node.bound > stop_above:
            return ABOVE
        if node.branch < 0 or node.bound >= self.best - GAP * abs(self.best) - self.narrow:
            return OPTIMAL
        return LATE if self.is_late() else ""

    def is_late(self) -> bool:
        return time.monotonic() >= self.end or deadline.is_over()

    def bounded(self, chosen: tuple[int, ...], bound: float, basis: Any) -> _Node | None:
        """The node of these choices, whose parent has this bound; None where it is proved to be empty."""
        linear = self.choices.linear
        width = linear.width.copy()
        width[list(chosen)] = 0.0
        found = self.solver.solve(width, self.end - time.monotonic(), basis)
        if found.ray is not None and linear.is_empty(found.ray, width):
            return None
        if found.y is not None:
            bound = max(bound, self.value(linear.safe_bound(self.cost, found.y, width)))
        if found.x is not None:
            self.visit(self.inputs(found.x))
        self.found += 1
        return _Node(bound, self.found, chosen, self.branch(chosen, found), found.basis if bound < self.best else None)

    def value(self, bound: float) -> float:
        """A lower bound of the form, for one of the scaled costs."""
        return math.nextafter(self.constant + float(np.ldexp(bound, self.exponent)), -math.inf)

    def inputs(self, x: Vector) -> Tensor:
        """The input at the columns of a linear program, [1, *input]."""
        box, choices = self.program.box, self.choices
        count = box.lower.numel()
        return torch.from_numpy(choices.base[:count] + choices.scale[:count] * x[:count]).view_as(box.lower)

    def visit(self, point: Tensor) -> None:
        """Evaluate the network near a point, [1, *input]; NaN is no value."""
        point = self.program.box.project(point)
        value = (self.c * self.program.graph(point)[0]).sum().item()
        if value < self.best:
            self.best, self.point = value, point[0]

    def branch(self, chosen: tuple[int, ...], found: Solution) -> int:
        """The maximum that is furthest from all of its entries, by what that costs; -1 where none is."""
        choices = self.choices
        open_ = np.ones(choices.count, dtype=bool)
        open_[choices.maximum[np.isin(choices.slack, chosen)]] = False
        if not open_.any():
            return -1
        if found.x is None or not np.isfinite(found.x).all():
            return int(open_.argmax())
        width = choices.linear.width[choices.slack]
        share = found.x[choices.slack] / np.where(width > 0, width, 1.0)
        apart = np.full(choices.count, np.inf)
        np.minimum.at(apart, choices.maximum, share)
        apart = np.where(open_, apart, 0.0)
        if not apart.max() > 1e-9:
            return -1
        price = np.ones(choices.count) if found.y is None else np.abs(found.y[choices.chord])
        return int((apart * (price + 1e-6 * price.max() + 1e-12)).argmax())

    def check(self, lower: float) -> None:
        if lower > self.best:
            raise ContradictionError(
                f"the lower bound {lower} is above the value {self.best} at a point of the box: the inner boxes may "
                f"not be sound, or this is an error of the library; the bound is discarded"
            )


@dataclass(frozen=True, kw_only=True)
class Milp(Stage):
    """The least margin itself, class by class from the smallest bound of CROWN on, until its sign is known.

    Where time is up, the bound is the best that is known by then, and the sample stays open if it is not positive.

    Args:
        unstable: samples with more unstable neurons than this keep the bound of CROWN.
        share: of a sample's time that it may take.
    """

    name: ClassVar[str] = "milp"
    proves: ClassVar[bool] = True
    batch_size: int = 1  # samples are solved one by one, so that each has its own time and its own error
    share: float = 1.0
    unstable: int = 500

    @property
    def title(self) -> str:
        return "milp"

    def applies(self, problem: Problem) -> bool:
        ops = (node.op for node in problem.net.nodes if node.op.relaxed)
        return isinstance(problem.region, Box) and all(isinstance(op, PiecewiseLinear | Max) for op in ops)

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        exact = problem.exact
        graph, box = exact.net.to(torch.float64).map(Tensor.cpu), _double_box(exact.region)
        watch = Watch(problem.seconds, len(problem), self.share)
        witness, bounds = exact.x.clone(), list[Tensor]()
        for index, forms in enumerate(exact.spec.cpu()):
            one = torch.tensor([index])
            try:
                bound, point = self._decide(graph, box.take(one), forms, exact.x[one].cpu(), watch.left[index].item())
            except OutOfTime:
                if not bounds:
                    raise
                bound, point = torch.full_like(bounds[0], -torch.inf), None
            bounds.append(bound)
            if point is not None:
                witness[index] = point.to(witness)
            watch.charge(one)
        bound = torch.stack(bounds).to(exact.x.device)
        return Findings(bound=bound, witness=witness, late=watch.late(), seconds=watch.spent)

    def _decide(self, graph: Graph, box: Box, forms: Tensor, x: Tensor, seconds: float) -> tuple[Tensor, Tensor | None]:
        """A lower bound of the least of some forms [S, K] of a sample, and a point where one is negative."""
        end = time.monotonic() + seconds
        inner = crown.boxes(graph, box)
        bounds = crown.lower_bounds(graph, box, forms.unsqueeze(0), inner=inner)[0]
        if bool((bounds > 0).all()) or unstable(graph, inner) > self.unstable:
            return bounds.amin(), None
        program = Program.of(graph, box, inner)
        for k in bounds.argsort().tolist():
            if bounds[k] > 0:
                break
            search = _Search(program, forms[k], end)
            search.visit(x)
            exact = search.minimum(stop_above=0.0, stop_below=0.0)
            bounds[k] = bounds[k].clamp(min=exact.lower)
            if exact.upper < 0:
                return bounds.amin(), exact.point
        return bounds.amin(), None


def _end(timeout: float) -> float:
    """When so many seconds from now are over."""
    if not timeout >= 0:
        raise ValueError(f"timeout is {timeout}: give a number of seconds >= 0")
    return time.monotonic() + timeout


def _double_box(region: Region) -> Box:
    box = one_box(region)
    return Box(box.lower.double().cpu(), box.upper.double().cpu())

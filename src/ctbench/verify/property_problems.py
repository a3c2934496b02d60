"""Cases of a property as problems: the margins that must be positive, and which points are counterexamples.

Alternatives (A_d, b_d) of a case are appended to the network f,

    g_d(x) = max over the rows r of  (A_d f(x) + b_d)_r,

as one more affine layer and a maximum, and the margins are the outputs. Cases with the same alternatives are one
problem with many boxes. Cases whose alternatives have one row each are also one problem: 1 is appended to the outputs,
and the rows are the margins of each sample. Rows that are also about inputs read (f(x), x).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ctbench.graph import Graph, Node, Precisions
from ctbench.graph.ops import Concat, Linear, Max, Op, Reshape
from ctbench.regions import Box, Polytope, Region
from ctbench.verify import rationals
from ctbench.verify.cascade import Replay
from ctbench.verify.problem import EXACTLY, SMALLEST, Problem
from ctbench.vnnlib import Case, Halfspaces

MOST_MARGINS = 20_000_000  # numbers in the margins of one problem
NEAR = 1e-7  # margins that may be 0 up to rounding, if the largest is about 1


def groups(cases: Sequence[Case], outputs: int) -> Iterator[tuple[Case, ...]]:
    """The cases that make one problem each, about a network with this number of outputs."""
    kinds: dict[object, list[Case]] = {}
    for case in cases:
        constraints = 0 if case.constraints is None else len(case.constraints.rows)
        has_single_rows = all(alternative.rows.shape == (1, outputs) for alternative in case.unsafe)
        rows = None if has_single_rows else tuple(alternative.comparisons for alternative in case.unsafe)
        kinds.setdefault((constraints, rows), []).append(case)
    for members in kinds.values():
        most = max(1, MOST_MARGINS // (max(len(case.unsafe) for case in members) * (outputs + 1)))
        for start in range(0, len(members), most):
            yield tuple(members[start : start + most])


@dataclass(frozen=True, eq=False)
class Subject:
    """The network of a property, in both precisions, and another implementation of it."""

    network: Precisions
    replay: Replay | None = None

    def problem(self, cases: tuple[Case, ...]) -> Problem:
        """The problem of some cases, one sample for each, in both precisions."""
        double = self._in(self.network.proof, cases, self.network.like.double())
        places = torch.arange(len(cases), device=double.x.device)
        double = replace(double, rule=CaseRule(self, cases, double, places))
        return replace(self._in(self.network.search, cases, self.network.like), double=double)

    def _in(self, graph: Graph, cases: tuple[Case, ...], like: Tensor) -> Problem:
        """The problem in the precision, and on the device, of `like`."""
        region, count = _region(cases, graph.input_shape, like), len(cases)
        x = region.project(region.hull.center)
        first = cases[0].unsafe
        if all(case.unsafe is first or case.unsafe == first for case in cases):
            net = property_graph(graph, first, like)
            spec = torch.eye(net.classes, dtype=like.dtype, device=like.device).expand(count, -1, -1)
            return Problem(net, x, region, spec)
        most = max(len(case.unsafe) for case in cases)
        rows = [torch.cat([torch.column_stack(one.margins()) for one in case.unsafe]) for case in cases]
        padded = [torch.cat([each, each[-1:].expand(most - len(each), -1)]) for each in rows]
        return Problem(_with_one(graph, like), x, region, torch.stack(padded).to(like))

    def outputs(self, points: Tensor) -> Tensor:
        """The outputs that count, for points [B, *input]: [B, K]."""
        return self.network.proof(points)


@dataclass(frozen=True, eq=False)
class CaseRule:
    """A counterexample is an input of a case with an unsafe output, in double precision and in exact arithmetic.

    If no float64 number lies between the bounds of an input, the nearest number is taken, and all inputs next to the
    point must have unsafe outputs. Where another implementation is at hand, its output must be unsafe as well.
    """

    subject: Subject
    cases: tuple[Case, ...]
    problem: Problem  # of all cases, in double precision
    places: Tensor  # [B]: the case of each sample

    def select(self, samples: Tensor) -> CaseRule:
        return replace(self, places=self.places[samples])

    @cached_property
    def _inside(self) -> tuple[Tensor, Tensor]:
        """The corners of boxes of float64 numbers inside the boxes of the cases, [cases, n] each."""
        lower, upper = zip(*(case.inside for case in self.cases), strict=True)
        return torch.stack(lower).to(self.places.device), torch.stack(upper).to(self.places.device)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The points, moved into the boxes, and which are counterexamples: the search ends with the first one."""
        owners = replace(self.problem, rule=None).select(self.places)
        lower, upper = (corner[self.places].view_as(points) for corner in self._inside)
        points = torch.minimum(torch.maximum(points, lower), upper)
        margins = owners.margins(points.unsqueeze(0))[0]
        least = margins.amin(1)
        candidates = (least <= NEAR * (1 + margins.abs().amax(1))).nonzero().flatten()
        found = torch.zeros_like(least, dtype=torch.bool)
        for place in candidates[least[candidates].argsort()][:EXACTLY].tolist():
            case, owner = self.cases[int(self.places[place])], owners.select(candidates.new_tensor([place]))
            for point in (_single(case, points[place]), case.nearest(points[place].flatten())):
                x, is_allowed = case.constrained(point.unsqueeze(0))
                x = x.view(1, *points.shape[1:])
                if bool(is_allowed) and self._is_counterexample(case, owner, x):
                    points[place], found[place] = x[0], True
                    return points, found
        return points, found

    def _is_counterexample(self, case: Case, owner: Problem, x: Tensor) -> bool:
        """Whether the output of an allowed input [1, *input] is unsafe in double precision, exactly, and elsewhere."""
        if not bool(case.violated(self.subject.outputs(x), x.flatten(1))) or not self._is_unsafe(case, owner, x):
            return False
        replay = self.subject.replay
        return replay is None or bool(case.violated(replay(x).view(1, -1).cpu(), x.flatten(1).cpu()))

    def _is_unsafe(self, case: Case, owner: Problem, x: Tensor) -> bool:
        """Whether the output is unsafe in exact arithmetic."""
        # if no float64 number lies between the bounds of an input, the file's own input is next to the point: it is
        # within one unit in the last place, which below the normal numbers is the smallest number of all
        spread = x.abs() * 2.0**-52 + SMALLEST if case.rounded else 0.0
        if bool(owner.least_margin(x, spread)[1] < 0):
            return True
        if case.rounded:
            return False
        graph = self.subject.network.proof
        try:
            outputs = rationals.forms(graph, x[0], torch.eye(graph.classes, dtype=torch.float64, device=x.device))
        except rationals.NoExactValueError:
            return False
        values = [*outputs, *x.flatten().tolist()]
        return any(all(row.contains(values) for row in each.comparisons) for each in case.unsafe)


def _single(case: Case, point: Tensor) -> Tensor:
    """An input [*input] of the box as single precision numbers where the box has such numbers, [n]: others evaluate
    networks in single precision."""
    point = point.flatten()
    single = point.float()
    for direction in (-torch.inf, torch.inf):
        beside = torch.nextafter(single, torch.full_like(single, direction))
        is_outside = case.nearest(single.double()) != single
        single = torch.where(is_outside & (case.nearest(beside.double()) == beside), beside, single)
    return case.nearest(torch.where(case.nearest(single.double()) == single, single.double(), point))


def _region(cases: tuple[Case, ...], shape: tuple[int, ...], like: Tensor) -> Region:
    """The inputs of the cases, as a batch."""
    lower, upper = (torch.stack(corner) for corner in zip(*(case.around for case in cases), strict=True))
    box = Box(*(corner.to(like).view(-1, *shape) for corner in (lower, upper)))
    if cases[0].constraints is None:
        return box
    parts = [case.constraints.around(*case.around) for case in cases if case.constraints is not None]
    rows, offsets = (torch.stack(part).to(like) for part in zip(*parts, strict=True))
    return Polytope(box, rows, offsets)


def property_graph(graph: Graph, unsafe: tuple[Halfspaces, ...], like: Tensor) -> Graph:
    """A frozen graph with the margins g of D alternatives as its outputs, [B, D].

    The margins have the precision and the device of `like`.

    Raises:
        ValueError: the graph has another number of outputs than the rows, and rows are not over outputs and inputs.
    """
    most = max(len(alternative.rows) for alternative in unsafe)
    width = max(alternative.rows.shape[1] for alternative in unsafe)
    if width == graph.classes + math.prod(graph.input_shape):
        graph = _with_inputs(graph)

    def padded(alternative: Halfspaces) -> Tensor:
        """The rows with their offsets, [most, width + 1]: the last row is repeated, which changes no maximum."""
        rows, offsets = alternative.margins()
        rows = torch.column_stack([rows, rows.new_zeros(len(rows), width - rows.shape[1]), offsets])
        return torch.cat([rows, rows[-1:].expand(most - len(rows), -1)])

    # the first rows of all alternatives, then their second ones, ...
    rows = torch.stack([padded(alternative) for alternative in unsafe], dim=1).flatten(0, 1).to(like)
    ops: list[Op] = [Linear(rows[:, :-1], rows[:, -1])]
    if most > 1:
        ops += [Reshape((len(rows),), (most, len(unsafe))), Max()]
    return _appended(graph, ops)


def _appended(graph: Graph, ops: Sequence[Op]) -> Graph:
    nodes = list(graph.nodes)
    for op in ops:
        nodes.append(Node("property", op, (len(nodes) - 1,), op.shape(nodes[-1].shape)))
    return replace(graph, nodes=tuple(nodes))


def _with_one(graph: Graph, like: Tensor) -> Graph:
    """The graph with 1 as one more output."""
    weight = torch.eye(graph.classes + 1, graph.classes, dtype=like.dtype, device=like.device)
    bias = torch.zeros(graph.classes + 1, dtype=like.dtype, device=like.device)
    bias[-1] = 1
    return _appended(graph, [Linear(weight, bias)])


def _with_inputs(graph: Graph) -> Graph:
    """The graph with its inputs as further outputs."""
    nodes, last, source = list(graph.nodes), len(graph.nodes) - 1, 0
    if len(graph.input_shape) != 1:
        flat = Reshape(graph.input_shape, (math.prod(graph.input_shape),))
        nodes.append(Node("property", flat, (0,), flat.output_shape))
        source = last + 1
    join = Concat(0, (graph.classes, math.prod(graph.input_shape)))
    nodes.append(Node("property", join, (last, source), (sum(join.sizes),)))
    return replace(graph, nodes=tuple(nodes))

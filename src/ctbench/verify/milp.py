"""Exact worst cases by mixed-integer programming. Tjeng et al. 2019, "Evaluating robustness of neural networks with
mixed integer programming", section 4 and appendix A.

    minimise <c, output>  over  the input in its box, and for each maximum z = max_i x_i of l_i <= x_i <= u_i

    x_i - z + t_i = 0,   0 <= t_i <= (max over j != i of u_j - l_i) (1 - a_i),   sum a_i = 1,   a_i in {0, 1}

A ReLU is the maximum of x and 0: then t = z - x <= -l (1 - a) and z <= u a, as in the paper. A function of several
straight pieces is a line plus a multiple of max(0, x - k) for each kink k. Only what the bounds of the pre-activations
(`inner`) leave open has columns; everything else is linear, and carried back to the columns before it as by CROWN. The
solver is HiGHS.

    inner = crown.boxes(graph, box)
    exact = minimum(graph, box, c, inner, timeout=60.0)  # exact.lower <= min <c, graph(x)> <= exact.upper

**What the numbers are worth.** `upper` is the value of the network at a point of the box: always true, up to rounding.
`lower` is what HiGHS reports as the least bound of its open nodes, minus a slack. HiGHS computes in double precision
and proves nothing. Of its linear programs, reduced costs may have a wrong sign by up to TOLERANCE, which costs no more
than TOLERANCE times the widths of all columns, and it may close nodes within GAP of its best point; the slack covers
both,

    slack = GAP + TOLERANCE (1 + |bound| + sum of the widths of the columns)

but not a basis that is wrong by more than it is told, nor an error in the solver. Pre-activation bounds are widened by
TOLERANCE (1 + |bound|), so that their own rounding cuts no point off.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.deadline import OutOfTime
from ctbench.domains import crown
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.graph import Graph, Node
from ctbench.graph.ops import Max, PiecewiseLinear
from ctbench.regions import Box, Region
from ctbench.specification import margin_rows, robust_cross_entropy
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.stages import Stage
from ctbench.verify.watch import Watch

TOLERANCE = 1e-9  # how far the solver may leave a row, a reduced cost or an integer
GAP = 1e-7  # between the bound and the best point, at the end
DECIDED = 1e-6  # a margin of this size has a sign, whatever rounding does
SMALLEST = 1e-12  # of a program's coefficients: HiGHS takes what is smaller for 0
ENDS = ("Optimal", "Time limit reached", "Interrupted by user", "Target for objective reached")


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
    threads: int = 1,
    stop_above: float | None = None,
    stop_below: float | None = None,
) -> Exact:
    """The least value of <c, graph(x)> over a box, for one sample, in double precision.

    Args:
        graph: a frozen graph in double precision, of affine and piecewise linear ops, sums, concatenations and maxima.
        box: the inputs, [1, *input].
        c: the form, [*output].
        inner: sound boxes of all nodes, [1, *node], as `crown.boxes` gives them.
        timeout: seconds, for the program and its solution.
        threads: of the solver.
        stop_above: a lower bound above this is good enough.
        stop_below: a point with a value below this is good enough.

    Raises:
        ValueError: an op that is not piecewise linear, a region other than one box in double precision, NaN or
            infinite weights or bounds, boxes that exclude each other, or highspy is not installed.
    """
    end = _end(timeout)
    program = Program.of(graph, box, inner)
    return program.minimum(
        c, timeout=end - time.monotonic(), threads=threads, stop_above=stop_above, stop_below=stop_below
    )


def worst_case(graph: Graph, box: Region, y: int, inner: list[Box], *, timeout: float, threads: int = 1) -> WorstCase:
    """The least margins of label y over a box, each as by `minimum`; `timeout` is for all of them together."""
    end = _end(timeout)
    program = Program.of(graph, box, inner)
    rows = margin_rows(torch.tensor([y]), graph.classes, dtype=torch.float64)[0]
    return WorstCase(tuple(program.minimum(row, timeout=end - time.monotonic(), threads=threads) for row in rows))


def unstable(graph: Graph, inner: list[Box]) -> int:
    """How many neurons of a sample the boxes leave open; of a maximum, all entries count."""
    readers = [node for node in graph.nodes if crown.relaxes(node.op)]
    return sum(int(crown.open_neurons([node], inner[node.inputs[0]]).sum()) for node in readers)


@dataclass(frozen=True, kw_only=True)
class Milp(Stage):
    """The least margin itself, class by class from the smallest bound of CROWN on, until its sign is known.

    Where time is up, the bound is the best that is known by then, and the sample stays open if it is not positive.

    Args:
        unstable: samples with more unstable neurons than this keep the bound of CROWN.
        threads: of the solver.
        share: of a sample's time that it may take.
    """

    proves: ClassVar[bool] = True
    batch_size: int = 1  # samples are solved one by one, so that each has its own time and its own error
    share: float = 1.0
    unstable: int = 500
    threads: int = 1

    @property
    def title(self) -> str:
        return "milp"

    def applies(self, problem: Problem) -> bool:
        ops = (node.op for node in problem.net.nodes if crown.relaxes(node.op))
        return isinstance(problem.region, Box) and all(isinstance(op, PiecewiseLinear | Max) for op in ops)

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        exact = problem.exact
        graph, box = exact.net.to(torch.float64).map(Tensor.cpu), _double_box(exact.region)
        watch = Watch(problem.seconds, len(problem), self.share)
        witness, bounds = exact.x.clone(), list[Tensor]()
        for index, forms in enumerate(exact.spec.cpu()):
            one = torch.tensor([index])
            try:
                bound, point = self._decide(graph, box.take(one), forms, watch.left[index].item())
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

    def _decide(self, graph: Graph, box: Box, forms: Tensor, seconds: float) -> tuple[Tensor, Tensor | None]:
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
            exact = program.minimum(
                forms[k],
                timeout=end - time.monotonic(),
                threads=self.threads,
                stop_above=DECIDED,
                stop_below=-DECIDED,
            )
            bounds[k] = bounds[k].clamp(min=exact.lower)
            if exact.upper < 0:
                return bounds.amin(), exact.point
        return bounds.amin(), None


@dataclass(frozen=True, eq=False)
class _Lowered:
    """f(x) = <slope, x> + offset + sum of weight z for each output; its open entries have columns z."""

    slope: Tensor  # [*node], of a maximum [n, *node]
    offset: Tensor | float
    columns: tuple[tuple[float, Tensor, int], ...] = ()  # weight, open [*node] bool, and the first of their columns


@dataclass(frozen=True, eq=False)
class _Maxima:
    """Columns z = max_i x_i behind those of the input, of entries x_i = <row, columns> + offset."""

    least: Tensor  # [Z], a lower bound of each z
    greatest: Tensor  # [Z]
    z: Tensor  # [E]: the column that each entry belongs to
    rows: Tensor  # [E, N + Z]
    offset: Tensor  # [E]
    reach: Tensor  # [E]: z - x_i is not above this

    @classmethod
    def none(cls, inputs: int) -> _Maxima:
        nothing = torch.empty(0, dtype=torch.float64)
        return cls(nothing, nothing, nothing.long(), nothing.view(0, inputs), nothing, nothing)

    @property
    def columns(self) -> int:
        """N + Z."""
        return self.rows.shape[1]

    def and_of(self, lower: Tensor, upper: Tensor, rows: Tensor, offset: Tensor, keep: Tensor | None = None) -> _Maxima:
        """With maxima of the entries [n, Z] that are kept: their bounds, and for the kept ones rows and offsets."""
        keep = torch.ones_like(lower, dtype=torch.bool) if keep is None else keep
        lower, upper = lower - TOLERANCE * (1 + lower.abs()), upper + TOLERANCE * (1 + upper.abs())
        first, second = upper.topk(2, dim=0).values
        others = torch.where(upper == first, second, first)
        count = lower.shape[1]
        return _Maxima(
            torch.cat([self.least, lower.amax(0)]),
            torch.cat([self.greatest, first]),
            torch.cat([self.z, self.columns + keep.nonzero()[:, 1]]),
            torch.cat([F.pad(self.rows, (0, count)), F.pad(rows, (0, self.columns + count - rows.shape[1]))]),
            torch.cat([self.offset, offset]),
            torch.cat([self.reach, (others - lower)[keep]]),
        )


@dataclass(frozen=True, eq=False)
class Program:
    """The program of a network on a box, but for the objective; for many objectives on one box.

    Its columns are the N inputs, the Z maxima, a t for each of the E entries of the maxima, and an a.
    """

    graph: Graph
    box: Box  # [1, *input]
    lowered: dict[Node, _Lowered]
    maxima: _Maxima

    @classmethod
    def of(cls, graph: Graph, box: Region, inner: list[Box]) -> Program:
        """Arguments and errors are those of `minimum`."""
        box = _one_box(box)
        program = cls(graph, box, {}, _Maxima.none(box.lower.numel()))
        for node in graph.nodes:
            if crown.relaxes(node.op):
                bounds = inner[node.inputs[0]]
                _check_bounds(node, bounds)
                lowered, maxima = program._lower(node, bounds.lower[0], bounds.upper[0])
                program = replace(program, lowered=program.lowered | {node: lowered}, maxima=maxima)
        return program

    def _lower(self, node: Node, lower: Tensor, upper: Tensor) -> tuple[_Lowered, _Maxima]:
        """What a node is made of, for bounds of what it takes, and the maxima with its own."""
        if isinstance(node.op, Max):
            return self._maximum(node, lower, upper)
        if isinstance(node.op, PiecewiseLinear):
            return self._pieces(node, node.op, lower, upper)
        raise ValueError(
            f"{node.name!r} is a {type(node.op).__name__}, which is not piecewise linear: a mixed-integer program "
            f"takes affine and piecewise linear ops, sums, concatenations and maxima; bound this one with a domain"
        )

    def _maximum(self, node: Node, lower: Tensor, upper: Tensor) -> tuple[_Lowered, _Maxima]:
        """One entry, where its lower bound is above the others' upper bounds; else a column."""
        floor, first = lower.max(0, keepdim=True)
        leading = torch.zeros_like(lower).scatter(0, first, 1.0)
        keep = (upper > floor) | (leading > 0)
        wide = keep.sum(0) > 1
        lowered = _Lowered(torch.where(wide, 0.0, leading), 0.0, ((1.0, wide, self.maxima.columns),))
        if not bool(wide.any()):
            return lowered, self.maxima
        rows, offset = self._neurons(node.inputs[0], keep & wide)
        return lowered, self.maxima.and_of(lower[:, wide], upper[:, wide], rows, offset, keep[:, wide])

    def _pieces(self, node: Node, op: PiecewiseLinear, lower: Tensor, upper: Tensor) -> tuple[_Lowered, _Maxima]:
        """f(x) = p_0 x + q + sum over kinks k of (p_k - p_k-1) max(0, x - k)."""
        start = lower.new_tensor(op.kinks[0] if op.kinks else 0.0)
        slope = torch.full_like(lower, op.pieces[0])
        offset, columns, maxima = op(start) - slope * start, list[tuple[float, Tensor, int]](), self.maxima
        for kink, (before, after) in zip(op.kinks, pairwise(op.pieces), strict=True):
            inside, behind, weight = (lower < kink) & (kink < upper), lower >= kink, after - before
            slope, offset = slope + weight * behind, offset - weight * kink * behind
            if bool(inside.any()):
                columns.append((weight, inside, maxima.columns))
                rows, shift = self._neurons(node.inputs[0], inside)
                least, greatest = (_and_zero(end[inside] - kink).view(2, -1) for end in (lower, upper))
                maxima = maxima.and_of(least, greatest, _and_zero(rows), _and_zero(shift - kink))
        return _Lowered(slope, offset, tuple(columns)), maxima

    def _neurons(self, at: int, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Some neurons of a node ([*node] bool) by the columns: rows [S, N + Z] and offsets [S]."""
        index = chosen.flatten().nonzero().T
        return self._rows(crown.neurons(index, tuple(chosen.shape), torch.ones(1, dtype=torch.float64)), at)

    def _rows(self, form: Form, at: int = -1) -> tuple[Tensor, Tensor]:
        """The same for S forms of a node."""
        inputs = self.box.lower.numel()
        rows = torch.zeros(form.count, self.maxima.columns, dtype=torch.float64)

        def relax(node: Node, form: Form) -> Form:
            form, lowered = form.dense(), self.lowered[node]
            a = form.coefficients
            for weight, among, first in lowered.columns:
                part = a[0][:, among]
                rows[:, first : first + part.shape[1]] = weight * part
            constant = form.constant + (a * lowered.offset).flatten(2).sum(2)
            return LinearForm((a.unsqueeze(2) if isinstance(node.op, Max) else a) * lowered.slope, constant)

        found = crown.back_to_input(self.graph, form, relax, None, at).dense()
        rows[:, :inputs] = found.coefficients[0].flatten(1)
        return rows, (found.constant + rows.new_zeros(1, len(rows)))[0]

    def minimum(
        self,
        c: Tensor,
        *,
        timeout: float,
        threads: int = 1,
        stop_above: float | None = None,
        stop_below: float | None = None,
    ) -> Exact:
        """As the function `minimum`; a timeout that is negative is 0."""
        end = time.monotonic() + timeout
        model = self._model(c)
        slack = GAP + TOLERANCE * (1 + float(sum(model.col_upper_) - sum(model.col_lower_)))
        solver = _solver(threads, -math.inf if stop_below is None else stop_below)
        if stop_above is not None:

            def watch(event: Any) -> None:
                if _below(event.data_out.mip_dual_bound, slack) > stop_above:
                    event.interrupt()

            solver.cbMipInterrupt += watch
        solver.setOptionValue("time_limit", max(0.0, end - time.monotonic()))
        solver.passModel(model)
        solver.run()
        status, solution = solver.modelStatusToString(solver.getModelStatus()), solver.getSolution()
        if "infeasible" in status.lower():
            raise ValueError("no input of the box fits the inner boxes: give sound ones, as crown.boxes does")
        lower = _below(self._bound(solver.getInfo(), status), slack)
        if not solution.value_valid:
            return Exact(lower, math.inf, None, status)
        values = torch.tensor(solution.col_value[: self.box.lower.numel()], dtype=torch.float64)
        point = self.box.project(values.view_as(self.box.lower))
        return Exact(lower, (c * self.graph(point)[0]).sum().item(), point[0], status)

    def _bound(self, info: Any, status: str) -> float:
        """What HiGHS has shown that no value is below, if it ended in a way that we know."""
        if status not in ENDS or (status != "Optimal" and not len(self.maxima.z)):
            return -math.inf
        # a program without maxima is linear, and has no bound but its value
        return float(info.mip_dual_bound if len(self.maxima.z) else info.objective_function_value)

    def _model(self, c: Tensor) -> Any:
        """The program as HiGHS takes it: rows x - z + t = 0, then t + reach a <= reach, then sum a = 1 for each z."""
        highspy, maxima, inputs, values = _highspy(), self.maxima, self.box.lower.numel(), self.maxima.columns
        cost, constant = self._rows(LinearForm(c.view(1, 1, *c.shape), 0.0))
        count, at = len(maxima.z), torch.arange(len(maxima.z))
        row, column = maxima.rows.nonzero(as_tuple=True)
        one = torch.ones(count, dtype=torch.float64)
        entries = [  # rows, columns, coefficients
            (row, column, maxima.rows[row, column]),
            (at, maxima.z, -one),
            (at, values + at, one),
            (count + at, values + at, one),
            (count + at, values + count + at, maxima.reach),
            (2 * count + maxima.z - inputs, values + count + at, one),
        ]
        row, column, coefficient = (torch.cat(parts) for parts in zip(*entries, strict=True))
        if not all(bool(torch.isfinite(part).all()) for part in (coefficient, maxima.offset, cost, constant)):
            raise ValueError("the program has NaN or infinite coefficients: look for such weights in the network")
        order = row.argsort(stable=True)
        sums = torch.ones(values - inputs, dtype=torch.float64)
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = values + 2 * count, 2 * count + len(sums)
        model.offset_ = constant.item()
        model.col_cost_ = F.pad(cost[0], (0, 2 * count)).numpy()
        model.col_lower_ = F.pad(torch.cat([self.box.lower.flatten(), maxima.least]), (0, 2 * count)).numpy()
        model.col_upper_ = torch.cat([self.box.upper.flatten(), maxima.greatest, maxima.reach, one]).numpy()
        model.row_lower_ = torch.cat([-maxima.offset, -math.inf * one, sums]).numpy()
        model.row_upper_ = torch.cat([-maxima.offset, maxima.reach, sums]).numpy()
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = F.pad(row.bincount(minlength=model.num_row_).cumsum(0), (1, 0)).int().numpy()
        model.a_matrix_.index_ = column[order].int().numpy()
        model.a_matrix_.value_ = coefficient[order].numpy()
        kinds = highspy.HighsVarType
        model.integrality_ = [kinds.kContinuous] * (values + count) + [kinds.kInteger] * count
        return model


def _and_zero(x: Tensor) -> Tensor:
    """The entries, and as many zeros behind them: what a ReLU is the maximum of."""
    return torch.cat([x, torch.zeros_like(x)])


def _end(timeout: float) -> float:
    """When so many seconds from now are over."""
    if not timeout >= 0:
        raise ValueError(f"timeout is {timeout}: give a number of seconds >= 0")
    return time.monotonic() + timeout


def _below(bound: float, slack: float) -> float:
    """The solver's bound, less what it may be wrong by."""
    return bound - slack - TOLERANCE * abs(bound) if math.isfinite(bound) else -math.inf


def _box(region: Region) -> Box:
    if not isinstance(region, Box):
        raise ValueError(f"the region is a {type(region).__name__}: a mixed-integer program takes a Box")
    return region


def _one_box(region: Region) -> Box:
    box = _box(region)
    if box.lower.dtype != torch.float64 or len(box.lower) != 1:
        raise ValueError(
            f"the box is {box.lower.dtype}, of {len(box.lower)} samples: a program is about one, in double precision"
        )
    return box


def _double_box(region: Region) -> Box:
    box = _box(region)
    return Box(box.lower.double().cpu(), box.upper.double().cpu())


def _check_bounds(node: Node, bounds: Box) -> None:
    ends = torch.stack([bounds.lower, bounds.upper])
    if ends.dtype != torch.float64 or not bool(torch.isfinite(ends).all()):
        raise ValueError(
            f"the bounds of what {node.name!r} takes are {ends.dtype}, NaN or infinite: give finite ones, in double "
            f"precision, of a network with finite weights"
        )


def _solver(threads: int, target: float) -> Any:
    """HiGHS, silent, which stops at a point whose value is below the target."""
    highspy = _highspy()
    highspy.Highs.resetGlobalScheduler(True)  # the threads of a process are those of its first run until then
    solver = highspy.Highs()
    options = {
        "output_flag": False,
        "threads": threads,
        "primal_feasibility_tolerance": TOLERANCE,
        "dual_feasibility_tolerance": TOLERANCE,
        "mip_feasibility_tolerance": TOLERANCE,
        "mip_abs_gap": GAP,
        "mip_rel_gap": 0.0,
        "small_matrix_value": SMALLEST,
        "objective_target": target,
    }
    for name, value in options.items():
        if solver.setOptionValue(name, value) != highspy.HighsStatus.kOk:
            raise ValueError(f"HiGHS does not take {name}={value}")
    return solver


def _highspy() -> Any:
    import highspy  # here, as it takes a moment

    return highspy

"""VNN-LIB properties, decided by the cascade.

A case of a property is an input box and alternatives (A_d, b_d); outputs that satisfy one of them are unsafe. They are
appended to the network f: the case holds if and only if all outputs of

    g_d(x) = max over the rows r of  (A_d f(x) + b_d)_r

are positive on the box. So the margins of the problem are the outputs of one more network, and domains, attacks and
stages know nothing of properties. A margin of 0 proves nothing: it is unsafe if the rows are not strict. The property
itself decides whether a point is a counterexample: its output is unsafe in double precision, and in exact arithmetic.

    result = verify_property(load_onnx("network.onnx"), read_vnnlib("property.vnnlib"))
    result.verdict, result.counterexample
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from ctbench.graph import Graph, Node, Precisions
from ctbench.graph.ops import Linear, Max, Op, Reshape, Shape
from ctbench.onnx import OnnxNetwork
from ctbench.precision import full_float32
from ctbench.regions import Box
from ctbench.results import Open, Verdict
from ctbench.results.failures import by_stage, warn
from ctbench.time_budget import now
from ctbench.verify import rationals
from ctbench.verify.cascade import Cascade, Decision, Replay
from ctbench.verify.defaults import DEFAULT_STAGES
from ctbench.verify.problem import EXACTLY, SMALLEST, Problem
from ctbench.verify.stages import Stage
from ctbench.vnnlib import Case, Halfspaces, Property

Answer: TypeAlias = Literal["holds", "violated", "unknown"]


@dataclass(frozen=True, eq=False, kw_only=True)
class PropertyResult:
    """The answer about a property, and how it was reached."""

    verdict: Answer
    stage: str  # the stage that decided it; if it is unknown, the last one that tried; "" if no stage was needed
    bound: float | None  # the best lower bound of the least margin over all cases; None if a case has no bound
    seconds: float
    reason: str = ""  # why it is unknown, in words
    failed: Mapping[str, str] = field(default_factory=dict)  # the first message of each stage that failed
    open: Open | None = None  # why it is unknown: the first reason of any case that counts; None if it is decided
    counterexample: tuple[Tensor, Tensor] | None = None  # x [*input] and the output for it, [K], in double precision


@full_float32
def verify_property(
    model: nn.Module,
    prop: Property,
    *,
    input_shape: Shape | None = None,
    stages: Sequence[Stage] = DEFAULT_STAGES,
    timeout: float | None = 60.0,
    seed: int = 0,
    replay: Replay | None = None,
) -> PropertyResult:
    """Prove that a network has a property, or find a counterexample.

    The network is taken as at test time. Like in `certify`, bounds and counterexamples count in double precision. A
    counterexample is an input of the exact box with an unsafe output; the edge of a row of <= is unsafe. A stage looks
    at all open cases before the next stage begins. A case without inputs, or without unsafe outputs, holds at once.

    Args:
        model: any network of supported layers.
        prop: about the inputs of the network in C order, and its outputs.
        input_shape: the shape of one input; by default that of an ONNX file, and a vector for any other network.
        stages: the cascade.
        timeout: seconds for all cases together; None for no limit. A stage is broken off at its next pass over the
            network.
        seed: of the attacks.
        replay: another implementation of the network, in any precision: [B, *input] to [B, K]. A counterexample must be
            one there as well.

    Warns:
        StageFailedWarning: stages raised or gave NaN; once, with their titles, cases and first messages.

    Raises:
        UnsupportedLayerError: a layer without an op; says which and what to register.
        ValueError: the property has another number of inputs or outputs than the network; or the timeout or the seed
            is out of range.
    """
    start = now()
    cascade = Cascade(stages=stages, timeout=timeout)
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed is {seed}: it must be a whole number in [0, 2^31)")
    if not isinstance(prop, Property):
        raise ValueError(f"the property is {prop!r}: give a Property, e.g. ctbench.read_vnnlib(path)")
    subject = _Subject.of(model, prop, input_shape)
    problems = [subject.problem(case, replay) for case in map(_unsettled, prop.cases) if case is not None]
    generator = torch.Generator(subject.network.like.device).manual_seed(seed)
    last = Decision(stage="")
    decisions = [last] * len(problems)
    for stage, (place, problem) in product(cascade.stages, enumerate(problems)):
        if decisions[place].verdict is Verdict.UNKNOWN:
            before = replace(decisions[place], seconds=now() - start)  # the time is that of all cases
            decisions[place] = last = replace(cascade, stages=(stage,)).decide(problem, generator, [before])[0]
        if last.verdict is Verdict.FALSIFIED:
            break
    failed = by_stage(decision.failed for decision in decisions)
    warn(failed, stacklevel=3)  # the decorator is one more level
    verdict = _answer(decisions)
    why = _why_open(decisions) if verdict == "unknown" else None
    return PropertyResult(
        verdict=verdict,
        stage=last.stage,
        bound=_least([decision.bound for decision in decisions]),
        seconds=now() - start,
        reason="" if why is None else next(decision.reason for decision in decisions if decision.open is why),
        failed={failure.stage: failure.message for failure in failed},
        open=why,
        counterexample=None if last.witness is None else subject.counterexample(last.witness, prop),
    )


def _unsettled(case: Case) -> Case | None:
    """A case without the alternatives that no outputs satisfy; None if nothing of it remains, so that it holds."""
    unsafe = tuple(alternative for alternative in case.unsafe if not alternative.never)
    return replace(case, unsafe=unsafe) if unsafe and not case.empty else None


def _answer(decisions: Sequence[Decision]) -> Answer:
    """The answer about a property, from the decisions about all its cases."""
    verdicts = {decision.verdict for decision in decisions}
    if Verdict.FALSIFIED in verdicts:
        return "violated"
    return "holds" if verdicts <= {Verdict.CERTIFIED} else "unknown"


def _why_open(decisions: Sequence[Decision]) -> Open:
    """Why some cases are open."""
    return Open.first(*(decision.open for decision in decisions if decision.open is not None))


def _least(bounds: Sequence[float | None]) -> float | None:
    """A bound for all cases; None if a case has no bound."""
    present = [bound for bound in bounds if bound is not None]
    return min(present, default=None) if len(present) == len(bounds) else None


def property_graph(graph: Graph, unsafe: tuple[Halfspaces, ...], like: Tensor) -> Graph:
    """A frozen graph with the margins g of D alternatives as its outputs, [B, D].

    The margins have the precision and the device of `like`.

    Raises:
        ValueError: the graph has another number of outputs than the rows.
    """
    most = max(len(alternative.rows) for alternative in unsafe)

    def padded(alternative: Halfspaces) -> Tensor:
        """The rows with their offsets, [most, K + 1]: the last row is repeated, which changes no maximum."""
        rows = torch.column_stack(alternative.margins())
        return torch.cat([rows, rows[-1:].expand(most - len(rows), -1)])

    # the first rows of all alternatives, then their second ones, ...
    rows = torch.stack([padded(alternative) for alternative in unsafe], dim=1).flatten(0, 1).to(like)
    ops: list[Op] = [Linear(rows[:, :-1], rows[:, -1])]
    if most > 1:
        ops += [Reshape((len(rows),), (most, len(unsafe))), Max()]
    nodes = list(graph.nodes)
    for op in ops:
        nodes.append(Node("property", op, (len(nodes) - 1,), op.shape(nodes[-1].shape)))
    return replace(graph, nodes=tuple(nodes))


@dataclass(frozen=True, eq=False)
class _Subject:
    """The network of a property."""

    network: Precisions

    @classmethod
    def of(cls, model: nn.Module, prop: Property, input_shape: Shape | None) -> _Subject:
        if input_shape is None:
            input_shape = model.input_shape if isinstance(model, OnnxNetwork) else (prop.inputs,)
        if math.prod(input_shape) != prop.inputs:
            raise ValueError(
                f"the property has {prop.inputs} inputs, but an input of the network has shape {tuple(input_shape)}: "
                f"give the property of this network, or another input_shape"
            )
        network = Precisions.of(model, prop.cases[0].lower.view(1, *input_shape))
        classes = network.search.classes
        if classes != prop.outputs:
            raise ValueError(
                f"the property has {prop.outputs} outputs, but the network has {classes}: give the property of this "
                f"network"
            )
        return cls(network)

    def counterexample(self, x: Tensor, prop: Property) -> tuple[Tensor, Tensor]:
        """A counterexample [*input] and the output for it."""
        y = self.outputs(x.unsqueeze(0))[0]
        assert prop.is_counterexample(x, y), "a counterexample of a case is one of the property"
        return x, y

    def outputs(self, points: Tensor) -> Tensor:
        """The outputs that count, for points of the exact box: [B, *input] to [B, K]."""
        return self.network.proof(points)

    def is_unsafe(self, case: Case, problem: Problem, points: Tensor) -> Tensor:
        """Whether points of the exact box, [B, *input], have unsafe outputs in exact arithmetic, [B]."""
        # if no float64 number lies between the bounds of an input, the file's own input is next to the point: it is
        # within one unit in the last place, which below the normal numbers is the smallest number of all
        spread = points.abs() * 2.0**-52 + SMALLEST if case.rounded else 0.0
        alike = problem.select(torch.zeros(len(points), dtype=torch.long, device=points.device))
        unsafe = alike.least_margin(points, spread)[1] < 0
        every = torch.eye(self.network.proof.classes, dtype=torch.float64, device=points.device)
        for place in [] if case.rounded else (~unsafe).nonzero().flatten().tolist()[:EXACTLY]:
            try:
                outputs = rationals.forms(self.network.proof, points[place], every)
            except rationals.NoExactValueError:
                break  # the same holds for all points
            unsafe[place] = any(all(row.contains(outputs) for row in each.comparisons) for each in case.unsafe)
        return unsafe

    def problem(self, case: Case, replay: Replay | None) -> Problem:
        """The problem of a case, in both precisions."""
        network = self.network
        double = _problem(network.proof, case, network.like.double())

        def rule(points: Tensor) -> tuple[Tensor, Tensor]:
            """Points [B, *input] moved into the file's box, and which of them are counterexamples, [B]."""
            points = case.nearest(points.flatten(1)).view_as(points)
            unsafe = case.violated(self.outputs(points)).to(points.device)
            if bool(unsafe.any()):
                unsafe = unsafe.masked_scatter(unsafe, self.is_unsafe(case, double, points[unsafe]))
            for place in unsafe.nonzero().flatten().tolist() if replay is not None else ():
                assert replay is not None
                unsafe[place] = bool(case.violated(replay(points[place : place + 1]).view(-1)))
            return points, unsafe

        double = replace(double, rule=rule)
        return replace(_problem(network.search, case, network.like), double=double)


def _problem(graph: Graph, case: Case, like: Tensor) -> Problem:
    net = property_graph(graph, case.unsafe, like)
    box = Box(*(corner.to(like).view(1, *net.input_shape) for corner in case.around))
    return Problem(net, box.center, box, torch.eye(net.classes, dtype=like.dtype, device=like.device).unsqueeze(0))

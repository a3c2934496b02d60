"""VNN-LIB properties, decided by the cascade.

A case of a property is a set of inputs and alternatives (A_d, b_d); outputs that satisfy one of them are unsafe. The
case holds if and only if max over the rows r of (A_d f(x) + b_d)_r is positive for every d and all its inputs. So the
margins of a problem are outputs of the network with a few more layers (`property_problems`), and domains, attacks and
stages know nothing of properties. A margin of 0 proves nothing: it is unsafe if the rows are not strict. The property
itself decides whether a point is a counterexample: its output is unsafe in double precision, and in exact arithmetic.

    result = verify_property(load_onnx("network.onnx"), read_vnnlib("property.vnnlib"))
    result.verdict, result.counterexample
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from ctbench import memory_budget, time_budget
from ctbench.graph import Precisions
from ctbench.graph.ops import Shape
from ctbench.onnx import OnnxNetwork
from ctbench.precision import full_float32
from ctbench.results import Open, Verdict
from ctbench.results.failures import by_stage, warn
from ctbench.time_budget import now
from ctbench.verify.cascade import Cascade, Decision, Replay
from ctbench.verify.defaults import DEFAULT_STAGES
from ctbench.verify.joint import Joint, joint
from ctbench.verify.problem import Problem
from ctbench.verify.property_problems import Subject, groups
from ctbench.verify.stages import Stage
from ctbench.vnnlib import Case, Property

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
    model: nn.Module | Mapping[str, nn.Module],
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
        model: any network of supported layers; or networks by their names, if the property declares several.
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
        ValueError: the property has another number of inputs or outputs than the network, or declares other networks;
            or the timeout or the seed is out of range.
    """
    start = now()
    cascade = Cascade(stages=stages, timeout=timeout)
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed is {seed}: it must be a whole number in [0, 2^31)")
    if not isinstance(prop, Property):
        raise ValueError(f"the property is {prop!r}: give a Property, e.g. ctbench.read_vnnlib(path)")
    if isinstance(model, Mapping):
        model = joint(model, prop.networks)
    elif len(prop.networks) > 1 and not isinstance(model, Joint):
        names = ", ".join(network.name for network in prop.networks)
        raise ValueError(f"the property declares the networks {names}: give each by its name, e.g. {{'f': model}}")
    subject = Subject(_network(model, prop, input_shape), replay)
    cases = [case for case in map(_unsettled, prop.cases) if case is not None]
    generator = torch.Generator(subject.network.like.device).manual_seed(seed)
    search = _Search(cascade, [subject.problem(members) for members in groups(cases, prop.outputs)], start)
    with time_budget.until(math.inf if timeout is None else start + timeout):
        last = search.run(generator)
    decisions = [decision for members in search.decisions for decision in members]
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
        counterexample=None if last.witness is None else _counterexample(subject, last.witness, prop),
    )


class _Search:
    """The stages one after the other, each on all open cases."""

    def __init__(self, cascade: Cascade, problems: Sequence[Problem], start: float) -> None:
        self.cascade, self.problems, self.start = cascade, problems, start
        self.decisions = [[Decision(stage="")] * len(problem) for problem in problems]

    def run(self, generator: torch.Generator) -> Decision:
        """The decision that the answer is from: the first counterexample, or else the last decision."""
        last = Decision(stage="")
        for stage, (place, problem) in product(self.cascade.stages, enumerate(self.problems)):
            for part in self._parts(stage, place):
                own = self.decisions[place]
                # the time is that of all cases
                before = [replace(own[k], seconds=now() - self.start) for k in part]
                samples = torch.tensor(part, device=problem.x.device)
                after = replace(self.cascade, stages=(stage,)).decide(problem.select(samples), generator, before)
                for k, decision in zip(part, after, strict=True):
                    own[k] = last = decision
                    if decision.verdict is Verdict.FALSIFIED:
                        return decision
        return last

    def _parts(self, stage: Stage, place: int) -> Iterator[list[int]]:
        """The open cases of a problem, in parts that the stage takes at once."""
        size = memory_budget.grown(stage.batch_size, self.problems[place].x.device, stage.memory)
        standing = [k for k, one in enumerate(self.decisions[place]) if one.verdict is Verdict.UNKNOWN]
        for start in range(0, len(standing), size):
            yield standing[start : start + size]


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


def _network(model: nn.Module, prop: Property, input_shape: Shape | None) -> Precisions:
    """The network in both precisions. Raises ValueError if it does not fit the property."""
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
            f"the property has {prop.outputs} outputs, but the network has {classes}: give the property of this network"
        )
    return network


def _counterexample(subject: Subject, x: Tensor, prop: Property) -> tuple[Tensor, Tensor]:
    """A counterexample [*input] and the output for it."""
    y = subject.outputs(x.unsqueeze(0))[0]
    assert prop.is_counterexample(x, y), "a counterexample of a case is one of the property"
    return x, y

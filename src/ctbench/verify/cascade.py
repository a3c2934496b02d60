"""The cascade: stages one after the other, each on the samples that the stages before it left open.

A sample is certified if a lower bound of its least margin is positive (0 is not); the bound is computed in double
precision and rounded outward. It is falsified if a point of its region, replayed, has a negative margin in exact
arithmetic. If a stage fails, finds NaN or has no time left, its samples stay open, and their decisions say why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real

import torch
from torch import Tensor

from ctbench import memory_budget
from ctbench.precision import full_float32
from ctbench.results import Open, Verdict
from ctbench.time_budget import Budget, OutOfTime, now
from ctbench.verify.problem import Findings, Problem, checked
from ctbench.verify.raised import Raised
from ctbench.verify.stages import Stage

OVER = "the time of the whole job was over"
NOT_DECIDED = "all stages have ended without a proof or a counterexample"
Replay = Callable[[Tensor], Tensor]  # points [B, *shape] to outputs, [B, K]


@dataclass(frozen=True, eq=False, kw_only=True)
class Decision:
    """What is known about a sample: from one stage, or from all stages so far."""

    verdict: Verdict = Verdict.UNKNOWN
    stage: str = "clean"  # the stage that reached the verdict; if it is unknown, the last one that tried
    bound: float | None = None  # the best lower bound of the least margin
    seconds: float = 0.0  # the sample's share of the time of its batches
    stage_seconds: Mapping[str, float] = field(default_factory=dict)  # the same by stage
    open: Open | None = Open.UNDECIDED  # why it is unknown; None if it is decided
    reason: str = ""  # the same in words
    witness: Tensor | None = None  # the counterexample, [*shape] in double precision, if it is falsified
    failed: Mapping[str, str] = field(default_factory=dict)  # the first message of each stage that failed

    def charged(self, stage: str, seconds: float) -> Decision:
        """The decision with the seconds that a stage took."""
        stage_seconds = {**self.stage_seconds, stage: self.stage_seconds.get(stage, 0.0) + seconds}
        return replace(self, seconds=self.seconds + seconds, stage_seconds=stage_seconds)

    def decided(self, verdict: Verdict) -> Decision:
        return replace(self, verdict=verdict, open=None, reason="")

    def waiting(self, *reasons: Open) -> Decision:
        """The decision with more reasons to be open; the one that counts first stays."""
        return self if self.open is None else replace(self, open=Open.first(self.open, *reasons))

    def failing(self, failed: Mapping[str, str]) -> Decision:
        """The decision with the messages of stages that failed."""
        new = {stage: message for stage, message in failed.items() if stage not in self.failed}
        decision = replace(self, failed={**self.failed, **new})
        return decision.waiting(Open.ERROR) if failed else decision

    def then(self, later: Decision) -> Decision:
        """The decision with what one more stage says; its time is charged already."""
        best = max((bound for bound in (self.bound, later.bound) if bound is not None), default=None)
        refuted = later.verdict is Verdict.FALSIFIED and best is not None and best > 0
        decision = replace(
            self.failing(later.failed),
            verdict=later.verdict,
            stage=later.stage,
            bound=None if refuted else best,
            witness=later.witness,
        )
        return decision.decided(later.verdict) if later.open is None else decision.waiting(later.open)


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """Stages, and the settings that hold for all of them.

    Args:
        stages: in their order.
        timeout: seconds for each sample, by its share of the time of its batches; None for no limit. When the samples
            of a batch have used up all their time, a stage is broken off at its next pass over the network.
        replay: another implementation of the network, in any precision. A counterexample must be one there as well.
        deadline: the moment at which the whole job ends, on the clock of `ctbench.time_budget`.
    """

    stages: Sequence[Stage]
    timeout: float | None = None
    replay: Replay | None = None
    deadline: float = math.inf

    def __post_init__(self) -> None:
        if isinstance(self.stages, str):
            example = f"ctbench.verify.stages_by_name({self.stages!r})"
            raise ValueError(f"stages is {self.stages!r}: give a list of Stage objects, e.g. {example}")
        object.__setattr__(self, "stages", tuple(self.stages))
        wrong = next((stage for stage in self.stages if not isinstance(stage, Stage)), None)
        if wrong is not None or not self.stages:
            shown = "an empty list" if wrong is None else repr(wrong)
            raise ValueError(
                f"stages must be a list of Stage objects, e.g. [Bound(domain='crown'), BranchAndBound()]; got {shown}"
            )
        if self.timeout is not None and not (isinstance(self.timeout, Real) and 0 < self.timeout < math.inf):
            raise ValueError(f"timeout is {self.timeout!r}: give a number of seconds > 0, or None for no limit")

    def decide(
        self, problem: Problem, generator: torch.Generator, before: Sequence[Decision] | None = None
    ) -> list[Decision]:
        """A decision for each sample of a problem; `before` has the decisions of earlier stages."""
        parts = self.decisions(problem, generator, before)
        decisions = {place: decision for part in parts for place, decision in part.items()}
        return [decisions[place] for place in range(len(problem))]

    @full_float32
    @torch.no_grad()
    def decisions(
        self, problem: Problem, generator: torch.Generator, before: Sequence[Decision] | None = None
    ) -> Iterator[dict[int, Decision]]:
        """The decisions by the places of the samples, as soon as they are reached."""
        standing = dict(enumerate([Decision()] * len(problem) if before is None else before))
        yield _pop_decided(standing)
        for stage in self.stages:
            places, size = list(standing), memory_budget.grown(stage.batch_size, problem.x.device, stage.memory)
            for start in range(0, len(places), size):
                batch = [place for place in places[start : start + size] if self._left(standing[place]) > 0]
                if now() >= self.deadline:
                    standing |= {place: standing[place].waiting(Open.JOB_OVER) for place in batch}
                elif batch:
                    part = problem.select(torch.tensor(batch, device=problem.x.device))
                    decisions = self._look(stage, part, [standing[place] for place in batch], generator)
                    standing |= zip(batch, decisions, strict=True)
                    yield _pop_decided(standing)
        yield {place: self._explained(decision) for place, decision in standing.items()}

    def _left(self, decision: Decision) -> float:
        """The seconds that a sample has left."""
        return math.inf if self.timeout is None else self.timeout - decision.seconds

    def _explained(self, decision: Decision) -> Decision:
        """The decision about an open sample, with the reason in words."""
        if self._left(decision) <= 0:
            decision = decision.waiting(Open.TIME)
        match decision.open:
            case Open.JOB_OVER:
                reason = OVER
            case Open.ERROR:
                reason = "; ".join(f"{stage}: {message}" for stage, message in decision.failed.items())
            case Open.TIME if self.timeout is None:
                reason = "a stage ran out of time"
            case Open.TIME:
                reason = f"{self.timeout:g} seconds were not enough"
            case _:
                reason = decision.reason or NOT_DECIDED
        return replace(decision, reason=reason)

    def _look(
        self, stage: Stage, problem: Problem, before: list[Decision], generator: torch.Generator
    ) -> list[Decision]:
        """The decisions about a batch of open samples, after one more stage."""
        start = now()
        share = (self.deadline - start) / len(before)  # of the time that the whole job has left
        limits = [self._left(decision) for decision in before]
        budget = Budget.of([min(share, own) for own in limits], device=problem.x.device, since=start)
        # a stage may be late because the end of the whole job has shortened its time
        late = [Open.JOB_OVER if share < own else Open.TIME for own in limits]
        with budget.within():
            later = self._tried(stage, replace(problem, budget=budget), generator, late)
        own = [0.0] * len(before) if isinstance(later, Raised) else [decision.seconds for decision in later]
        common = (now() - start - sum(own)) / len(before)
        before = [decision.charged(stage.title, mine + common) for decision, mine in zip(before, own, strict=True)]
        if isinstance(later, Raised):
            if len(before) > 1 and (later.memory or self._can_go_on(before)):
                return self._halved(stage, problem, before, generator, later)
            later = [Decision(stage=stage.title).failing({stage.title: later.message})] * len(before)
        return [decision.then(other) for decision, other in zip(before, later, strict=True)]

    def _can_go_on(self, decisions: list[Decision]) -> bool:
        """Whether a sample has time left."""
        return now() < self.deadline and any(self._left(decision) > 0 for decision in decisions)

    def _halved(
        self, stage: Stage, problem: Problem, before: list[Decision], generator: torch.Generator, raised: Raised
    ) -> list[Decision]:
        """The decisions by halves, after the stage raised for the whole batch: a failure belongs to single samples.

        However often that happens, no sample is looked at more than 1 + log2(samples) times, rounded up.
        """
        half, places = len(before) // 2, torch.arange(len(before), device=problem.x.device)
        after = self._look(stage, problem.select(places[:half]), before[:half], generator)
        after += self._look(stage, problem.select(places[half:]), before[half:], generator)
        if raised.memory or any(new.failed != old.failed for new, old in zip(after, before, strict=True)):
            return after
        # no sample fails alone: without this the message for all of them would be lost
        return [decision.failing({stage.title: raised.message}) for decision in after]

    def _tried(
        self, stage: Stage, problem: Problem, generator: torch.Generator, late: list[Open]
    ) -> list[Decision] | Raised:
        """What a stage says about each sample, or what it raised. `late` has the reason for each sample to be late."""
        try:
            findings = checked(stage(problem, generator), len(problem))
            return self._concluded(stage, problem, findings, generator, late)
        except OutOfTime:
            return [Decision(stage=stage.title).waiting(reason) for reason in late]
        except Exception as error:  # whatever happens in a stage, its samples stay open, and their decisions say why
            return Raised.of(error)

    def _concluded(
        self, stage: Stage, problem: Problem, findings: Findings, generator: torch.Generator, late: list[Open]
    ) -> list[Decision]:
        """The decisions that findings lead to, once their positive bounds are confirmed and their points replayed."""
        decisions = [Decision(stage=stage.title)] * len(problem)
        if findings.bound is not None:
            bounds = self._confirmed(stage, problem, findings.bound.double(), generator)
            decisions = [_bounded(stage.title, bound) for bound in bounds.tolist()]
        if findings.witness is not None:
            decisions = self._with_witnesses(decisions, problem.proof, findings.witness)
        if findings.failed is not None:
            decisions = [decision.failing(failed) for decision, failed in zip(decisions, findings.failed, strict=True)]
        if findings.late is not None:
            decisions = [
                decision.waiting(reason) if is_late else decision
                for decision, reason, is_late in zip(decisions, late, findings.late.tolist(), strict=True)
            ]
        if findings.seconds is not None:
            decisions = [
                replace(decision, seconds=seconds)
                for decision, seconds in zip(decisions, findings.seconds.tolist(), strict=True)
            ]
        return decisions

    def _confirmed(self, stage: Stage, problem: Problem, bound: Tensor, generator: torch.Generator) -> Tensor:
        """The bounds; the positive ones are replaced by what the stage finds in double precision."""
        positive = bound > 0
        if stage.proves or not bool(positive.any()):
            return bound
        again = checked(stage(problem.proof.select(positive), generator), int(positive.sum())).bound
        assert again is not None, "a stage that bounds in one precision bounds in the other"
        return bound.masked_scatter(positive, again.double())

    def _with_witnesses(self, decisions: list[Decision], proof: Problem, witness: Tensor) -> list[Decision]:
        """The decisions with the verdict of points, [B, *shape]: those that are counterexamples after replay."""
        is_finite = witness.flatten(1).isfinite().all(1).tolist()
        points, is_counterexample = proof.counterexamples(proof.region.project(witness.double()))
        if self.replay is not None:
            for place in is_counterexample.nonzero().flatten().tolist():
                outputs = self.replay(points[place : place + 1]).to(proof.spec)
                is_counterexample[place] = bool((proof.spec[place] @ outputs.flatten()).amin() < 0)
        concluded = list(decisions)
        for place, (falsifies, finite) in enumerate(zip(is_counterexample.tolist(), is_finite, strict=True)):
            if falsifies:
                concluded[place] = _falsified(decisions[place], points[place])
            elif not finite:
                concluded[place] = _failed(decisions[place], "the witness is NaN or infinite")
        return concluded


def _bounded(stage: str, bound: float) -> Decision:
    """What a lower bound of the least margin decides."""
    decision = Decision(stage=stage)
    if bound == -math.inf:  # it is true of every margin
        return decision
    if not math.isfinite(bound):
        return _failed(decision, f"the bound is {'NaN' if math.isnan(bound) else 'infinite'}")
    decision = replace(decision, bound=bound)
    return decision.decided(Verdict.CERTIFIED) if bound > 0 else decision


def _falsified(decision: Decision, point: Tensor) -> Decision:
    """What a counterexample decides, whatever the bound: [*shape]."""
    return replace(decision.decided(Verdict.FALSIFIED), witness=point.clone())


def _failed(decision: Decision, message: str) -> Decision:
    """The decision, which is open whatever the bound, if the stage itself failed."""
    opened = replace(decision, verdict=Verdict.UNKNOWN, open=Open.ERROR)
    return opened.failing({decision.stage: message})


def _pop_decided(standing: dict[int, Decision]) -> dict[int, Decision]:
    """Take out the decided samples, and return them."""
    decided = [place for place, decision in standing.items() if decision.verdict is not Verdict.UNKNOWN]
    return {place: standing.pop(place) for place in decided}

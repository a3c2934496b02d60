"""The cascade: stages one after the other, each on what the former left open.

A sample is certified when a lower bound of its least margin, computed in double precision and rounded outward, is
positive (0 is not). It is falsified when a point of its region, replayed, has a negative margin in exact arithmetic. A
stage that fails, finds NaN or has no time left leaves its samples open, and their decisions say why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real

import torch
from torch import Tensor

from ctbench import budget, deadline
from ctbench.deadline import OutOfTime
from ctbench.precision import full_float32
from ctbench.results import Verdict
from ctbench.verify.problem import Problem, checked
from ctbench.verify.raised import Raised
from ctbench.verify.stages import Stage

OVER = "the time of the whole job was over"
Replay = Callable[[Tensor], Tensor]  # points [B, *shape] to outputs, [B, K]


@dataclass(frozen=True, eq=False, kw_only=True)
class Decision:
    """What is known about a sample, and who found it out."""

    verdict: Verdict = Verdict.UNKNOWN
    stage: str = "clean"  # that reached the verdict; the last one that tried, where it is unknown
    bound: float | None = None  # the best lower bound of the least margin
    seconds: float = 0.0  # the sample's share of what its batches took
    stage_seconds: Mapping[str, float] = field(default_factory=dict)  # the same, stage by stage
    reason: str = ""  # why it is unknown, in words, where a stage failed or time was over
    witness: Tensor | None = None  # the counterexample, [*shape] in double precision, where it is falsified
    late: bool = False  # whether it is unknown and more seconds could have told more
    cut: bool = False  # whether it is unknown and the end of the whole job took time from a stage
    failed: Mapping[str, str] = field(default_factory=dict)  # the first message of each stage that failed

    def charged(self, stage: str, seconds: float) -> Decision:
        """With seconds that a stage took."""
        so_far = self.stage_seconds.get(stage, 0.0)
        stage_seconds = {**self.stage_seconds, stage: so_far + seconds}
        return replace(self, seconds=self.seconds + seconds, stage_seconds=stage_seconds)

    def failing(self, failed: Mapping[str, str]) -> Decision:
        """With the messages of stages that failed."""
        new = {stage: message for stage, message in failed.items() if stage not in self.failed}
        return replace(self, failed={**self.failed, **new})

    def after(self, stage: str, outcome: _Outcome, *, cut: bool) -> Decision:
        """With what one more stage found out; `cut` where the end of the whole job left it less time."""
        verdict = Verdict.UNKNOWN
        if outcome.witness is not None:
            verdict = Verdict.FALSIFIED
        elif outcome.certified:
            verdict = Verdict.CERTIFIED
        undecided = verdict is Verdict.UNKNOWN
        best = max((bound for bound in (self.bound, outcome.bound) if bound is not None), default=None)
        return replace(
            self.failing({**outcome.failed, **({stage: outcome.reason} if outcome.reason else {})}),
            verdict=verdict,
            stage=stage,
            bound=None if verdict is Verdict.FALSIFIED and best is not None and best > 0 else best,
            reason=self.reason if undecided else "",
            witness=outcome.witness,
            late=undecided and (self.late or outcome.late),
            cut=undecided and (self.cut or (cut and outcome.late)),
        )


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """Stages, and what holds for all of them.

    Args:
        stages: in their order.
        timeout: seconds for each sample, by its share of what its batches take; None for no limit. When the samples
            of a batch have used up all of theirs a stage is broken off at its next pass over the network.
        replay: another implementation of the network, in whatever precision. A counterexample must be one there, too.
        deadline: when the whole job ends, on the clock of time.perf_counter.
    """

    stages: tuple[Stage, ...]
    timeout: float | None = None
    replay: Replay | None = None
    deadline: float = math.inf

    def __post_init__(self) -> None:
        wrong = next((stage for stage in self.stages if not isinstance(stage, Stage)), None)
        if wrong is not None or not self.stages:
            given = "there are none" if wrong is None else f"{wrong!r} is none"
            raise ValueError(f"stages must be a list of stages, as [Bound(domain='crown'), BranchAndBound()]: {given}")
        if self.timeout is not None and not (isinstance(self.timeout, Real) and 0 < self.timeout < math.inf):
            raise ValueError(f"timeout is {self.timeout!r}: give a number of seconds > 0, or None for no limit")

    def decide(
        self, problem: Problem, generator: torch.Generator, before: Sequence[Decision] | None = None
    ) -> list[Decision]:
        """A decision for each sample of a problem; `before` is what is known of them so far."""
        found = {place: known for part in self.decisions(problem, generator, before) for place, known in part.items()}
        return [found[place] for place in range(len(problem))]

    @full_float32
    @torch.no_grad()
    def decisions(
        self, problem: Problem, generator: torch.Generator, before: Sequence[Decision] | None = None
    ) -> Iterator[dict[int, Decision]]:
        """The same by the samples' places, as soon as they are known."""
        standing = dict(enumerate([Decision()] * len(problem) if before is None else before))
        yield _settled(standing)
        for stage in self.stages:
            places, size = list(standing), budget.grown(stage.batch_size, problem.x.device, stage.memory)
            for start in range(0, len(places), size):
                batch = [place for place in places[start : start + size] if self._left(standing[place]) > 0]
                if time.perf_counter() >= self.deadline:
                    standing |= {place: replace(standing[place], cut=True) for place in batch}
                elif batch:
                    part = problem.select(torch.tensor(batch, device=problem.x.device))
                    known = self._look(stage, part, [standing[place] for place in batch], generator)
                    standing |= zip(batch, known, strict=True)
                    yield _settled(standing)
        yield {place: self._explained(decision) for place, decision in standing.items()}

    def _left(self, decision: Decision) -> float:
        """The seconds that a sample has left."""
        return math.inf if self.timeout is None else self.timeout - decision.seconds

    def _explained(self, decision: Decision) -> Decision:
        """The decision about a sample that no stage could decide."""
        if decision.cut:
            return replace(decision, reason=OVER)
        late = decision.late or self._left(decision) <= 0
        if decision.failed:
            told = "; ".join(f"{stage}: {message}" for stage, message in decision.failed.items())
            return replace(decision, reason=told, late=late)
        if not late:
            return decision
        told = "a stage ran out of time" if self.timeout is None else f"{self.timeout:g} seconds were not enough"
        return replace(decision, reason=told, late=True)

    def _look(
        self, stage: Stage, problem: Problem, before: list[Decision], generator: torch.Generator
    ) -> list[Decision]:
        """The decisions about a batch of open samples, after one more stage."""
        start = time.perf_counter()
        share = (self.deadline - start) / len(problem)  # of what the whole job has left
        left = [self._left(decision) for decision in before]
        if min(share, *left) < math.inf:
            seconds = torch.tensor([min(share, own) for own in left], device=problem.x.device)
            problem = replace(problem, seconds=seconds)
        with deadline.until(start + sum(max(0.0, min(share, own)) for own in left)):
            outcomes = self._tried(stage, problem, generator)
        own = [0.0] * len(before) if isinstance(outcomes, Raised) else [outcome.seconds for outcome in outcomes]
        common = (time.perf_counter() - start - sum(own)) / len(before)
        before = [decision.charged(stage.title, mine + common) for decision, mine in zip(before, own, strict=True)]
        if isinstance(outcomes, Raised):
            if len(before) > 1 and (outcomes.memory or self._can_go_on(before)):
                return self._halved(stage, problem, before, generator, outcomes)
            outcomes = [_Outcome(reason=outcomes.message)] * len(before)
        return [
            decision.after(stage.title, outcome, cut=share < limit)
            for decision, outcome, limit in zip(before, outcomes, left, strict=True)
        ]

    def _can_go_on(self, decisions: list[Decision]) -> bool:
        """Whether any of some samples has time left."""
        return time.perf_counter() < self.deadline and any(self._left(decision) > 0 for decision in decisions)

    def _halved(
        self, stage: Stage, problem: Problem, before: list[Decision], generator: torch.Generator, raised: Raised
    ) -> list[Decision]:
        """The same by halves, where the stage raised for the whole batch: the failure is that of the samples alone.

        However often that happens, each sample is looked at no more than 1 + log2(samples) times, rounded up.
        """
        half, places = len(before) // 2, torch.arange(len(before), device=problem.x.device)
        found = self._look(stage, problem.select(places[:half]), before[:half], generator)
        found += self._look(stage, problem.select(places[half:]), before[half:], generator)
        if raised.memory or any(now.failed != then.failed for now, then in zip(found, before, strict=True)):
            return found
        # no sample fails by itself: what the stage raised for all of them would be told nowhere
        return [decision.failing({stage.title: raised.message}) for decision in found]

    def _tried(self, stage: Stage, problem: Problem, generator: torch.Generator) -> list[_Outcome] | Raised:
        """What a stage finds out about each sample, or what it raised."""
        try:
            return self._outcomes(stage, problem, generator)
        except OutOfTime:
            return [_Outcome(late=True)] * len(problem)
        except Exception as error:  # whatever happens in a stage, its samples stay open, and their decisions say why
            return Raised.of(error)

    def _outcomes(self, stage: Stage, problem: Problem, generator: torch.Generator) -> list[_Outcome]:
        """What a stage finds out about each sample, with what would decide it confirmed or replayed."""
        findings = checked(stage(problem, generator), len(problem))
        outcomes = [_Outcome()] * len(problem)
        if findings.bound is not None:
            bound = self._confirmed(stage, problem, findings.bound.double(), generator)
            outcomes = [_Outcome.of(each) for each in bound.tolist()]
        if findings.witness is not None:
            finite = findings.witness.flatten(1).isfinite().all(1).tolist()
            outcomes = [
                outcome if is_finite else replace(outcome, reason="the witness is NaN or infinite", certified=False)
                for outcome, is_finite in zip(outcomes, finite, strict=True)
            ]
            points, falsified = self._replayed(problem.proof, findings.witness)
            outcomes = [
                replace(outcome, witness=point.clone(), certified=False) if is_counterexample else outcome
                for outcome, point, is_counterexample in zip(outcomes, points, falsified.tolist(), strict=True)
            ]
        if findings.late is not None:
            outcomes = [
                replace(outcome, late=late) for outcome, late in zip(outcomes, findings.late.tolist(), strict=True)
            ]
        if findings.failed is not None:
            outcomes = [
                replace(outcome, failed=failed) for outcome, failed in zip(outcomes, findings.failed, strict=True)
            ]
        if findings.seconds is not None:
            outcomes = [
                replace(outcome, seconds=seconds)
                for outcome, seconds in zip(outcomes, findings.seconds.tolist(), strict=True)
            ]
        return outcomes

    def _confirmed(self, stage: Stage, problem: Problem, bound: Tensor, generator: torch.Generator) -> Tensor:
        """The bounds, those that would certify replaced by what the stage finds in double precision."""
        positive = bound > 0
        if stage.proves or not bool(positive.any()):
            return bound
        again = checked(stage(problem.proof.select(positive), generator), int(positive.sum())).bound
        assert again is not None, "a stage that bounds in one precision bounds in the other"
        return bound.masked_scatter(positive, again.double())

    def _replayed(self, proof: Problem, witness: Tensor) -> tuple[Tensor, Tensor]:
        """The witnesses, moved into the exact regions, and which of them are counterexamples."""
        points = proof.region.project(witness.double())
        points, falsified = proof.counterexamples(points)
        if self.replay is not None:
            for place in falsified.nonzero().flatten().tolist():
                outputs = self.replay(points[place : place + 1]).to(proof.spec)
                falsified[place] = bool((proof.spec[place] @ outputs.flatten()).amin() < 0)
        return points, falsified


@dataclass(frozen=True, eq=False, kw_only=True)
class _Outcome:
    """What a stage found out about one sample."""

    bound: float | None = None
    certified: bool = False
    witness: Tensor | None = None
    reason: str = ""  # why the stage failed
    failed: Mapping[str, str] = field(default_factory=dict)  # the messages of other stages that it asked
    late: bool = False
    seconds: float = 0.0  # that it took by itself

    @classmethod
    def of(cls, bound: float) -> _Outcome:
        if bound == -math.inf:  # it is true of every margin
            return cls()
        if not math.isfinite(bound):
            return cls(reason=f"the bound is {'NaN' if math.isnan(bound) else 'infinite'}")
        return cls(bound=bound, certified=bound > 0)


def _settled(standing: dict[int, Decision]) -> dict[int, Decision]:
    """Take out what is decided."""
    decided = [place for place, decision in standing.items() if decision.verdict is not Verdict.UNKNOWN]
    return {place: standing.pop(place) for place in decided}

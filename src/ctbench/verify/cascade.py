"""The cascade: stages one after the other, each on what the former left open.

A sample is certified when a lower bound of its least margin is positive in double precision, too (0 is not), by more
than rounding could add. It is falsified when a point of its region, replayed in double precision, has a negative margin
by as much. A stage that fails, finds NaN or has no time left leaves its samples open, and their decisions say why.
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
from ctbench.verify.problem import Findings, Problem
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
    reason: str = ""  # what failed
    witness: Tensor | None = None  # the counterexample, [*shape] in double precision, where it is falsified
    late: bool = False  # whether it is unknown and more seconds could have told more
    cut: bool = False  # whether it is unknown and the end of the whole job took time from a stage

    def charged(self, stage: str, seconds: float) -> Decision:
        """With seconds that a stage took."""
        so_far = self.stage_seconds.get(stage, 0.0)
        stage_seconds = {**self.stage_seconds, stage: so_far + seconds}
        return replace(self, seconds=self.seconds + seconds, stage_seconds=stage_seconds)

    def after(self, stage: str, outcome: _Outcome, *, cut: bool) -> Decision:
        """With what one more stage found out; `cut` where the end of the whole job left it less time."""
        verdict = Verdict.UNKNOWN
        if outcome.witness is not None:
            verdict = Verdict.FALSIFIED
        elif outcome.certified:
            verdict = Verdict.CERTIFIED
        undecided = verdict is Verdict.UNKNOWN
        reasons = [self.reason, f"{stage}: {outcome.reason}" if outcome.reason else ""]
        return replace(
            self,
            verdict=verdict,
            stage=stage,
            bound=max((bound for bound in (self.bound, outcome.bound) if bound is not None), default=None),
            reason="; ".join(reason for reason in reasons if reason) if undecided else "",
            witness=outcome.witness,
            late=undecided and (self.late or outcome.late),
            cut=undecided and (self.cut or (cut and outcome.late)),
        )


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """Stages, and what holds for all of them.

    Args:
        stages: in their order.
        confirm: compute every bound that certifies once more in double precision.
        timeout: seconds for each sample, by its share of what its batches take; None for no limit. When the samples
            of a batch have used up all of theirs a stage is broken off at its next pass over the network.
        replay: another implementation of the network, in whatever precision. A counterexample must be one there, too.
        deadline: when the whole job ends, on the clock of time.perf_counter.
    """

    stages: tuple[Stage, ...]
    confirm: bool = True
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
        if decision.reason or not (decision.late or self._left(decision) <= 0) or self.timeout is None:
            return decision
        return replace(decision, reason=f"{self.timeout:g} seconds were not enough")

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
        own = [outcome.seconds for outcome in outcomes or ()] or [0.0] * len(before)
        common = (time.perf_counter() - start - sum(own)) / len(before)
        before = [decision.charged(stage.title, mine + common) for decision, mine in zip(before, own, strict=True)]
        if outcomes is None:
            half, places = len(before) // 2, torch.arange(len(before), device=problem.x.device)
            first = self._look(stage, problem.select(places[:half]), before[:half], generator)
            return first + self._look(stage, problem.select(places[half:]), before[half:], generator)
        return [
            decision.after(stage.title, outcome, cut=share < limit)
            for decision, outcome, limit in zip(before, outcomes, left, strict=True)
        ]

    def _tried(self, stage: Stage, problem: Problem, generator: torch.Generator) -> list[_Outcome] | None:
        """What a stage finds out about each sample; None if memory did not suffice, and may for fewer samples."""
        try:
            return self._outcomes(stage, problem, generator)
        except OutOfTime:
            return [_Outcome(late=True)] * len(problem)
        except Exception as error:  # whatever happens in a stage, its samples stay open, and their decisions say why
            if budget.is_out_of_memory(error) and len(problem) > 1:
                return None  # the halves come when this error is gone: it holds on to all that its frames hold
            return [_Outcome(reason=f"{type(error).__name__}: {error}")] * len(problem)

    def _outcomes(self, stage: Stage, problem: Problem, generator: torch.Generator) -> list[_Outcome]:
        """What a stage finds out about each sample, with what would decide it confirmed or replayed."""
        findings = _checked(stage(problem, generator), len(problem))
        outcomes = [_Outcome()] * len(problem)
        if findings.bound is not None:
            bound = self._confirmed(stage, problem, findings.bound.double(), generator)
            positive = bound > 0
            certified = positive
            if bool(positive.any()):
                beyond = bound[positive] > problem.exact.select(positive).rounding
                certified = positive.masked_scatter(positive, beyond)
            outcomes = [_Outcome.of(*pair) for pair in zip(bound.tolist(), certified.tolist(), strict=True)]
        if findings.witness is not None:
            points, falsified = self._replayed(problem.exact, findings.witness)
            outcomes = [
                replace(outcome, witness=point.clone(), certified=False) if turned else outcome
                for outcome, point, turned in zip(outcomes, points, falsified.tolist(), strict=True)
            ]
        if findings.late is not None:
            outcomes = [
                replace(outcome, late=late) for outcome, late in zip(outcomes, findings.late.tolist(), strict=True)
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
        if stage.proves or not self.confirm or not bool(positive.any()):
            return bound
        again = _checked(stage(problem.exact.select(positive), generator), int(positive.sum())).bound
        assert again is not None, "a stage that bounds in one precision bounds in the other"
        return bound.masked_scatter(positive, again.double())

    def _replayed(self, exact: Problem, witness: Tensor) -> tuple[Tensor, Tensor]:
        """The witnesses, moved into the exact regions, and which of them are counterexamples."""
        points = exact.region.project(witness.double())
        values = exact.margins(points).amin(-1)
        falsified = values < 0
        if bool(falsified.any()):
            falsified = values < -exact.rounding
        if self.replay is not None:
            for place in falsified.nonzero().flatten().tolist():
                outputs = self.replay(points[place : place + 1]).to(exact.spec)
                falsified[place] = bool((exact.spec[place] @ outputs.flatten()).amin() < 0)
        return points, falsified


@dataclass(frozen=True, eq=False, kw_only=True)
class _Outcome:
    """What a stage found out about one sample."""

    bound: float | None = None
    certified: bool = False
    witness: Tensor | None = None
    reason: str = ""
    late: bool = False
    seconds: float = 0.0  # that it took by itself

    @classmethod
    def of(cls, bound: float, certified: bool) -> _Outcome:
        if not math.isfinite(bound):
            return cls(reason=f"the bound is {'NaN' if math.isnan(bound) else 'infinite'}")
        return cls(bound=bound, certified=certified)


def _settled(standing: dict[int, Decision]) -> dict[int, Decision]:
    """Take out what is decided."""
    decided = [place for place, decision in standing.items() if decision.verdict is not Verdict.UNKNOWN]
    return {place: standing.pop(place) for place in decided}


def _checked(findings: Findings, samples: int) -> Findings:
    """The findings of a stage, if they are about this many samples."""
    bound, witness = findings.bound, findings.witness
    if bound is not None and tuple(bound.shape) != (samples,):
        raise ValueError(f"the stage gave bounds of shape {tuple(bound.shape)} for {samples} samples")
    if witness is not None and len(witness) != samples:
        raise ValueError(f"the stage gave {len(witness)} witnesses for {samples} samples")
    return findings

"""The cascade: stages one after the other, each on what the former left open.

A sample is certified when a lower bound of its least margin is positive in double precision, too (0 is not), by more
than rounding could add. It is falsified when a point of its region, replayed in double precision, has a negative margin
by as much. A stage that fails, finds NaN or has no time left leaves its samples open, and their decisions say why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctbench.results import Verdict
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.stages import Stage

Replay = Callable[[Tensor], Tensor]  # points [B, *shape] to outputs, [B, K]


@dataclass(frozen=True, eq=False, kw_only=True)
class Decision:
    """What is known about a sample, and who found it out."""

    verdict: Verdict = Verdict.UNKNOWN
    stage: str = "clean"  # that reached the verdict; the last one that tried, where it is unknown
    bound: float | None = None  # the best lower bound of the least margin
    seconds: float = 0.0  # the sample's share of what its batches took
    reason: str = ""  # what failed
    witness: Tensor | None = None  # the counterexample, [*shape] in double precision, where it is falsified

    def after(self, stage: str, outcome: _Outcome, seconds: float) -> Decision:
        """With what one more stage found out."""
        verdict = Verdict.UNKNOWN
        if outcome.witness is not None:
            verdict = Verdict.FALSIFIED
        elif outcome.certified:
            verdict = Verdict.CERTIFIED
        reasons = [self.reason, f"{stage}: {outcome.reason}" if outcome.reason else ""]
        return Decision(
            verdict=verdict,
            stage=stage,
            bound=max((bound for bound in (self.bound, outcome.bound) if bound is not None), default=None),
            seconds=self.seconds + seconds,
            reason="" if verdict is not Verdict.UNKNOWN else "; ".join(reason for reason in reasons if reason),
            witness=outcome.witness,
        )


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """Stages, and what holds for all of them.

    Args:
        stages: in their order.
        confirm: compute every bound that certifies once more in double precision.
        timeout: seconds for each sample, by its share of what its batches take; None for no limit. A stage that has
            begun sees to it by itself, or ends.
        replay: another implementation of the network, in whatever precision. A counterexample must be one there, too.
    """

    stages: tuple[Stage, ...]
    confirm: bool = True
    timeout: float | None = None
    replay: Replay | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout is {self.timeout}: give a number of seconds > 0, or None for no limit")

    @torch.no_grad()
    def decide(
        self, problem: Problem, generator: torch.Generator, before: Sequence[Decision] | None = None
    ) -> list[Decision]:
        """A decision for each sample of a problem; `before` is what is known of them so far."""
        found = [Decision()] * len(problem) if before is None else list(before)
        for stage in self.stages:
            standing = [i for i, decision in enumerate(found) if decision.verdict is Verdict.UNKNOWN]
            for start in range(0, len(standing), stage.batch_size):
                places = [i for i in standing[start : start + stage.batch_size] if self._left(found[i]) > 0]
                if places:
                    part = problem.select(torch.tensor(places, device=problem.x.device))
                    known = self._look(stage, part, [found[i] for i in places], generator)
                    for place, decision in zip(places, known, strict=True):
                        found[place] = decision
        return [self._explained(decision) for decision in found]

    def _left(self, decision: Decision) -> float:
        """The seconds that a sample has left."""
        return math.inf if self.timeout is None else self.timeout - decision.seconds

    def _explained(self, decision: Decision) -> Decision:
        if decision.verdict is not Verdict.UNKNOWN or decision.reason or self._left(decision) > 0:
            return decision
        return replace(decision, reason=f"{self.timeout:g} seconds were not enough")

    def _look(
        self, stage: Stage, problem: Problem, before: list[Decision], generator: torch.Generator
    ) -> list[Decision]:
        """The decisions about a batch of open samples, after one more stage."""
        start = time.perf_counter()
        if self.timeout is not None:
            problem = replace(problem, seconds=torch.tensor([self._left(decision) for decision in before]))
        try:
            outcomes = self._outcomes(stage, problem, generator)
        except Exception as error:  # whatever happens in a stage, its samples stay open, and their decisions say why
            if _out_of_memory(error) and len(problem) > 1:
                return self._in_halves(stage, problem, before, generator, time.perf_counter() - start)
            outcomes = [_Outcome(reason=f"{type(error).__name__}: {error}")] * len(problem)
        seconds = (time.perf_counter() - start) / len(problem)
        return [
            decision.after(stage.title, outcome, seconds) for decision, outcome in zip(before, outcomes, strict=True)
        ]

    def _in_halves(
        self, stage: Stage, problem: Problem, before: list[Decision], generator: torch.Generator, lost: float
    ) -> list[Decision]:
        """The same for a batch that did not fit into memory, after `lost` seconds of trying."""
        before = [replace(decision, seconds=decision.seconds + lost / len(before)) for decision in before]
        half = len(before) // 2
        places = torch.arange(len(before), device=problem.x.device)
        first = self._look(stage, problem.select(places[:half]), before[:half], generator)
        return first + self._look(stage, problem.select(places[half:]), before[half:], generator)

    def _outcomes(self, stage: Stage, problem: Problem, generator: torch.Generator) -> list[_Outcome]:
        """What a stage finds out about each sample, with what would decide it confirmed or replayed."""
        findings = _checked(stage(problem, generator), len(problem))
        outcomes = [_Outcome()] * len(problem)
        if findings.bound is not None:
            bound = self._confirmed(stage, problem, findings.bound.double(), generator)
            certified = bound > problem.exact.rounding if bool((bound > 0).any()) else torch.zeros_like(bound).bool()
            outcomes = [_Outcome.of(*pair) for pair in zip(bound.tolist(), certified.tolist(), strict=True)]
        if findings.witness is not None:
            points, falsified = self._replayed(problem.exact, findings.witness)
            outcomes = [
                replace(outcome, witness=point.clone(), certified=False) if turned else outcome
                for outcome, point, turned in zip(outcomes, points, falsified.tolist(), strict=True)
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

    @classmethod
    def of(cls, bound: float, certified: bool) -> _Outcome:
        if not math.isfinite(bound):
            return cls(reason=f"the bound is {'NaN' if math.isnan(bound) else 'infinite'}")
        return cls(bound=bound, certified=certified)


def _checked(findings: Findings, samples: int) -> Findings:
    """The findings of a stage, if they are about this many samples."""
    bound, witness = findings.bound, findings.witness
    if bound is not None and tuple(bound.shape) != (samples,):
        raise ValueError(f"the stage gave bounds of shape {tuple(bound.shape)} for {samples} samples")
    if witness is not None and len(witness) != samples:
        raise ValueError(f"the stage gave {len(witness)} witnesses for {samples} samples")
    return findings


def _out_of_memory(error: Exception) -> bool:
    """Whether torch had no memory left: on a CPU it says so in words alone."""
    words = ("not enough memory", "can't allocate memory", "Cannot allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)

"""A certification as a value: labelled samples, and the job that makes records of them, chunk by chunk."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ctbench.graph import Precisions
from ctbench.precision import full_float32
from ctbench.regions import Threat
from ctbench.results import SampleRecord, Verdict
from ctbench.specification import check_labels, check_samples
from ctbench.time_budget import now
from ctbench.verify.cascade import Cascade, Decision
from ctbench.verify.problem import Problem
from ctbench.verify.stages import Stage

CHUNK = 1024  # samples that go through all stages together, at most: few of them reach the last stages
ROUNDING = "outward"  # how bounds that certify are rounded: records say it, because other bounds would prove less
NOT_FINITE = "the logits are NaN or infinite"
TIE = "clean: another logit is as great as that of the label"
UNDECIDED = "clean: rounding leaves open whether the prediction is right"
SHARES = 4  # a chunk is at most this part of a worker's share of the samples that are left


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled inputs: all inputs of a certification, or a chunk of them."""

    indices: range | list[int]  # in their data set
    x: Tensor  # [N, *shape]
    y: Tensor  # [N]

    def take(self, places: list[int]) -> Samples:
        return Samples([self.indices[place] for place in places], self.x[places], self.y[places])

    def digest(self, place: int) -> str:
        """The digest of a sample: of its input and its label."""
        content = self.x[place].double().cpu().contiguous().numpy().tobytes()
        return hashlib.sha256(content + str(int(self.y[place])).encode()).hexdigest()[:16]

    def recognize(self, record: SampleRecord) -> None:
        """Raise ValueError if a record is about another input or label than the sample with its index."""
        place = self.indices.index(record.index)
        if (record.digest, record.label) != (self.digest(place), int(self.y[place])):
            raise ValueError(f"the record of sample {record.index} is about another input or label: choose other files")

    def record(self, place: int, decision: Decision, prediction: int = -1) -> SampleRecord:
        """The record of a decision about a sample."""
        return SampleRecord(
            index=self.indices[place],
            label=int(self.y[place]),
            prediction=prediction,
            verdict=decision.verdict,
            stage=decision.stage,
            bound=decision.bound,
            seconds=decision.seconds,
            stage_seconds=dict(decision.stage_seconds),
            digest=self.digest(place),
            open=decision.open,
            reason=decision.reason,
            counterexample=None if decision.witness is None else decision.witness.cpu().numpy(),
            failed=dict(decision.failed),
        )


def chunks(missing: NDArray[np.int64], workers: int) -> Iterator[list[int]]:
    """Samples in chunks.

    For one worker they begin at fixed indices. For several, each has its part of the samples that are left, so they
    become smaller, down to one sample: then no worker waits long for slow samples of another one.

    Args:
        missing: the indices of the samples that are not done yet, ascending, [N].
        workers: the number of workers.
    """
    if workers == 1:
        starts = np.flatnonzero(np.diff(missing // CHUNK)) + 1
        yield from (chunk.tolist() for chunk in np.split(missing, starts) if len(chunk))
        return
    start = 0
    while start < len(missing):
        size = max(1, min(CHUNK, (len(missing) - start) // (workers * SHARES)))
        yield missing[start : start + size].tolist()
        start += size


@dataclass(frozen=True, eq=False)
class Job:
    """How samples are certified."""

    network: Precisions
    threat: Threat
    cascade: Cascade
    seed: int

    @classmethod
    @full_float32
    def of(cls, model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, cascade: Cascade, seed: int) -> Job:
        threat.check(x)
        check_samples(x, y)
        network = Precisions.of(model, x[:1])
        check_labels(y, network.search.classes)
        return cls(network, threat, cascade, seed)

    def settings(self) -> dict[str, Any]:
        """Everything that the records depend on. Raises ValueError if a stage or threat does not say what it is."""
        return {
            "network_digest": self.network.proof.digest(),
            "precision": str(self.network.like.dtype),
            "norm": self.threat.name,
            "eps": self.threat.eps,
            "threat": _described(f"the threat model {self.threat.name!r}", self.threat),
            "stages": [_described(f"the stage {stage.title!r}", stage) for stage in self.cascade.stages],
            "timeout": self.cascade.timeout,
            "rounding": ROUNDING,
            "replayed": self.cascade.replay is not None,
            "seed": self.seed,
        }

    def within(self, seconds: float) -> Job:
        """The job if it ends this many seconds from now, on the clock of this machine."""
        return replace(self, cascade=replace(self.cascade, deadline=now() + seconds))

    @full_float32
    @torch.no_grad()
    def records(self, chunk: Samples) -> Iterator[list[SampleRecord]]:
        """The records of some samples, which go through all stages together, as soon as they are decided."""
        problem = self.problem(chunk)
        before, predictions = self._clean(problem.proof, chunk.y)
        right = [place for place, label in enumerate(chunk.y.tolist()) if predictions[place] == label]
        wrong = sorted(set(range(len(before))) - set(right))
        yield [chunk.record(place, before[place], predictions[place]) for place in wrong]
        if right:
            # hashed, because generators on a CPU take no more than 32 bits of a seed
            mixed = hashlib.sha256(f"{self.seed} {chunk.indices[0]}".encode()).digest()[:4]
            generator = torch.Generator(self.network.like.device).manual_seed(int.from_bytes(mixed))
            standing = problem.select(torch.tensor(right, device=self.network.like.device))
            for decisions in self.cascade.decisions(standing, generator, [before[place] for place in right]):
                yield [
                    chunk.record(right[place], decision, predictions[right[place]])
                    for place, decision in decisions.items()
                ]

    def problem(self, chunk: Samples) -> Problem:
        """The problem of some samples, in both precisions."""
        x, y = chunk.x.to(self.network.like.device), chunk.y.to(self.network.like.device, torch.long)
        double = Problem.of_labels(self.network.proof, x.double(), y, self.threat)
        return Problem.of_labels(self.network.search, x.to(self.network.like), y, self.threat, double=double)

    def _clean(self, proof: Problem, y: Tensor) -> tuple[list[Decision], list[int]]:
        """The first stage: decisions at the clean inputs, and the predictions; -1 if logits are not finite.

        A sample stays undecided if only rounding, or the order of equal logits, makes its prediction wrong.
        """
        start = now()
        logits, y = proof.net(proof.x).cpu(), y.cpu().long().unsqueeze(1)
        finite = torch.isfinite(logits).all(1)
        signs = torch.where(finite, proof.signs(proof.x).cpu(), torch.nan)
        other = logits.scatter(1, y, -torch.inf).argmax(1)
        predictions = torch.where(signs > 0, y.squeeze(1), torch.where(signs < 0, other, logits.argmax(1)))
        predictions = torch.where(finite, predictions, -1)
        seconds = (now() - start) / len(y)
        decisions = [
            _clean_decision(sign, is_finite).charged("clean", seconds)
            for sign, is_finite in zip(signs.tolist(), finite.tolist(), strict=True)
        ]
        return decisions, predictions.tolist()


def certify_chunk(job: Job, chunk: Samples, seconds: float) -> Iterator[list[SampleRecord]]:
    """The task of a worker: the records of a chunk, which may be empty, within this many seconds."""
    if chunk.indices:
        yield from job.within(seconds).records(chunk)


def _clean_decision(sign: float, is_finite: bool) -> Decision:
    """What the sign of the least margin at a clean input decides: NaN if it is not known."""
    if not is_finite:
        return Decision(reason=f"clean: {NOT_FINITE}").failing({"clean": NOT_FINITE})
    if sign < 0:
        return Decision().decided(Verdict.MISCLASSIFIED)
    if math.isnan(sign):
        return Decision(reason=UNDECIDED)
    return Decision(reason="" if sign else TIE)


def _described(name: str, value: Stage | Threat) -> str:
    """Everything that the findings of a stage, or the regions of a threat model, depend on."""
    text = repr(value)
    faults = {" at 0x": "an address, which means nothing after the process has ended"}
    faults |= dict.fromkeys(("tensor(", "array("), "a tensor, of which only some numbers are printed")
    for mark, fault in faults.items():
        if mark in text:
            raise ValueError(
                f"{name} shows {fault} ({text}): give its class a __repr__ that shows everything its results depend "
                f"on, e.g. a digest, or certify without files"
            )
    return text

"""Certification of labelled samples: is the network right everywhere around each of them?

certify(model, x, y, eps=0.1).certified_accuracy
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, groupby, takewhile
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from ctbench.graph import Precisions
from ctbench.precision import full_float32
from ctbench.regions import Threat
from ctbench.regions.lookup import given_threat
from ctbench.results import Certification, CertificationFiles, SampleRecord, Verdict
from ctbench.results.failures import warn
from ctbench.specification import check_labels, check_samples
from ctbench.verify.cascade import OVER, Cascade, Decision, Replay
from ctbench.verify.defaults import DEFAULT_STAGES
from ctbench.verify.problem import Problem
from ctbench.verify.stages import Stage
from ctbench.verify.workers import shared

CHUNK = 1024  # samples that go through all stages together, at most: few of them reach the last ones
ROUNDING = "outward"  # how bounds that certify are rounded: records say it, as others would prove less
NOT_FINITE = "the logits are NaN or infinite"
TIE = "clean: another logit is as great as that of the label"
UNDECIDED = "clean: rounding leaves open whether the prediction is right"
SHARES = 4  # chunks for each process, at least: some take longer than others


def certify(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | None = None,
    norm: str | float = "linf",
    clip: tuple[float, float] | None = (0.0, 1.0),
    threat: Threat | None = None,
    stages: Sequence[Stage] = DEFAULT_STAGES,
    timeout: float | None = 60.0,
    total: float | None = None,
    replay: Replay | None = None,
    seed: int = 0,
    workers: int = 1,
    first: int = 0,
    files: CertificationFiles | None = None,
    counterexamples: bool = False,
    about: dict[str, Any] | None = None,
    resume: bool = False,
    watch: Callable[[SampleRecord], None] | None = None,
) -> Certification:
    """Prove for each sample that the network's answer is right on the whole ball of radius eps.

    The network is taken as at test time, whatever mode it is in. Records are written as soon as they are known. What is
    missing after an interruption is certified by resuming; as in any other grouping of the samples, only the random
    starts of attacks are then others.

    Args:
        model: any network of supported layers, normalisation inside.
        x: inputs in the data range, [N, *shape].
        y: labels, [N] integers.
        eps: the radius, in [0, 1] pixel space.
        norm: of the ball: "linf", "l2" or "l1", or another threat model's name (see `ctbench.regions.threat`).
        clip: the range of the data, which the ball does not leave; None for no range.
        threat: a threat model in place of eps, norm and clip.
        stages: the cascade, after the clean prediction.
        timeout: seconds for each sample, by its share of what its batches take; None for no limit.
        total: seconds for all samples together; None for no limit. What is not decided by then is unknown, is not
            `finished`, and is not written to the files, so that resuming goes on with it.
        replay: another implementation of the network, [B, *shape] to [B, K]. A counterexample must be one there, too.
        seed: of the attacks.
        workers: processes that share the samples, and torch's threads. Model, stages and replay must be picklable.
        first: the index of x[0] in its data set, for a part of one.
        files: where to append the records as they come; None keeps them in memory alone.
        counterexamples: write the points that falsify samples beside the records.
        about: what else to say in the files' settings, as the name of the data set.
        resume: keep the records that the files hold, and certify only the rest.
        watch: called with each new record that is finished.

    Returns:
        A record for each sample, and the accuracies.

    Warns:
        StageFailedWarning: stages raised or gave NaN; once, with their titles, samples and first messages. These
            samples stay open for the next stages, and what no stage decides is unknown.

    Raises:
        UnsupportedLayerError: a layer without an op; says which and what to register.
        ValueError: a model, eps, input, label or number that cannot be, or files that were made under other settings,
            of another network or of other inputs, or that another process is writing.
        ChildProcessError: a process died; raised after the others have finished.
    """
    begin = time.perf_counter()
    if not (isinstance(seed, Integral) and 0 <= seed < 2**31):
        raise ValueError(f"seed is {seed!r}: it must be a whole number in [0, 2^31)")
    if total is not None and not (isinstance(total, Real) and 0 < total < math.inf):
        raise ValueError(f"total is {total!r}: give a number of seconds > 0, or None for no limit")
    if not (isinstance(workers, Integral) and workers >= 1):
        raise ValueError(f"workers is {workers!r}: give a whole number of processes, 1 or more")
    if not isinstance(files, CertificationFiles | None):
        raise ValueError(f"files is {files!r}: give ctbench.results.CertificationFiles(Path(...)), or None")
    if files is None and (counterexamples or resume):
        raise ValueError("counterexamples and resume are about files: give files as well")
    deadline = math.inf if total is None else begin + total
    cascade = Cascade(stages=tuple(stages), timeout=timeout, replay=replay, deadline=deadline)
    job = Job.of(model, x, y, threat=given_threat(threat, eps, norm, clip), cascade=cascade, seed=seed)
    samples = Samples(range(first, first + len(x)), x, y)
    done: dict[int, SampleRecord] = {}
    with nullcontext() if files is None else files.alone():
        if files is not None:
            done = files.start({**(about or {}), **job.settings()}, resume=resume)
            samples.recognize(done)
        chunks = samples.chunks(done, workers)
        in_time = takewhile(lambda _: time.perf_counter() < deadline, map(samples.take, chunks))
        workers = min(workers, len(chunks))
        found = shared(job, in_time, workers) if workers > 1 else chain.from_iterable(map(job.records, in_time))
        for records in found:
            finished = [record for record in records if record.finished]
            if files is not None:
                files.append(finished, counterexamples=counterexamples)
            done |= {record.index: record for record in records}
            if watch is not None:
                for record in finished:
                    watch(record)
    missed = Decision(reason=OVER, cut=True)
    certification = Certification.of(
        done[index] if index in done else samples.record(place, missed) for place, index in enumerate(samples.indices)
    )
    warn(certification.failures, stacklevel=2)
    return certification


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled inputs: all that are to be certified, or a chunk of them."""

    indices: range | list[int]  # in their data set
    x: Tensor  # [N, *shape]
    y: Tensor  # [N]

    def take(self, places: list[int]) -> Samples:
        return Samples([self.indices[place] for place in places], self.x[places], self.y[places])

    def chunks(self, done: Collection[int], workers: int) -> list[list[int]]:
        """The places of what is not done yet, in chunks that lie at fixed indices."""
        left = [place for place, index in enumerate(self.indices) if index not in done]
        size = CHUNK if workers == 1 else max(1, min(CHUNK, len(left) // (workers * SHARES)))
        return [list(places) for _, places in groupby(left, lambda place: self.indices[place] // size)]

    def digest(self, place: int) -> str:
        """What a sample is known by."""
        content = self.x[place].double().cpu().contiguous().numpy().tobytes()
        return hashlib.sha256(content + str(int(self.y[place])).encode()).hexdigest()[:16]

    def recognize(self, done: dict[int, SampleRecord]) -> None:
        """Raise ValueError where a record is not about the input and label that stand in its place."""
        for place, index in enumerate(self.indices):
            if index in done and (done[index].digest, done[index].label) != (self.digest(place), int(self.y[place])):
                raise ValueError(f"the record of sample {index} is about another input or label: choose another place")

    def record(self, place: int, decision: Decision, prediction: int = -1) -> SampleRecord:
        """A decision about a sample, as it is kept."""
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
            reason=decision.reason,
            counterexample=None if decision.witness is None else decision.witness.cpu().numpy(),
            finished=not decision.cut,
            failed=dict(decision.failed),
            late=decision.late,
        )


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
        check_labels(y, network.net.classes)
        return cls(network, threat, cascade, seed)

    def settings(self) -> dict[str, Any]:
        """All that the records depend on. Raises ValueError for a stage that does not say what it is."""
        return {
            "network_digest": self.network.exact.digest(),
            "precision": str(self.network.like.dtype),
            "norm": self.threat.name,
            "eps": self.threat.eps,
            "threat": repr(self.threat),
            "stages": [_described(stage) for stage in self.cascade.stages],
            "timeout": self.cascade.timeout,
            "rounding": ROUNDING,
            "replayed": self.cascade.replay is not None,
            "seed": self.seed,
        }

    @full_float32
    @torch.no_grad()
    def records(self, chunk: Samples) -> Iterator[list[SampleRecord]]:
        """The records of some samples that go through all stages together, as soon as they are known."""
        problem = self.problem(chunk)
        before, predictions = self._clean(problem.exact, chunk.y)
        right = [place for place, label in enumerate(chunk.y.tolist()) if predictions[place] == label]
        wrong = sorted(set(range(len(before))) - set(right))
        yield [chunk.record(place, before[place], predictions[place]) for place in wrong]
        if right:
            # hashed, as generators on a CPU take no more than 32 bits of a seed
            mixed = hashlib.sha256(f"{self.seed} {chunk.indices[0]}".encode()).digest()[:4]
            generator = torch.Generator(self.network.like.device).manual_seed(int.from_bytes(mixed))
            standing = problem.select(torch.tensor(right, device=self.network.like.device))
            for known in self.cascade.decisions(standing, generator, [before[place] for place in right]):
                yield [
                    chunk.record(right[place], decision, predictions[right[place]]) for place, decision in known.items()
                ]

    def problem(self, chunk: Samples) -> Problem:
        """What is to be proved of some samples, in both precisions."""
        x, y = chunk.x.to(self.network.like.device), chunk.y.to(self.network.like.device, torch.long)
        double = Problem.of_labels(self.network.exact, x.double(), y, self.threat)
        return Problem.of_labels(self.network.net, x.to(self.network.like), y, self.threat, double=double)

    def _clean(self, exact: Problem, y: Tensor) -> tuple[list[Decision], list[int]]:
        """What the network says at the clean inputs: the first stage, and its predictions; -1 where there is none.

        A label that only rounding, or the order of equal logits, keeps from being the prediction stays undecided.
        """
        start = time.perf_counter()
        logits, y = exact.net(exact.x).cpu(), y.cpu().long().unsqueeze(1)
        finite = torch.isfinite(logits).all(1)
        signs = torch.where(finite, exact.signs(exact.x).cpu(), torch.nan)
        other = logits.scatter(1, y, -torch.inf).argmax(1)
        predictions = torch.where(signs > 0, y.squeeze(1), torch.where(signs < 0, other, logits.argmax(1)))
        predictions = torch.where(finite, predictions, -1)
        seconds = (time.perf_counter() - start) / len(y)
        decisions = [
            Decision(
                verdict=Verdict.MISCLASSIFIED if sign < 0 else Verdict.UNKNOWN,
                reason=_why_undecided(sign, is_finite),
                failed={} if is_finite else {"clean": NOT_FINITE},
            ).charged("clean", seconds)
            for sign, is_finite in zip(signs.tolist(), finite.tolist(), strict=True)
        ]
        return decisions, predictions.tolist()


def _why_undecided(sign: float, is_finite: bool) -> str:
    """Why the sign of the least margin at a clean input decides nothing; "" where it does."""
    if not is_finite:
        return f"clean: {NOT_FINITE}"
    if math.isnan(sign):
        return UNDECIDED
    return "" if sign else TIE


def _described(stage: Stage) -> str:
    """All that a stage's findings depend on."""
    said = repr(stage)
    if " at 0x" in said:
        raise ValueError(
            f"the stage {stage.title!r} shows an address, which tells nothing once the process has ended ({said}): "
            f"give its class a __repr__ of what its findings depend on, or certify without files"
        )
    return said

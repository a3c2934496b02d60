"""Certification: a cascade of stages over batches of samples, each stage only on what the former left open.

    certify(model, x, y, eps=0.1).certified_accuracy

A sample is certified when a lower bound of its least margin is positive in double precision, too (0 is not), by more
than rounding could add. It is
falsified when a point of its region, replayed in double precision, has a negative margin. A stage that fails or finds
NaN leaves its samples open, and their records say why.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ctbench.domains import interval
from ctbench.graph import Affine, Graph, freeze, trace
from ctbench.regions import Box, Linf, Threat
from ctbench.results import Certification, CertificationFiles, SampleRecord, Verdict, jsonl
from ctbench.specification import check_labels, margins
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.stages import DEFAULT_STAGES, Stage

CHUNK = 128  # samples that go through all stages before their records are written
ROUNDING = 1e-12  # of the largest sums in a network: more than rounding in double precision can add to a margin


def certify(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    clip: tuple[float, float] | None = (0.0, 1.0),
    stages: Sequence[Stage] = DEFAULT_STAGES,
    confirm: bool = True,
    seed: int = 0,
    files: CertificationFiles | None = None,
    about: dict[str, Any] | None = None,
    resume: bool = False,
    watch: Callable[[SampleRecord], None] | None = None,
) -> Certification:
    """Prove for each sample that the network's answer is right on the whole linf ball of radius eps.

    The network is taken as at test time, whatever mode it is in. Samples are worked on in chunks of fixed places, so an
    interrupted and resumed certification gives the records of an uninterrupted one.

    Args:
        model: any network of supported layers, normalisation inside.
        x: inputs in the data range, [N, *shape].
        y: labels, [N] integers.
        eps: the radius, in [0, 1] pixel space.
        clip: the range of the data, which the ball does not leave; None for no range.
        stages: the cascade, after the clean prediction.
        confirm: compute every bound that certifies once more in double precision.
        seed: of the attacks.
        files: where to append the records as they come; None keeps them in memory alone.
        about: what else to say in the files' settings, as the name of the data set.
        resume: keep the records that the files hold, and certify only the rest.
        watch: called with each new record.

    Returns:
        A record for each sample, and the accuracies.

    Raises:
        UnsupportedLayerError: a layer without an op; says which and what to register.
        ValueError: an eps, input or label that cannot be, or files that were made under other settings, of another
            network or of other inputs.
    """
    threat = Linf(eps=eps, clip=clip)
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed is {seed}: it must be a whole number in [0, 2^31)")
    cascade = Cascade.of(model, x, y, threat=threat, stages=tuple(stages), confirm=confirm, seed=seed)
    done: dict[int, SampleRecord] = {}
    if files is not None:
        settings = {
            "network_digest": cascade.exact.net.digest(),
            "precision": str(cascade.screening.x.dtype),
            "threat": repr(threat),
            "stages": [repr(stage) for stage in stages],
            "confirm": confirm,
            "seed": seed,
        }
        done = files.start({**(about or {}), **settings}, resume=resume)
        cascade.recognize(done)
    for chunk in cascade.chunks(done):
        if files is not None:
            jsonl.append(files.records, (record.to_json() for record in chunk))
        for record in chunk:
            done[record.index] = record
            if watch is not None:
                watch(record)
    return Certification.of(done[index] for index in range(len(y)))


@dataclass(frozen=True, eq=False)
class Cascade:
    """The stages, and the problems of all samples in the network's own and in double precision."""

    screening: Problem
    exact: Problem
    stages: tuple[Stage, ...]
    confirm: bool
    seed: int

    @classmethod
    def of(
        cls,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        threat: Threat,
        stages: tuple[Stage, ...],
        confirm: bool,
        seed: int,
    ) -> Cascade:
        if len(x) != len(y) or not len(x):
            raise ValueError(f"there are {len(x)} inputs and {len(y)} labels: give one label per input, at least one")
        threat.check(x)
        like = next((p for p in model.parameters() if p.is_floating_point()), x)
        x = x.to(like.device)
        # frozen in double precision from the start: constants that were rounded first would be those of another network
        net = _frozen(model, x[:1].to(like.dtype))
        exact = _frozen(copy.deepcopy(model).double(), x[:1].double())
        if net.classes < 2:
            raise ValueError(f"the network has {net.classes} output: a margin needs two classes or more")
        check_labels(y, net.classes)
        y = y.to(like.device, torch.long)
        return cls(
            Problem(net, x.to(like.dtype), y, threat), Problem(exact, x.double(), y, threat), stages, confirm, seed
        )

    def recognize(self, done: dict[int, SampleRecord]) -> None:
        """Raise ValueError where a record is not about the input and label that stand in its place."""
        samples = range(len(self.exact))
        for index in sorted(done.keys() & set(samples)):
            if done[index].digest != self.digest(index):
                raise ValueError(f"the record of sample {index} is about another input or label: choose another place")

    def digest(self, index: int) -> str:
        """What a sample is known by."""
        content = self.exact.x[index].cpu().contiguous().numpy().tobytes()
        return hashlib.sha256(content + str(int(self.exact.y[index])).encode()).hexdigest()[:16]

    def chunks(self, done: dict[int, SampleRecord]) -> Iterator[list[SampleRecord]]:
        """The records of all samples that are not done yet, chunk by chunk."""
        samples = range(len(self.screening))
        for chunk in (samples[start : start + CHUNK] for start in samples[::CHUNK]):
            if any(index not in done for index in chunk):
                yield [record for record in self.certify(chunk) if record.index not in done]

    @torch.no_grad()
    def certify(self, samples: range) -> list[SampleRecord]:
        """The records of some samples, after all stages."""
        records = {record.index: record for record in self._clean(samples)}
        generator = torch.Generator(self.screening.x.device).manual_seed((self.seed << 32) + samples.start)
        for stage in self.stages:
            standing = [r for r in records.values() if r.verdict is Verdict.UNKNOWN and r.prediction == r.label]
            for start in range(0, len(standing), stage.batch_size):
                for record in self._look(stage, standing[start : start + stage.batch_size], generator):
                    records[record.index] = record
        return list(records.values())

    def _clean(self, samples: range) -> Iterator[SampleRecord]:
        """What the network says at the clean inputs: the first stage."""
        start = time.perf_counter()
        problem = self.exact.select(torch.as_tensor(samples, device=self.exact.y.device))
        logits = problem.net(problem.x)
        seconds = (time.perf_counter() - start) / len(samples)
        columns = (problem.y, logits.argmax(1), torch.isfinite(logits).all(1))
        rows = zip(samples, *(column.tolist() for column in columns), strict=True)
        for index, label, prediction, finite in rows:
            wrong = finite and prediction != label
            yield SampleRecord(
                index=index,
                label=label,
                prediction=prediction if finite else -1,
                verdict=Verdict.MISCLASSIFIED if wrong else Verdict.UNKNOWN,
                stage="clean",
                bound=None,
                seconds=seconds,
                digest=self.digest(index),
                reason="" if finite else "clean: the logits are NaN or infinite",
            )

    def _look(self, stage: Stage, records: list[SampleRecord], generator: torch.Generator) -> list[SampleRecord]:
        """The records of a batch of open samples, after one more stage."""
        start = time.perf_counter()
        samples = torch.tensor([record.index for record in records], device=self.screening.y.device)
        try:
            outcomes = self._outcomes(stage, samples, generator)
        except Exception as error:  # whatever happens in a stage, its samples stay open, and the record says why
            outcomes = [_Outcome(reason=f"{type(error).__name__}: {error}")] * len(records)
        seconds = (time.perf_counter() - start) / len(records)
        return [
            _after(record, stage.title, outcome, seconds) for record, outcome in zip(records, outcomes, strict=True)
        ]

    def _outcomes(self, stage: Stage, samples: Tensor, generator: torch.Generator) -> list[_Outcome]:
        """What a stage finds out about each sample, with what would decide it confirmed or replayed."""
        findings = _checked(stage(self.screening.select(samples), generator), len(samples))
        outcomes = [_Outcome()] * len(samples)
        if findings.bound is not None:
            bound = self._confirmed(stage, samples, findings.bound.double(), generator)
            certified = self._beyond_rounding(samples, bound)
            outcomes = [_Outcome.of(*pair) for pair in zip(bound.tolist(), certified.tolist(), strict=True)]
        if findings.witness is not None:
            falsified = self._beyond_rounding(samples, -self._replay(samples, findings.witness))
            outcomes = [
                replace(outcome, falsified=turned, certified=outcome.certified and not turned)
                for outcome, turned in zip(outcomes, falsified.tolist(), strict=True)
            ]
        return outcomes

    def _confirmed(self, stage: Stage, samples: Tensor, bound: Tensor, generator: torch.Generator) -> Tensor:
        """The bounds, those that would certify replaced by what the stage finds in double precision."""
        positive = bound > 0
        if not self.confirm or not bool(positive.any()):
            return bound
        again = _checked(stage(self.exact.select(samples[positive]), generator), int(positive.sum())).bound
        assert again is not None, "a stage that bounds in one precision bounds in the other"
        return bound.masked_scatter(positive, again.double())

    def _replay(self, samples: Tensor, witness: Tensor) -> Tensor:
        """The least margins of the witnesses, moved into the exact regions, in double precision."""
        exact = self.exact.select(samples)
        point = exact.region.project(witness.double())
        return margins(exact.net(point), exact.y).amin(1)

    def _beyond_rounding(self, samples: Tensor, values: Tensor) -> Tensor:
        """Where values ([B], of margins) are positive by more than rounding in double precision could make them."""
        if not bool((values > 0).any()):
            return torch.zeros_like(values, dtype=torch.bool)
        exact = self.exact.select(samples)
        boxes = interval.boxes(exact.net, exact.region)
        largest = [_reach(boxes[0])]
        for node in exact.net.nodes:
            if isinstance(node.op, Affine):
                reach = _reach(boxes[node.inputs[0]])
                largest.append(node.op.magnitude(reach) + node.op(torch.zeros_like(reach)).abs())
        sums = torch.stack([terms.flatten(1).amax(1) for terms in largest])  # of |terms|, anywhere over the regions
        return values > ROUNDING * (1 + sums.amax(0))


def _reach(box: Box) -> Tensor:
    """The greatest |value| in a box, coordinate by coordinate."""
    return torch.maximum(box.lower.abs(), box.upper.abs())


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What a stage found out about one sample."""

    bound: float | None = None
    certified: bool = False
    falsified: bool = False
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


@torch.no_grad()
def _frozen(model: nn.Module, x: Tensor) -> Graph:
    graph, _ = freeze(trace(model, tuple(x.shape[1:])), x)
    return graph.detach()


def _after(record: SampleRecord, stage: str, outcome: _Outcome, seconds: float) -> SampleRecord:
    """The record of an open sample with what one more stage found out."""
    verdict = Verdict.UNKNOWN
    if outcome.falsified:
        verdict = Verdict.FALSIFIED
    elif outcome.certified:
        verdict = Verdict.CERTIFIED
    reasons = [record.reason, f"{stage}: {outcome.reason}" if outcome.reason else ""]
    return replace(
        record,
        verdict=verdict,
        stage=stage,
        bound=max((bound for bound in (record.bound, outcome.bound) if bound is not None), default=None),
        seconds=record.seconds + seconds,
        reason="" if verdict is not Verdict.UNKNOWN else "; ".join(reason for reason in reasons if reason),
    )

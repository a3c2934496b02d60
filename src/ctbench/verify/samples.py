"""Certification of labelled samples: is the network right everywhere around each of them?

    certify(model, x, y, eps=0.1).certified_accuracy
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctbench.graph import Graph, freeze, trace
from ctbench.regions import Linf, Threat
from ctbench.results import Certification, CertificationFiles, SampleRecord, Verdict, jsonl
from ctbench.specification import check_labels
from ctbench.verify.cascade import Cascade, Decision, Replay
from ctbench.verify.problem import Problem
from ctbench.verify.stages import DEFAULT_STAGES, Stage

CHUNK = 128  # samples that go through all stages before their records are written


def certify(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    clip: tuple[float, float] | None = (0.0, 1.0),
    stages: Sequence[Stage] = DEFAULT_STAGES,
    timeout: float | None = 60.0,
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
        timeout: seconds for each sample, by its share of what its batches take; None for no limit.
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
    cascade = Cascade(stages=tuple(stages), confirm=confirm, timeout=timeout)
    job = Job.of(model, x, y, threat=threat, cascade=cascade, seed=seed)
    done: dict[int, SampleRecord] = {}
    if files is not None:
        settings = {
            "network_digest": job.exact.digest(),
            "precision": str(job.x.dtype),
            "threat": repr(threat),
            "stages": [repr(stage) for stage in stages],
            "timeout": timeout,
            "confirm": confirm,
            "seed": seed,
        }
        done = files.start({**(about or {}), **settings}, resume=resume)
        job.recognize(done)
    for chunk in job.chunks(done):
        if files is not None:
            jsonl.append(files.records, (record.to_json() for record in chunk))
        for record in chunk:
            done[record.index] = record
            if watch is not None:
                watch(record)
    return Certification.of(done[index] for index in range(len(y)))


@dataclass(frozen=True, eq=False)
class Job:
    """Samples to be certified, and the network in its own and in double precision."""

    net: Graph
    exact: Graph
    x: Tensor  # [N, *shape], as they were given
    y: Tensor  # [N]
    threat: Threat
    cascade: Cascade
    precision: torch.dtype  # of the network
    seed: int

    @classmethod
    def of(cls, model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, cascade: Cascade, seed: int) -> Job:
        if len(x) != len(y) or not len(x):
            raise ValueError(f"there are {len(x)} inputs and {len(y)} labels: give one label per input, at least one")
        threat.check(x)
        like = next((p for p in model.parameters() if p.is_floating_point()), x)
        x = x.to(like.device)
        # frozen in double precision from the start: constants that were rounded first would be those of another network
        net = frozen(model, x[:1].to(like.dtype))
        exact = frozen(copy.deepcopy(model).double(), x[:1].double())
        if net.classes < 2:
            raise ValueError(f"the network has {net.classes} output: a margin needs two classes or more")
        check_labels(y, net.classes)
        return cls(net, exact, x, y.to(like.device, torch.long), threat, cascade, like.dtype, seed)

    def recognize(self, done: dict[int, SampleRecord]) -> None:
        """Raise ValueError where a record is not about the input and label that stand in its place."""
        for index in sorted(done.keys() & set(range(len(self.x)))):
            if done[index].digest != self.digest(index):
                raise ValueError(f"the record of sample {index} is about another input or label: choose another place")

    def digest(self, index: int) -> str:
        """What a sample is known by."""
        content = self.x[index].double().cpu().contiguous().numpy().tobytes()
        return hashlib.sha256(content + str(int(self.y[index])).encode()).hexdigest()[:16]

    def chunks(self, done: dict[int, SampleRecord]) -> Iterator[list[SampleRecord]]:
        """The records of all samples that are not done yet, chunk by chunk."""
        samples = range(len(self.x))
        for chunk in (samples[start : start + CHUNK] for start in samples[::CHUNK]):
            if any(index not in done for index in chunk):
                yield [record for record in self.certify(chunk) if record.index not in done]

    @torch.no_grad()
    def certify(self, samples: range) -> list[SampleRecord]:
        """The records of some samples, after all stages."""
        problem = self.problem(samples)
        before, predictions = self._clean(problem.exact, self.y[samples.start : samples.stop])
        generator = torch.Generator(self.x.device).manual_seed((self.seed << 32) + samples.start)
        right = [place for place, index in enumerate(samples) if predictions[place] == int(self.y[index])]
        after = list(before)
        if right:
            open_problem = problem.select(torch.tensor(right, device=self.x.device))
            decided = self.cascade.decide(open_problem, generator, [before[place] for place in right])
            for place, decision in zip(right, decided, strict=True):
                after[place] = decision
        return [
            SampleRecord(
                index=index,
                label=int(self.y[index]),
                prediction=prediction,
                verdict=decision.verdict,
                stage=decision.stage,
                bound=decision.bound,
                seconds=decision.seconds,
                digest=self.digest(index),
                reason=decision.reason,
            )
            for index, prediction, decision in zip(samples, predictions, after, strict=True)
        ]

    def problem(self, samples: range) -> Problem:
        """What is to be proved of some samples, in both precisions."""
        x, y = self.x[samples.start : samples.stop], self.y[samples.start : samples.stop]
        double = Problem.of_labels(self.exact, x.double(), y, self.threat)
        return Problem.of_labels(self.net, x.to(self.precision), y, self.threat, double=double)

    def _clean(self, exact: Problem, y: Tensor) -> tuple[list[Decision], list[int]]:
        """What the network says at the clean inputs: the first stage, and its predictions; -1 where there is none."""
        start = time.perf_counter()
        logits = exact.net(exact.x)
        seconds = (time.perf_counter() - start) / len(y)
        finite = torch.isfinite(logits).all(1)
        predictions = torch.where(finite, logits.argmax(1), -1)
        wrong = (finite & (predictions != y)).tolist()
        decisions = [
            Decision(
                verdict=Verdict.MISCLASSIFIED if is_wrong else Verdict.UNKNOWN,
                seconds=seconds,
                reason="" if is_finite else "clean: the logits are NaN or infinite",
            )
            for is_wrong, is_finite in zip(wrong, finite.tolist(), strict=True)
        ]
        return decisions, predictions.tolist()


@torch.no_grad()
def frozen(model: nn.Module, x: Tensor) -> Graph:
    """The network at test time as a graph, without gradients."""
    graph, _ = freeze(trace(model, tuple(x.shape[1:])), x)
    return graph.detach()

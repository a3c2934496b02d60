"""Certification of labelled samples: is the network right everywhere around each of them?

certify(model, x, y, eps=0.1).certified_accuracy
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import chain, takewhile
from numbers import Integral, Real
from typing import Any

from torch import Tensor, nn

from ctbench.regions import Threat
from ctbench.regions.lookup import given_threat
from ctbench.results import Certification, CertificationFiles, Open, SampleRecord
from ctbench.results.failures import warn
from ctbench.time_budget import now
from ctbench.verify.cascade import OVER, Cascade, Decision, Replay
from ctbench.verify.defaults import DEFAULT_STAGES
from ctbench.verify.job import Job, Samples
from ctbench.verify.stages import Stage
from ctbench.verify.workers import shared


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
    begin = now()
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
        in_time = takewhile(lambda _: now() < deadline, map(samples.take, chunks))
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
    missed = Decision(reason=OVER, open=Open.JOB_OVER)
    certification = Certification.of(
        done[index] if index in done else samples.record(place, missed) for place, index in enumerate(samples.indices)
    )
    warn(certification.failures, stacklevel=2)
    return certification

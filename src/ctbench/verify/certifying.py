"""Certification of labelled samples: is the network right everywhere around each of them?

certify(model, x, y, Linf(0.1)).certified_accuracy
certify(load_run("runs/mine"))                          # on its test set, with records in its folder
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import takewhile
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ctbench.engine import Engine, Here, Kept, Local, Task
from ctbench.regions import Threat
from ctbench.regions.box import Radii
from ctbench.regions.lookup import threat_or_linf
from ctbench.results import Certification, Open
from ctbench.results.failures import warn
from ctbench.time_budget import now
from ctbench.verify.cascade import OVER, Cascade, Decision, Replay
from ctbench.verify.defaults import DEFAULT_STAGES
from ctbench.verify.job import Job, Samples, certify_chunk, chunks
from ctbench.verify.records import Records
from ctbench.verify.stages import Stage
from ctbench.verify.trained import TrainedRun, records_of, samples_of


def certify(
    model: nn.Module | TrainedRun,
    x: Tensor | None = None,
    y: Tensor | None = None,
    threat: Threat | None = None,
    *,
    eps: Radii | None = None,
    stages: Sequence[Stage] = DEFAULT_STAGES,
    timeout: float | None = 60.0,
    total: float | None = None,
    records: Records | None = None,
    replay: Replay | None = None,
    seed: int = 0,
    workers: int = 1,
    engine: Engine | None = None,
) -> Certification:
    """Prove for each sample that the network's answer is right on the whole region that the threat model allows.

    The network is taken as at test time, whatever mode it is in. Records are written as soon as they are made. Resume
    after an interruption to certify the missing samples. The random starts of attacks depend on how samples are
    grouped, so they differ after a resumption.

    Args:
        model: any network of supported layers, normalisation inside; or a run (`ctbench.load_run`). The next three
            arguments may then be missing, and `records` is the file in the run folder that `ctbench certify` uses,
            which is resumed.
        x: inputs in the data range, [N, *shape]; of a run, its test set.
        y: labels, [N] integers.
        threat: what may be done to an input, e.g. Linf(8 / 255), L2(0.5) or FirstCoordinate(3.0); of a run, that of its
            recipe.
        eps: the short form of threat=Linf(eps), in [0, 1] pixel space; also an array that broadcasts to one input.
        stages: the cascade, after the clean prediction.
        timeout: seconds for each sample, by its share of what its batches take; None for no limit.
        total: seconds for all samples together; None for no limit. Samples that are undecided by then are unknown, are
            not `finished`, and are not written, so that resuming continues with them.
        records: where to write the records, and whom to tell; by default they are only returned.
        replay: another implementation of the network, [B, *shape] to [B, K]. It must confirm each counterexample.
        seed: the seed of the attacks.
        workers: the short form of engine=Local(workers=...), processes of this machine; 1 is this process alone.
        engine: where samples are certified, e.g. `ctbench.engine.Ray()`. Model, stages and replay must be picklable
            unless it is this process. The records are written by this process alone.

    Returns:
        A record for each sample, and the accuracies.

    Warns:
        StageFailedWarning: stages raised or gave NaN; once, with their titles, samples and first messages. These
            samples stay open for the next stages. A sample that no stage decides is unknown.

    Raises:
        UnsupportedLayerError: a layer has no op; the message says which layer and what to register.
        ValueError: a model, threat model, input, label or number is invalid, or the file of the records was made under
            other settings, of another network or of other inputs, or is being written by another process.
        ChildProcessError: workers died three times of the same samples; raised after all others are certified.
    """
    begin = now()
    if not (isinstance(seed, Integral) and 0 <= seed < 2**31):
        raise ValueError(f"seed is {seed!r}: it must be a whole number in [0, 2^31)")
    if total is not None and not (isinstance(total, Real) and 0 < total < math.inf):
        raise ValueError(f"total is {total!r}: give a number of seconds > 0, or None for no limit")
    engine = engine_of(workers, engine)
    if not isinstance(records, Records | None):
        raise ValueError(f"records is {records!r}: give ctbench.Records(path), or None")
    if isinstance(model, TrainedRun):
        x, y = samples_of(model, x, y)
        threat = model.recipe.threat if threat is None and eps is None else threat_or_linf(threat, eps)
        records = records_of(model, threat) if records is None else records
        model, eps = model.model, None
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}: give a torch.nn.Module, or a run of ctbench.load_run")
    if x is None or y is None:
        raise ValueError("x or y is missing: give N inputs and N labels, or a run, which has its own test set")
    records = Records() if records is None else records
    deadline = math.inf if total is None else begin + total
    cascade = Cascade(stages=stages, timeout=timeout, replay=replay)
    job = Job.of(model, x, y, threat=threat_or_linf(threat, eps), cascade=cascade, seed=seed)
    samples = Samples(range(records.first, records.first + len(x)), x, y)
    size = engine.size()  # raises, before files are written, if there is nowhere to work
    with records.writing(job.settings, len(x), samples.recognize) as writer:
        if records.on_start is not None:
            records.on_start(writer.kept())
        missing = np.flatnonzero(~writer.done)
        with closing(
            engine.run(_tasks(Kept(job), samples, writer.done, missing, size, deadline), count=len(missing))
        ) as parts:
            for _, part in parts:
                writer.write(part)
        missed = Decision(reason=OVER, open=Open.JOB_OVER)
        certification = writer.certification(lambda place: samples.record(place, missed))
    warn(certification.failures, stacklevel=2)
    return certification


def engine_of(workers: int, engine: Engine | None) -> Engine:
    """The engine that one of the two arguments of `certify` means. Raises ValueError if they are invalid, or both."""
    if not (isinstance(workers, Integral) and workers >= 1):
        raise ValueError(f"workers is {workers!r}: give a whole number of processes, 1 or more")
    if not isinstance(engine, Engine | None) or (engine is not None and workers != 1):
        raise ValueError(
            f"engine is {engine!r} with {workers} workers: give an engine, e.g. Local(workers=2), or workers"
        )
    return engine or (Here() if workers == 1 else Local(workers=int(workers)))


def _tasks(
    job: Kept, samples: Samples, done: NDArray[np.bool_], missing: NDArray[np.int64], workers: int, deadline: float
) -> Iterator[Task]:
    """A task for each chunk until the deadline. A worker gets those of its samples that are not done by then."""
    first = samples.indices[0]

    def arguments(chunk: list[int]) -> tuple[Samples, float]:
        return samples.take([index - first for index in chunk if not done[index - first]]), deadline - now()

    for chunk in takewhile(lambda _: now() < deadline, chunks(missing + first, workers)):
        key = f"sample {chunk[0]}" if len(chunk) == 1 else f"samples {chunk[0]} to {chunk[-1]}"
        yield Task(key, certify_chunk, partial(arguments, chunk), job)

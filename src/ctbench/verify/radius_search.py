"""The largest radius at which each sample is certified, and the smallest at which it is falsified, by bisection.

radii(model, x, y, Linf(0.2), tolerance=0.001).samples[0].certified

The radii that are tried are eps k / n for k = 1 ... n, where eps is that of the threat model and eps / n is at most the
tolerance. So the samples of a chunk share radii, and those that are to be tried at one radius are certified together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, takewhile
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ctbench.engine import Engine, Kept, Task
from ctbench.regions import Threat
from ctbench.results import Verdict
from ctbench.results.radii import SAMPLES, Radii, RadiusFiles, Trial
from ctbench.results.runs import region_name
from ctbench.time_budget import now
from ctbench.verify.cascade import Cascade, Replay
from ctbench.verify.certifying import engine_of
from ctbench.verify.defaults import DEFAULT_STAGES
from ctbench.verify.job import Job, Samples, chunks
from ctbench.verify.records import Records
from ctbench.verify.stages import Stage
from ctbench.verify.trained import TrainedRun, about, samples_of

ROUNDS = 6  # of bisection, if no tolerance is given


@dataclass
class Bracket:
    """What is known about a sample: at which of the radii 1 ... n it was tried, and what the verdicts were.

    First the largest certified radius is searched, between it and the next one that was tried. Then the smallest
    falsified one, between it and the largest one below that was tried and stands: that is certified or open.
    """

    falsified: int  # the smallest radius that is falsified; n + 1: none
    certified: int = 0  # the largest radius that is certified; 0: none
    open: set[int] = field(default_factory=set)  # those that were tried in vain
    misclassified: bool = False

    def learn(self, radius: int, verdict: Verdict) -> None:
        """Take in the verdict at a radius."""
        match verdict:
            case Verdict.CERTIFIED:
                self.certified = max(self.certified, radius)
            case Verdict.FALSIFIED:
                self.falsified = min(self.falsified, radius)
            case Verdict.MISCLASSIFIED:
                self.misclassified = True
            case Verdict.UNKNOWN:
                self.open.add(radius)

    def next(self) -> int | None:
        """The radius to try next; None if both radii are found."""
        if self.misclassified:
            return None
        above = min((radius for radius in self.open if radius > self.certified), default=self.falsified)
        below = max((radius for radius in self.open if radius < self.falsified), default=self.certified)
        for low, high in ((self.certified, min(above, self.falsified)), (max(below, self.certified), self.falsified)):
            if high - low > 1:
                return (low + high) // 2
        return None


@dataclass(frozen=True)
class Grid:
    """The radii that are tried."""

    largest: float
    number: int  # of radii

    @property
    def tolerance(self) -> float:
        """The distance of two neighbours."""
        return self.largest / self.number

    def eps(self, radius: int) -> float:
        """The radius with a number from 1 to n."""
        return self.largest if radius == self.number else self.largest * radius / self.number


def radii(
    model: nn.Module | TrainedRun,
    x: Tensor | None = None,
    y: Tensor | None = None,
    threat: Threat | None = None,
    *,
    tolerance: float | None = None,
    stages: Sequence[Stage] = DEFAULT_STAGES,
    timeout: float | None = 60.0,
    total: float | None = None,
    records: Records | None = None,
    replay: Replay | None = None,
    seed: int = 0,
    workers: int = 1,
    engine: Engine | None = None,
) -> Radii:
    """Find for each sample the largest radius that is certified and the smallest one that is falsified.

    Both are facts: each radius up to the first one is certified by a proof at that radius, and each radius from the
    second one on contains a replayed counterexample. Between the two, trials were open or the radii are neighbours.

    Args:
        model: any network of supported layers, normalisation inside; or a run (`ctbench.load_run`). The next three
            arguments may then be missing, and `records` is the file in the run folder that `ctbench radius` uses, which
            is resumed.
        x: inputs in the data range, [N, *shape]; of a run, its test set.
        y: labels, [N] integers.
        threat: what may be done to an input, with the largest radius to try, e.g. Linf(0.2); of a run, that of its
            recipe with twice the radius. Its regions must be nested (`Threat.is_inside`).
        tolerance: the distance between radii that are tried, at most, in [0, 1] pixel space; None: a 64th of the
            largest.
        stages, timeout, replay, seed: as in `certify`, for each trial of a sample.
        workers, engine: where samples are searched, as in `certify`. All trials of a sample are made by one worker.
        total: seconds for all samples together; None for no limit. The radii are then those that were found by then.
        records: where the trials are written, and whom to tell; by default they are only kept in memory.

    Returns:
        The radii of all samples that were tried.

    Raises:
        UnsupportedLayerError: a layer has no op.
        ContradictionError: a sample is certified at a radius, and falsified at a smaller one: an error of ctbench.
        ChildProcessError: workers died three times of the same samples; raised when all others have their radii.
        ValueError: an argument is invalid, the regions are not known to be nested, or the file of the records was made
            under other settings, of another network or of other inputs, or is being written by another process.
    """
    if isinstance(model, TrainedRun):
        x, y = samples_of(model, x, y)
        threat = twice(model.recipe.threat) if threat is None else threat
        if records is None:
            name = region_name(threat.name, threat.eps)
            records = Records(model.folder.radii(name).records, resume=True, about=about(model.recipe))
        model = model.model
    if x is None or y is None:
        raise ValueError("x or y is missing: give N inputs and N labels, or a run, which has its own test set")
    threat = _checked(threat)
    largest = threat.eps
    if tolerance is None:
        tolerance = largest / 2**ROUNDS
    if not (isinstance(tolerance, int | float) and 0 < tolerance <= largest):
        raise ValueError(f"tolerance is {tolerance!r}: give a number > 0 and at most the largest radius, {largest:g}")
    if total is not None and not (isinstance(total, Real) and 0 < total < math.inf):
        raise ValueError(f"total is {total!r}: give a number of seconds > 0, or None for no limit")
    records = Records() if records is None else records
    engine = engine_of(workers, engine)
    end = math.inf if total is None else now() + total
    cascade = Cascade(stages=stages, timeout=timeout, replay=replay)
    job = Job.of(model, x, y, threat=threat, cascade=cascade, seed=seed)
    number = math.ceil(largest / tolerance * (1 - 1e-9))
    search = Search(job, Samples(range(records.first, records.first + len(x)), x, y), number)
    settings = {**records.about, **job.settings(), "largest": largest, "tolerance": Grid(largest, number).tolerance}
    size = engine.size()  # raises, before files are written, if there is nowhere to work
    with _trials(records, settings, len(x)) as (files, trials):
        search.resume(trials)
        missing = search.missing()
        with closing(engine.run(_tasks(search, chunks(missing, size), end), count=len(missing))) as parts:
            for _, part in parts:
                new = search.learn(part)
                if files is not None:
                    files.append(new)
                if records.on_record is not None:
                    for trial in new:
                        records.on_record(trial.record)
    return Radii.of(search.found, largest, largest / number)


def _tasks(search: Search, parts: Iterable[list[int]], end: float) -> Iterator[Task]:
    """A task for each chunk of samples until the end. A worker gets the trials that were made by then."""
    job, first = Kept(search.job), search.samples.indices[0]

    def arguments(indices: list[int]) -> tuple[Samples, int, list[Trial], float]:
        trials = [trial for index in indices for trial in search.made.get(index, ())]
        return search.samples.take([index - first for index in indices]), search.number, trials, end - now()

    for indices in takewhile(lambda _: now() < end, parts):
        yield Task(f"samples {indices[0]} to {indices[-1]}", search_chunk, partial(arguments, indices), job)


def search_chunk(job: Job, samples: Samples, number: int, trials: list[Trial], seconds: float) -> Iterator[list[Trial]]:
    """The task of a worker: the trials of some samples that are missing, within this many seconds."""
    search = Search(job.within(seconds), samples, number)
    search.learn(trials)
    yield from search.trials()


def twice(threat: Threat) -> Threat:
    """The threat model with twice the radius, or as much as the data range is wide."""
    widest = math.inf if threat.clip is None else threat.clip[1] - threat.clip[0]
    return replace(threat, eps=max(threat.eps, min(2 * threat.eps, widest)))


def _checked(threat: Threat | None) -> Threat:
    if not isinstance(threat, Threat) or not isinstance(threat.eps, Real) or not threat.is_inside(threat):
        raise ValueError(
            f"the threat model is {threat!r}: give one whose regions are nested, with a number as radius, e.g. "
            f"Linf(0.2), L2(0.5) or L1(5.0)"
        )
    if not threat.eps > 0:
        raise ValueError(f"the largest radius is {threat.eps!r}: give a radius > 0")
    return threat


@contextmanager
def _trials(
    records: Records, settings: dict[str, Any], number: int
) -> Iterator[tuple[RadiusFiles | None, list[Trial]]]:
    """The files to write to, with the trials that they hold; no file if the records have no path."""
    if records.path is None:
        yield None, []
        return
    files = RadiusFiles(Path(records.path))
    samples = [int(records.first), int(records.first) + number]
    with files.alone():
        yield files, files.start({**settings, SAMPLES: samples}, resume=records.resume)


@dataclass
class Search:
    """The bisections of some samples."""

    job: Job
    samples: Samples
    number: int  # of radii
    made: dict[int, list[Trial]] = field(default_factory=dict)  # by the index of the sample
    brackets: dict[int, Bracket] = field(default_factory=dict)  # the same

    def __post_init__(self) -> None:
        self.brackets = {index: Bracket(self.number + 1) for index in self.samples.indices}
        self.numbers = {self.eps(radius): radius for radius in range(1, self.number + 1)}

    @property
    def found(self) -> Iterator[Trial]:
        """All trials."""
        return chain.from_iterable(self.made.values())

    def eps(self, radius: int) -> float:
        """The radius with a number from 1 to n."""
        return Grid(self.job.threat.eps, self.number).eps(radius)

    def resume(self, trials: list[Trial]) -> None:
        """Take in trials of an earlier search under the same settings.

        Raises:
            ValueError: a trial is about another input, or at another radius.
        """
        for trial in trials:
            if trial.eps not in self.numbers:
                raise ValueError(f"a trial of sample {trial.record.index} is at eps {trial.eps!r}: choose other files")
            if trial.record.index in self.brackets:
                self.samples.recognize(trial.record)
        self.learn(trials)

    def missing(self) -> NDArray[np.int64]:
        """The indices of the samples that need more trials."""
        return np.array([index for index, bracket in self.brackets.items() if bracket.next() is not None], dtype=int)

    def learn(self, trials: list[Trial]) -> list[Trial]:
        """Take in trials; returns those that are new."""
        return [trial for trial in trials if self._learn(trial)]

    def _learn(self, trial: Trial) -> bool:
        before = self.made.setdefault(trial.record.index, [])
        if any(trial.eps == other.eps for other in before):  # made again, because a worker died
            return False
        before.append(trial)
        if trial.record.index in self.brackets:
            self.brackets[trial.record.index].learn(self.numbers[trial.eps], trial.record.verdict)
        return True

    def trials(self) -> Iterator[list[Trial]]:
        """All trials that are missing, as they are made."""
        while waiting := self._waiting():
            for radius, indices in waiting.items():
                job = replace(self.job, threat=replace(self.job.threat, eps=self.eps(radius)))
                if now() >= self.job.cascade.deadline:
                    return
                for records in job.records(self._taken(indices)):
                    new = [Trial(self.eps(radius), record) for record in records if record.finished]
                    self.learn(new)
                    yield new

    def _waiting(self) -> dict[int, list[int]]:
        """The samples that are to be tried at each radius, ascending."""
        waiting: dict[int, list[int]] = {}
        for index, bracket in self.brackets.items():
            if (radius := bracket.next()) is not None:
                waiting.setdefault(radius, []).append(index)
        return dict(sorted(waiting.items()))

    def _taken(self, indices: list[int]) -> Samples:
        chosen = set(indices)
        return self.samples.take([place for place, index in enumerate(self.samples.indices) if index in chosen])

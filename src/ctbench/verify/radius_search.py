"""The largest radius at which each sample is certified, and the smallest at which it is falsified, by bisection.

radii(model, x, y, Linf(0.2), tolerance=0.001).samples[0].certified

The radii that are tried are eps k / n for k = 1 ... n, where eps is that of the threat model and eps / n is at most the
tolerance. So samples share radii, and each trial is a certification of all samples that are to be tried there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ctbench.regions import Threat
from ctbench.results import SampleRecord, Verdict
from ctbench.results.radii import SAMPLES, Radii, RadiusFiles, Trial
from ctbench.results.runs import region_name
from ctbench.time_budget import now
from ctbench.verify import job as jobs
from ctbench.verify.cascade import Cascade, Replay
from ctbench.verify.defaults import DEFAULT_STAGES
from ctbench.verify.job import Job, Samples
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
        total: seconds for all samples together; None for no limit. The radii are then those that were found by then.
        records: where the trials are written, and whom to tell; by default they are only kept in memory.

    Returns:
        The radii of all samples that were tried.

    Raises:
        UnsupportedLayerError: a layer has no op.
        ContradictionError: a sample is certified at a radius, and falsified at a smaller one: an error of ctbench.
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
    end = math.inf if total is None else now() + total
    cascade = Cascade(stages=stages, timeout=timeout, replay=replay, deadline=end)
    job = Job.of(model, x, y, threat=threat, cascade=cascade, seed=seed)
    number = math.ceil(largest / tolerance * (1 - 1e-9))
    search = Search(job, Samples(range(records.first, records.first + len(x)), x, y), number)
    settings = {**records.about, **job.settings(), "largest": largest, "tolerance": largest / number}
    with _trials(records, settings, len(x)) as (files, trials):
        search.resume(trials)
        for trial in search.trials():
            if files is not None:
                files.append([trial])
            if records.on_record is not None:
                records.on_record(trial.record)
    return Radii.of(search.found, largest, largest / number)


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
    """The bisections of all samples."""

    job: Job
    samples: Samples
    number: int  # of radii
    found: list[Trial] = field(default_factory=list)
    brackets: dict[int, Bracket] = field(default_factory=dict)  # by the place of the sample

    def __post_init__(self) -> None:
        self.brackets = {place: Bracket(self.number + 1) for place in range(len(self.samples.indices))}

    def eps(self, radius: int) -> float:
        """The radius with a number from 1 to n."""
        return self.job.threat.eps if radius == self.number else self.job.threat.eps * radius / self.number

    def resume(self, trials: list[Trial]) -> None:
        """Take in trials of an earlier search under the same settings.

        Raises:
            ValueError: a trial is about another input, or at another radius.
        """
        places = {index: place for place, index in enumerate(self.samples.indices)}
        numbers = {self.eps(radius): radius for radius in range(1, self.number + 1)}
        by_eps: dict[float, dict[int, SampleRecord]] = {}
        for trial in trials:
            if trial.eps not in numbers:
                raise ValueError(f"a trial of sample {trial.record.index} is at eps {trial.eps!r}: choose other files")
            by_eps.setdefault(trial.eps, {})[trial.record.index] = trial.record
            if trial.record.index in places:
                self._learn(places[trial.record.index], numbers[trial.eps], trial)
        for records in by_eps.values():
            self.samples.recognize(records)

    def trials(self) -> Iterator[Trial]:
        """All trials that are missing, as they are made."""
        while waiting := self._waiting():
            for radius, places in waiting.items():
                job = replace(self.job, threat=replace(self.job.threat, eps=self.eps(radius)))
                for start in range(0, len(places), jobs.CHUNK):
                    if now() >= self.job.cascade.deadline:
                        return
                    chunk = places[start : start + jobs.CHUNK]
                    yield from self._tried(job, radius, chunk)

    def _waiting(self) -> dict[int, list[int]]:
        """The places of the samples that are to be tried at each radius, ascending."""
        waiting: dict[int, list[int]] = {}
        for place, bracket in self.brackets.items():
            if (radius := bracket.next()) is not None:
                waiting.setdefault(radius, []).append(place)
        return dict(sorted(waiting.items()))

    def _tried(self, job: Job, radius: int, places: list[int]) -> Iterator[Trial]:
        by_index = {self.samples.indices[place]: place for place in places}
        for records in job.records(self.samples.take(places)):
            for record in records:
                if record.finished:
                    trial = Trial(self.eps(radius), record)
                    self._learn(by_index[record.index], radius, trial)
                    yield trial

    def _learn(self, place: int, radius: int, trial: Trial) -> None:
        self.brackets[place].learn(radius, trial.record.verdict)
        self.found.append(trial)

"""Certification at several radii, where each verdict is found once: what follows from another radius is not computed.

certify_radii(model, x, y, Linf(0.1), eps=(0.02, 0.05, 0.1))[0.05].certified_accuracy

The radii are tried in the order of a search by halves. A sample that is certified at one radius is certified at all
smaller ones, and one that is falsified stays so at all larger ones, if the regions are nested (`Threat.is_inside`). All
settings except the radius are the same, so a proof or a replayed counterexample at one radius is one by the rules of
the other radius.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ctbench.regions import Linf, Threat
from ctbench.results import Certification, CertificationFiles, SampleRecord, Verdict
from ctbench.results.implications import by_halves, implied
from ctbench.results.stored import Stored
from ctbench.time_budget import now
from ctbench.verify.certifying import certify, engine_of
from ctbench.verify.records import Records, Writer
from ctbench.verify.trained import TrainedRun, records_of, samples_of

LEAST = 1e-9  # seconds: the time of the whole job is over at once
TOGETHER = 1000  # records that are written at once


def certify_radii(
    model: nn.Module | TrainedRun,
    x: Tensor | None = None,
    y: Tensor | None = None,
    threat: Threat | None = None,
    *,
    eps: Sequence[float],
    total: float | None = None,
    records: Mapping[float, Records] | None = None,
    **settings: Any,
) -> dict[float, Certification]:
    """Certify samples at several radii.

    A record that follows from another radius says so: its `decided_at` is that radius, its `decided_seconds` are the
    seconds there, and its own seconds are 0. Where regions are not known to be nested, each radius is computed.

    Args:
        model, x, y: as in `certify`.
        threat: what may be done to an input, at any radius; None: Linf, or the threat model of the run's recipe.
        eps: the radii, numbers in [0, 1] pixel space.
        total: seconds for all samples at all radii together; None for no limit.
        records: where the records of each radius go; by default they are only returned, and those of a run go to the
            files that `ctbench certify` uses, which are resumed.
        settings: stages, timeout, replay, seed, workers and engine, as in `certify`.

    Returns:
        A certification for each radius, ascending.

    Raises:
        ContradictionError: a sample is certified at a radius, and falsified at a smaller one: an error of ctbench.
        ValueError: there are no radii, or one is not a number; and the errors of `certify`.
    """
    _check_numbers(eps)
    radii = sorted(set(eps))
    if not radii:
        raise ValueError("eps holds no radius: give numbers, e.g. (0.02, 0.05, 0.1)")
    if isinstance(model, TrainedRun):
        x, y = samples_of(model, x, y)
        threat = model.recipe.threat if threat is None else threat
        run, model = model, model.model
        if records is None:
            records = {radius: records_of(run, replace(threat, eps=radius)) for radius in radii}
    threats = {radius: replace(threat or Linf(radius), eps=radius) for radius in radii}
    places = {radius: (records or {}).get(radius, Records()) for radius in radii}
    end = math.inf if total is None else now() + total
    engine = engine_of(settings.pop("workers", 1), settings.pop("engine", None))
    done: dict[float, Certification] = {}
    with engine.staying() as place:
        for radius in by_halves(radii):
            its = _Known.of(places[radius], _implied(radius, threats, done, places))
            left = None if total is None else max(LEAST, end - now())
            done[radius] = certify(model, x, y, threats[radius], total=left, records=its, engine=place, **settings)
    for radius in radii:  # a sample that was open may have been decided at a radius that came later
        known = _implied(radius, threats, done, places)
        done[radius] = _improved(done[radius], known, places[radius])
    return {radius: done[radius] for radius in radii}


def _check_numbers(radii: Sequence[float]) -> None:
    for radius in radii:
        if not isinstance(radius, Real) or isinstance(radius, bool):
            raise ValueError(
                f"eps holds {radius!r}: several radii must be numbers, not arrays with a radius for each feature"
            )


def _related(at: Threat, threats: Mapping[float, Threat], done: Mapping[float, Certification]) -> list[float]:
    """The radii that are done and whose regions are nested with those of a threat model."""
    return [radius for radius in done if at.is_inside(threats[radius]) or threats[radius].is_inside(at)]


def _implied(
    radius: float,
    threats: Mapping[float, Threat],
    done: Mapping[float, Certification],
    places: Mapping[float, Records],
) -> Iterator[SampleRecord]:
    """The records at a radius that follow from those at other radii, with their counterexamples, sample by sample."""
    related = _related(threats[radius], threats, done)
    for several in zip(*(done[eps] for eps in related), strict=True):
        at_radii = {eps: {record.index: record} for eps, record in zip(related, several, strict=True)}
        for record in implied(radius, at_radii).values():
            lost = record.verdict is Verdict.FALSIFIED and record.counterexample is None
            yield replace(record, counterexample=_stored(record, places)) if lost else record


def _stored(record: SampleRecord, places: Mapping[float, Records]) -> Any:
    """The counterexample of a record that was read from a file: the point was written next to the file, or is lost."""
    source = None if record.decided_at is None else places.get(record.decided_at)
    if source is None or source.path is None:
        return None
    path = CertificationFiles(Path(source.path)).counterexamples / f"{record.index}.npy"
    return np.load(path, allow_pickle=False) if path.is_file() else None


def _improved(certification: Certification, known: Iterable[SampleRecord], records: Records) -> Certification:
    """The certification with verdicts that are known in place of open samples; they are also written."""
    first = int(records.first)
    open_samples = {record.index for record in certification if record.verdict is Verdict.UNKNOWN}
    new = [record.after(certification[record.index - first]) for record in known if record.index in open_samples]
    if not new:
        return certification
    offsets = list[int]()
    if records.path is not None:
        files = CertificationFiles(Path(records.path))
        with files.alone():
            attempt = len(files.attempts) - 1
            new = [replace(record, attempt=attempt) for record in new]
            offsets = files.append(new, counterexamples=records.counterexamples)
    by_place = {record.index - first: record for record in new}
    if isinstance(certification.records, Stored):
        changed = certification.records.offsets.copy()
        changed[list(by_place)] = offsets
        return Certification(replace(certification.records, offsets=changed))
    return Certification(tuple(by_place.get(place, record) for place, record in enumerate(certification)))


@dataclass(frozen=True, kw_only=True)
class _Known(Records):
    """Records of which some are known before anything is computed. They are written first, and count as kept."""

    known: Iterator[SampleRecord] = field(default_factory=lambda: iter(()))

    @classmethod
    def of(cls, records: Records, known: Iterator[SampleRecord]) -> _Known:
        return cls(**{each.name: getattr(records, each.name) for each in fields(Records)}, known=known)

    @contextmanager
    def writing(self, settings: Any, number: int, recognize: Any) -> Iterator[Writer]:
        with super().writing(settings, number, recognize) as writer:
            while several := list(islice(self.known, TOGETHER)):
                writer.improve(several)
            yield writer

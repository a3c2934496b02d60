"""Certification at several radii, where each verdict is found once: what follows from another radius is not computed.

certify_radii(model, x, y, Linf(0.1), eps=(0.02, 0.05, 0.1))[0.05].certified_accuracy

The radii are tried in the order of a search by halves. A sample that is certified at one radius is certified at all
smaller ones, and one that is falsified stays so at all larger ones, if the regions are nested (`Threat.is_inside`). All
settings except the radius are the same, so a proof or a replayed counterexample at one radius is one by the rules of
the other radius.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ctbench.regions import Linf, Threat
from ctbench.results import Certification, CertificationFiles, SampleRecord, Verdict
from ctbench.results.implications import by_halves, implied
from ctbench.time_budget import now
from ctbench.verify.certifying import certify
from ctbench.verify.records import Records, Writer
from ctbench.verify.trained import TrainedRun, records_of, samples_of

LEAST = 1e-9  # seconds: the time of the whole job is over at once


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
    done: dict[float, Certification] = {}
    for radius in by_halves(radii):
        known = _implied(radius, threats, done, places)
        left = None if total is None else max(LEAST, end - now())
        done[radius] = certify(
            model, x, y, threats[radius], total=left, records=_Known.of(places[radius], known), **settings
        )
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
) -> dict[int, SampleRecord]:
    """The records at a radius that follow from those at other radii, with their counterexamples."""
    related = _related(threats[radius], threats, done)
    known = implied(radius, {eps: {record.index: record for record in done[eps]} for eps in related})
    for index, record in known.items():
        if record.verdict is Verdict.FALSIFIED and record.counterexample is None:
            known[index] = replace(record, counterexample=_stored(record, places))
    return known


def _stored(record: SampleRecord, places: Mapping[float, Records]) -> Any:
    """The counterexample of a record that was read from a file: the point was written next to the file, or is lost."""
    source = None if record.decided_at is None else places.get(record.decided_at)
    if source is None or source.path is None:
        return None
    path = CertificationFiles(Path(source.path)).counterexamples / f"{record.index}.npy"
    return np.load(path, allow_pickle=False) if path.is_file() else None


def _improved(certification: Certification, known: Mapping[int, SampleRecord], records: Records) -> Certification:
    """The certification with verdicts that are known in place of open samples; they are also written."""
    open_samples = {record.index: record for record in certification if record.verdict is Verdict.UNKNOWN}
    new = {index: record.after(open_samples[index]) for index, record in known.items() if index in open_samples}
    if not new:
        return certification
    if records.path is not None:
        files = CertificationFiles(Path(records.path))
        with files.alone():
            attempt = len(files.attempts) - 1
            new = {index: replace(record, attempt=attempt) for index, record in new.items()}
            files.append(list(new.values()), counterexamples=records.counterexamples)
    return Certification.of(new.get(record.index, record) for record in certification)


@dataclass(frozen=True, kw_only=True)
class _Known(Records):
    """Records of which some are known before anything is computed. They are written first, and count as kept."""

    known: Mapping[int, SampleRecord] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Records, known: Mapping[int, SampleRecord]) -> _Known:
        return cls(**{each.name: getattr(records, each.name) for each in fields(Records)}, known=known)

    @contextmanager
    def writing(self, settings: Any, number: int) -> Iterator[Writer]:
        with super().writing(settings, number) as writer:
            decided = {index for index, old in writer.kept.items() if old.verdict is not Verdict.UNKNOWN}
            silent = replace(writer, records=replace(self, on_record=None))  # on_start tells of them
            new = [
                record.after(writer.kept[index]) if index in writer.kept else record
                for index, record in self.known.items()
                if index not in decided
            ]
            yield replace(writer, kept={**writer.kept, **{record.index: record for record in silent.write(new)}})

"""Where the records of a certification go.

certify(model, x, y, Linf(0.1), records=Records("linf-0.1.jsonl", resume=True, counterexamples=True))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctbench.results import Certification, CertificationFiles, SampleRecord, Verdict
from ctbench.results.runs import SAMPLES
from ctbench.results.stored import Stored


@dataclass(frozen=True, kw_only=True)
class Records:
    """Where the records of a certification are written, and who hears of them.

    Args:
        path: the file of the records, NAME.jsonl. Its settings lie next to it. None keeps the records in memory.
        resume: keep the records that the file holds, and certify only the other samples. With more stages or a longer
            time limit than before, certified, falsified and misclassified samples keep their records, and unknown ones
            are tried again. `CertificationFiles.attempts` then lists what each record was decided with.
        counterexamples: also write the points that falsify samples, to the folder NAME.counterexamples.
        first: the index of the first sample in its data set, for a part of one.
        about: more entries for the settings, e.g. the name of the data set.
        on_start: called with the records that are kept, before the other samples are certified.
        on_record: called with each new record, after it is written.
        in_memory: whether the certification that is returned holds all records. False leaves the finished ones in their
            file, without their counterexamples: each then takes 8 bytes of memory.

    Raises:
        ValueError: an argument is invalid, or `resume`, `counterexamples` or in_memory=False is given without a path.
    """

    path: str | PathLike[str] | None = field(default=None, kw_only=False)
    resume: bool = False
    counterexamples: bool = False
    first: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    on_start: Callable[[Certification], None] | None = None
    on_record: Callable[[SampleRecord], None] | None = None
    in_memory: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | PathLike | None):
            raise ValueError(f"path is {self.path!r}: give the path of a file that ends in .jsonl, or None")
        if self.path is None and (self.resume or self.counterexamples or not self.in_memory):
            raise ValueError("resume, counterexamples and in_memory=False need a file: give its path as well")
        if not (isinstance(self.first, Integral) and self.first >= 0):
            raise ValueError(f"first is {self.first!r}: give the index of the first sample, 0 or more")

    @contextmanager
    def writing(
        self, settings: Callable[[], Mapping[str, Any]], number: int, recognize: Callable[[SampleRecord], None]
    ) -> Iterator[Writer]:
        """A writer of records made under these settings. No other process may write the file at the same time.

        Args:
            settings: gives all that the records depend on; called if there is a file.
            number: the number of samples.
            recognize: raises ValueError if an existing record is not about its sample.

        Raises:
            ValueError: another process writes the file, or it exists and does not fit these settings.
        """
        if self.path is None:
            yield Writer(self, None, 0, np.zeros(number, dtype=bool), np.full(number, -1))
            return
        files, samples = CertificationFiles(Path(self.path)), [int(self.first), int(self.first) + number]
        with files.alone():
            existing = files.start({**self.about, **settings(), SAMPLES: samples}, resume=self.resume)
            attempt = len(files.attempts) - 1
            writer = Writer(self, files, attempt, np.zeros(number, dtype=bool), np.full(number, -1))
            for record, offset in zip(existing, existing.offsets, strict=True):
                if record.index in range(*samples):
                    recognize(record)
                    writer.take(record, offset)
            yield writer


@dataclass(frozen=True, eq=False)
class Writer:
    """Writes records as they are made. The place of a sample is its index less that of the first sample."""

    records: Records
    files: CertificationFiles | None
    attempt: int
    done: NDArray[np.bool_]  # [N]: whether the record of a sample stays
    offsets: NDArray[np.int64]  # [N]: where the last record of a sample begins in the file; -1: there is none
    held: dict[int, SampleRecord] = field(default_factory=dict)  # by place: those in memory

    def take(self, record: SampleRecord, offset: int) -> None:
        """Take in a record that the file holds. An unknown sample of an earlier attempt is tried again."""
        place = record.index - self.records.first
        self.offsets[place] = offset
        self.done[place] = record.verdict is not Verdict.UNKNOWN or record.attempt >= self.attempt
        if self.done[place] and self.records.in_memory:
            self.held[place] = record

    def write(self, records: list[SampleRecord], *, silently: bool = False) -> None:
        """Write those records that are finished, of samples that are not done, and tell of them."""
        new = [self._joined(record) for record in records if not self.done[record.index - self.records.first]]
        finished = [record for record in new if record.finished]
        if self.files is not None:
            offsets = self.files.append(finished, counterexamples=self.records.counterexamples)
            self.offsets[self._places(finished)] = offsets
        self.done[self._places(finished)] = True
        for place, record in zip(self._places(new), new, strict=True):
            if self.records.in_memory or not record.finished:
                self.held[place] = record
            else:
                self.held.pop(place, None)
        if self.records.on_record is not None and not silently:
            for record in finished:
                self.records.on_record(record)

    def _places(self, records: list[SampleRecord]) -> list[int]:
        return [record.index - self.records.first for record in records]

    def _joined(self, record: SampleRecord) -> SampleRecord:
        """A record of this attempt, after that of an earlier attempt."""
        place, record = record.index - self.records.first, replace(record, attempt=self.attempt)
        return record if self.offsets[place] < 0 else record.after(self._stored(np.array([place]))[0])

    def _stored(self, places: NDArray[np.int64]) -> Stored:
        """The last records of some samples in the file."""
        assert self.files is not None, "only what is in a file has an offset"
        return Stored(self.files.records, places + int(self.records.first), self.offsets[places])

    def improve(self, records: list[SampleRecord]) -> None:
        """Write records of samples that are undecided, even of those that are not tried again; tell nobody."""
        self.done[[place for place in self._places(records) if self._undecided(place)]] = False
        self.write(records, silently=True)

    def _undecided(self, place: int) -> bool:
        record = self.held.get(place)
        if record is None and self.done[place]:
            record = self._stored(np.array([place]))[0]
        return record is None or record.verdict is Verdict.UNKNOWN

    def kept(self) -> Certification:
        """The records of all samples that are done."""
        if self.records.in_memory:
            return Certification(tuple(self.held[place] for place in np.flatnonzero(self.done).tolist()))
        return Certification(self._stored(np.flatnonzero(self.done)))

    def certification(self, missing: Callable[[int], SampleRecord]) -> Certification:
        """The records of all samples; `missing` makes those of samples that this attempt has not tried, by place."""

        def unfinished(place: int) -> SampleRecord:
            return self.held[place] if place in self.held else self._joined(missing(place))

        if self.records.in_memory:
            return Certification(tuple(unfinished(place) for place in range(len(self.done))))
        offsets = np.where(self.done, self.offsets, -1)
        return Certification(replace(self._stored(np.arange(len(self.done))), offsets=offsets, missing=unfinished))

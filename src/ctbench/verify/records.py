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

from ctbench.results import Certification, CertificationFiles, SampleRecord, Verdict
from ctbench.results.runs import SAMPLES


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

    Raises:
        ValueError: an argument is invalid, or `resume` or `counterexamples` is given without a path.
    """

    path: str | PathLike[str] | None = field(default=None, kw_only=False)
    resume: bool = False
    counterexamples: bool = False
    first: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    on_start: Callable[[Certification], None] | None = None
    on_record: Callable[[SampleRecord], None] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | PathLike | None):
            raise ValueError(f"path is {self.path!r}: give the path of a file that ends in .jsonl, or None")
        if self.path is None and (self.resume or self.counterexamples):
            raise ValueError("resume and counterexamples need a file: give its path as well")
        if not (isinstance(self.first, Integral) and self.first >= 0):
            raise ValueError(f"first is {self.first!r}: give the index of the first sample, 0 or more")

    @contextmanager
    def writing(self, settings: Callable[[], Mapping[str, Any]], number: int) -> Iterator[Writer]:
        """A writer of records made under these settings. No other process may write the file at the same time.

        Args:
            settings: gives all that the records depend on; called if there is a file.
            number: the number of samples.

        Raises:
            ValueError: another process writes the file, or it exists and does not fit these settings.
        """
        if self.path is None:
            yield Writer(self, None, {}, {}, 0)
            return
        files, samples = CertificationFiles(Path(self.path)), [int(self.first), int(self.first) + number]
        with files.alone():
            existing = files.start({**self.about, **settings(), SAMPLES: samples}, resume=self.resume)
            attempt = len(files.attempts) - 1
            again = {i: old for i, old in existing.items() if old.verdict is Verdict.UNKNOWN and old.attempt < attempt}
            kept = {index: record for index, record in existing.items() if index not in again}
            yield Writer(self, files, kept, again, attempt)


@dataclass(frozen=True)
class Writer:
    """Writes records as they are made."""

    records: Records
    files: CertificationFiles | None
    kept: Mapping[int, SampleRecord]  # by index: the records that stay
    again: Mapping[int, SampleRecord]  # by index: the records of samples that are tried again
    attempt: int

    def write(self, records: list[SampleRecord]) -> list[SampleRecord]:
        """Write the finished records of `records`, hand them to the callback, and return all as they are now."""
        records = [replace(record, attempt=self.attempt) for record in records]
        records = [
            record.after(self.again[record.index]) if record.index in self.again else record for record in records
        ]
        finished = [record for record in records if record.finished]
        if self.files is not None:
            self.files.append(finished, counterexamples=self.records.counterexamples)
        if self.records.on_record is not None:
            for record in finished:
                self.records.on_record(record)
        return records

"""How well a network generalises to corrupted images: its accuracy on each test set, over its clean accuracy.

    ratio(c) = acc(c) / acc(clean)       pooled over the severities of corruption c, or at one severity
    mean     = the unweighted mean of ratio(c) over the corruptions

CTBench, section 5.5 and Figures 6 and 9. A file holds one record per corrupted test set, and one of the clean images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ctbench.results import jsonl
from ctbench.results.analysed import Measurement, Measurements, PartRecord

CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class CorruptionRecord:
    """The number of images of a test set that a network classifies correctly.

    Raises:
        ValueError: the numbers contradict each other.
    """

    corruption: str  # "clean" for the clean images
    severity: int | None  # None for clean images, and for sets without severities
    right: int
    samples: int

    def __post_init__(self) -> None:
        counts = self.right, self.samples
        if not all(type(count) is int for count in counts) or not 0 <= self.right <= self.samples or not self.samples:
            raise ValueError(
                f"{self.right!r} of {self.samples!r} images are right: give whole numbers, 0 <= right <= samples"
            )

    @property
    def key(self) -> tuple[str, int | None]:
        return self.corruption, self.severity


@dataclass(frozen=True)
class Generalisation:
    """The records of one network.

    Raises:
        ValueError: two records have the same corruption and severity, or none is clean, or only that one is there.
    """

    records: tuple[CorruptionRecord, ...]

    def __post_init__(self) -> None:
        keys = [record.key for record in self.records]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice:
            raise ValueError(f"{twice[0]} at severity {twice[1]} has two records: take one of them out")
        if (CLEAN, None) not in keys or len(keys) < 2:
            raise ValueError("there must be a record of the clean images, and one of a corruption at least")

    @property
    def clean_accuracy(self) -> float:
        return self.accuracy(CLEAN)

    @property
    def corruptions(self) -> tuple[str, ...]:
        """The corruptions, in order."""
        return tuple(dict.fromkeys(record.corruption for record in self.records if record.corruption != CLEAN))

    @property
    def severities(self) -> tuple[int, ...]:
        """The severities, ascending; none for sets without severities."""
        return tuple(sorted({record.severity for record in self.records if record.severity is not None}))

    def accuracy(self, corruption: str, severity: int | None = None) -> float:
        """The accuracy on a corruption; without a severity, on the images of all its severities.

        Raises:
            ValueError: there is no such record.
        """
        chosen = [
            record for record in self.records if record.corruption == corruption and severity in (None, record.severity)
        ]
        if not chosen:
            raise ValueError(f"there is no record of {corruption} at severity {severity}")
        return sum(record.right for record in chosen) / sum(record.samples for record in chosen)

    def ratio(self, corruption: str, severity: int | None = None) -> float:
        """acc(corruption) / acc(clean); NaN if the network is never right on clean images."""
        clean = self.clean_accuracy
        return self.accuracy(corruption, severity) / clean if clean else float("nan")

    def mean(self, severity: int | None = None) -> float:
        """The unweighted mean of the ratios over the corruptions."""
        return fmean(self.ratio(corruption, severity) for corruption in self.corruptions)

    def measurements(self) -> Measurements:
        """The clean accuracy, and the ratios of all corruptions and their mean; over the severities, if there are any.

        They have the radius 0, and no ratios if the network is never right on clean images.
        """
        points = [Measurement(self._values(severity), severity) for severity in (None, *self.severities)]
        (clean,) = (record.samples for record in self.records if record.corruption == CLEAN)
        return Measurements((PartRecord(eps=0.0, start=0, stop=clean, digest="", seconds=0.0, points=tuple(points)),))

    def _values(self, severity: int | None) -> dict[str, float]:
        ratios = {name: self.ratio(name, severity) for name in self.corruptions}
        values = {CLEAN: self.clean_accuracy, **ratios, "mean": self.mean(severity)}
        return {name: value for name, value in values.items() if math.isfinite(value)}


def read_corruptions(path: Path) -> dict[tuple[str, int | None], CorruptionRecord]:
    """The records of a file by corruption and severity.

    Raises:
        ValueError: a line is not a record, or two are about the same test set; the message names the file.
    """
    records: dict[tuple[str, int | None], CorruptionRecord] = {}
    for number, content in enumerate(jsonl.read(path), start=1):
        with jsonl.named(f"{path}, line {number}"):
            try:
                record = CorruptionRecord(**content)
            except TypeError as error:
                raise ValueError(f"not the record of a corrupted test set ({error}): take it out") from None
            if record.key in records:
                raise ValueError(f"{record.corruption} at severity {record.severity} has two records: take one out")
            records[record.key] = record
    return records


def append_corruptions(path: Path, records: Iterable[CorruptionRecord]) -> None:
    """Add records to a file."""
    contents: list[dict[str, Any]] = [asdict(record) for record in records]
    jsonl.append(path, contents)

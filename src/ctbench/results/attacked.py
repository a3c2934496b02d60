"""The results of attacks, read from the records of `ctbench attack`: accuracies, and how much classes differ in them.

A record is one sample: {"index", "label", "prediction", "attack"}. The prediction is that at the clean input; "attack"
names the attack that falsified the sample, or is null.

    read_attacked(path).robust_discrepancy
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ctbench.results import jsonl
from ctbench.results.fairness import discrepancy

FIELDS = ("label", "prediction", "attack")


@dataclass(frozen=True)
class Attacked:
    """Which samples are wrong.

    Args:
        labels: of all samples.
        wrong: whether the prediction at the clean input is wrong.
        falsified: whether it is, or an attack found a point where it is.
    """

    labels: tuple[int, ...]
    wrong: tuple[bool, ...]
    falsified: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def natural_accuracy(self) -> float:
        return 1 - fmean(self.wrong)

    @property
    def adversarial_accuracy(self) -> float:
        """The share of samples that are right, and that no attack falsified."""
        return 1 - fmean(self.falsified)

    @property
    def natural_discrepancy(self) -> float:
        """By how much the worst class is worse than all: `fairness.discrepancy` of the clean predictions."""
        return discrepancy(self.wrong, self.labels)

    @property
    def robust_discrepancy(self) -> float:
        """The same under attack."""
        return discrepancy(self.falsified, self.labels)


def read_attacked(path: Path) -> Attacked | None:
    """The results in a file of records; None if it has no records.

    Raises:
        ValueError: a record lacks a field; the message names the file.
    """
    records = jsonl.read(path)
    lacking = sorted({field for record in records for field in FIELDS if field not in record})
    if lacking:
        raise ValueError(
            f"{path}: a record lacks {', '.join(lacking)}: remove both files, and run ctbench attack again"
        )
    if not records:
        return None
    wrong = tuple(record["label"] != record["prediction"] for record in records)
    falsified = tuple(missed or record["attack"] is not None for missed, record in zip(wrong, records, strict=True))
    return Attacked(tuple(record["label"] for record in records), wrong, falsified)

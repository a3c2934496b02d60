"""What a certification found out: one record a sample, and the accuracies that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]


class Verdict(StrEnum):
    CERTIFIED = "certified"  # proved right over the whole region
    FALSIFIED = "falsified"  # right at the clean input, wrong at a point of the region that was replayed
    UNKNOWN = "unknown"  # right at the clean input, and nothing proved
    MISCLASSIFIED = "misclassified"  # wrong at the clean input


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """What is known about a sample. Fields that are not compared are in memory alone, and in no file."""

    index: int  # of the sample in the data set
    label: int
    prediction: int  # at the clean input; -1 where the logits are not finite, or nothing was computed
    verdict: Verdict
    stage: str  # that reached the verdict; the last one that tried, where it is unknown
    bound: float | None  # the best lower bound of the least margin z_y - z_k over the region
    seconds: float  # this sample's share of the time that its batches took
    stage_seconds: dict[str, float] = field(default_factory=dict, hash=False)  # the same, stage by stage
    digest: str = ""  # of the input and its label, by which a resumed certification knows them again
    reason: str = ""  # why it is unknown, where a stage failed or time was over
    counterexample: NDArray[np.float64] | None = field(default=None, compare=False)  # [*shape], where it is falsified
    finished: bool = field(default=True, compare=False)  # False where the whole job's time was over too early

    @property
    def right(self) -> bool:
        """Whether the network is right at the clean input."""
        return self.prediction == self.label

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.compare}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> SampleRecord:
        """Raises ValueError where the record is not one of a certification; says what is wrong with it."""
        known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(cls) if f.compare}
        wrong = [f"it lacks {name!r}" for name, needed in known.items() if needed and name not in record]
        wrong += [f"it has {name!r}, which is unknown" for name in record if name not in known]
        if record.get("verdict", Verdict.UNKNOWN) not in list(Verdict):
            wrong.append(f"its verdict is {record['verdict']!r}, expected {', '.join(Verdict)}")
        if wrong:
            raise ValueError(
                f"not the record of a certified sample ({'; '.join(wrong)}): take it out, and certify again"
            )
        return cls(**{**record, "verdict": Verdict(record["verdict"])})


@dataclass(frozen=True)
class Certification:
    """The records of a set of samples, in the order of their indices."""

    records: tuple[SampleRecord, ...]

    @classmethod
    def of(cls, records: Iterable[SampleRecord]) -> Certification:
        """Raises ValueError where a sample has two records."""
        ordered = tuple(sorted(records, key=lambda record: record.index))
        twice = [a.index for a, b in pairwise(ordered) if a.index == b.index]
        if twice:
            raise ValueError(f"sample {twice[0]} has two records: take one of them out")
        return cls(ordered)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[SampleRecord]:
        return iter(self.records)

    def __getitem__(self, position: int) -> SampleRecord:
        return self.records[position]

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many samples have each verdict."""
        found = Counter(record.verdict for record in self.records)
        return {verdict: found[verdict] for verdict in Verdict}

    @property
    def stages(self) -> dict[str, dict[Verdict, int]]:
        """How many samples each stage decided, by verdict; the open ones count for the last that tried."""
        found: dict[str, Counter[Verdict]] = {}
        for record in self.records:
            found.setdefault(record.stage, Counter())[record.verdict] += 1
        return {stage: dict(counts) for stage, counts in found.items()}

    @property
    def natural_accuracy(self) -> float:
        """The share that is right at the clean input."""
        return self._share(record.right for record in self.records)

    @property
    def adversarial_accuracy(self) -> float:
        """The share that is right, and that no attack could turn."""
        return self._share(record.right and record.verdict is not Verdict.FALSIFIED for record in self.records)

    @property
    def certified_accuracy(self) -> float:
        """The share that is proved right over its whole region."""
        return self._share(record.verdict is Verdict.CERTIFIED for record in self.records)

    @property
    def seconds(self) -> float:
        return sum(record.seconds for record in self.records)

    @property
    def seconds_by_stage(self) -> dict[str, float]:
        """What each stage took, in the order in which they came."""
        found: Counter[str] = Counter()
        for record in self.records:
            found.update(record.stage_seconds)
        return dict(found)

    def to_dicts(self) -> list[dict[str, Any]]:
        """A dictionary a sample, as in the files."""
        return [record.to_json() for record in self.records]

    def to_pandas(self) -> pd.DataFrame:
        """A table with a row a sample, and a column for each stage's seconds, as "stage_seconds.crown".

        Raises:
            ValueError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ValueError(f"pandas is not there ({error}): pip install pandas, or take to_dicts()") from None
        return pd.json_normalize(self.to_dicts())

    def _share(self, chosen: Iterable[bool]) -> float:
        return sum(chosen) / len(self.records) if self.records else 0.0

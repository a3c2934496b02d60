"""What a certification found out: one record a sample, and the accuracies that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ctbench.results.checking import CHECKSUM, check
from ctbench.results.failures import Failure, by_stage
from ctbench.results.verdicts import OUTCOMES, Open, Verdict

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

Key = TypeVar("Key")


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
    reason: str = ""  # why it is unknown, in words, where a stage failed or time was over
    failed: dict[str, str] = field(
        default_factory=dict, hash=False
    )  # what stages raised, by stage, whatever came of it
    late: bool = False  # whether it is unknown, and more seconds could have told more
    counterexample: NDArray[np.float64] | None = field(default=None, compare=False)  # [*shape], where it is falsified
    finished: bool = field(default=True, compare=False)  # False where the whole job's time was over too early

    @property
    def right(self) -> bool:
        """Whether the network is right at the clean input."""
        return self.prediction == self.label

    @property
    def open(self) -> Open | None:
        """Why it is unknown; None where it is not."""
        if self.verdict is not Verdict.UNKNOWN:
            return None
        if not self.finished:
            return Open.JOB_OVER
        if self.failed:
            return Open.ERROR
        return Open.TIME if self.late else Open.UNDECIDED

    @property
    def outcome(self) -> str:
        """The verdict, of an unknown sample with why it is open: one of OUTCOMES, or "unknown (job over)"."""
        return self.verdict.value if self.open is None else f"{self.verdict} ({self.open})"

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.compare}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> SampleRecord:
        """Raises ValueError where the record is not one of a certification, or contradicts itself; says how."""
        known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(cls) if f.compare}
        wrong = [f"it lacks {name!r}" for name, needed in known.items() if needed and name not in record]
        wrong += [f"it has {name!r}, which is unknown" for name in record if name not in (*known, CHECKSUM)]
        if wrong:
            raise ValueError(
                f"not the record of a certified sample ({'; '.join(wrong)}): take it out, and certify again"
            )
        check(record)
        content = {name: value for name, value in record.items() if name != CHECKSUM}
        return cls(**{**_why_open(record), **content, "verdict": Verdict(record["verdict"])})


def _why_open(record: Mapping[str, Any]) -> dict[str, Any]:
    """`failed` and `late` of a record from before there were these fields: its reason alone tells failures from time.

    That of a failure began with the title of a stage.
    """
    reason = record.get("reason", "")
    if not reason or "failed" in record or "late" in record:
        return {}
    stages = (record["stage"], *record.get("stage_seconds", ()))
    stage = next((stage for stage in stages if reason.startswith(f"{stage}: ")), None)
    return {"late": True} if stage is None else {"failed": {stage: reason.removeprefix(f"{stage}: ")}}


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
        return self._by_stage(lambda record: record.verdict)

    @property
    def outcomes(self) -> dict[str, int]:
        """How many samples have each of OUTCOMES: the verdicts, where unknown for an error is not unknown for time."""
        found = Counter(record.outcome for record in self.records)
        return {outcome: found[outcome] for outcome in (*OUTCOMES, *(found.keys() - set(OUTCOMES)))}

    @property
    def outcomes_by_stage(self) -> dict[str, dict[str, int]]:
        """The same for each stage, as in `stages`."""
        return self._by_stage(lambda record: record.outcome)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The stages that failed, whatever others found out about the samples afterwards."""
        return by_stage(record.failed for record in self.records)

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

    def _by_stage(self, kind: Callable[[SampleRecord], Key]) -> dict[str, dict[Key, int]]:
        """How many records of each kind there are for each stage."""
        found: dict[str, Counter[Key]] = {}
        for record in self.records:
            found.setdefault(record.stage, Counter())[kind(record)] += 1
        return {stage: dict(counts) for stage, counts in found.items()}

    def _share(self, chosen: Iterable[bool]) -> float:
        return sum(chosen) / len(self.records) if self.records else 0.0

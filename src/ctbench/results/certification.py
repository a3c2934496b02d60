"""The results of a certification: one record per sample, and the accuracies computed from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ctbench.results.checking import CHECKSUM, check, refuse, unsealed
from ctbench.results.failures import Failure, by_stage
from ctbench.results.verdicts import OUTCOMES, Open, Verdict

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

Key = TypeVar("Key")
OLD = ("late",)  # fields of earlier records, which are read and no longer written


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """The result for one sample. Fields with compare=False exist only in memory, not in files."""

    index: int  # the index of the sample in the data set
    label: int
    prediction: int  # at the clean input; -1 if the logits are not finite, or were not computed
    verdict: Verdict
    stage: str  # the stage that reached the verdict; for unknown samples, the last stage that tried
    bound: float | None  # the best lower bound of the smallest margin z_y - z_k over the region
    seconds: float  # this sample's share of the time of its batches
    stage_seconds: dict[str, float] = field(default_factory=dict, hash=False)  # the same by stage
    digest: str = ""  # of the input and its label; a resumed certification compares it
    open: Open | None = None  # why the sample is unknown; None if it is not unknown
    reason: str = ""  # the same in words
    failed: dict[str, str] = field(
        default_factory=dict, hash=False
    )  # the errors that stages raised, by stage, whatever the verdict
    counterexample: NDArray[np.float64] | None = field(default=None, compare=False)  # [*shape], if falsified

    def __post_init__(self) -> None:
        if self.verdict is Verdict.UNKNOWN and self.open is None:
            object.__setattr__(self, "open", Open.ERROR if self.failed else Open.UNDECIDED)

    @property
    def right(self) -> bool:
        """Whether the network is right at the clean input."""
        return self.prediction == self.label

    @property
    def finished(self) -> bool:
        """Whether the sample had its time; False if the time of the whole job ended before."""
        return self.open is not Open.JOB_OVER

    @property
    def outcome(self) -> str:
        """The verdict. Unknown samples add why they are open: one of OUTCOMES, or "unknown (job over)"."""
        return self.verdict.value if self.open is None else f"{self.verdict} ({self.open})"

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.compare}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> SampleRecord:
        """Raises ValueError if the record is not one of a certification, or contradicts itself, and says how."""
        required = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(cls) if f.compare}
        faults = [f"it lacks {name!r}" for name, needed in required.items() if needed and name not in record]
        faults += [f"it has {name!r}, which is unknown" for name in record if name not in (*required, CHECKSUM, *OLD)]
        refuse(*faults)
        check(record)
        content = {name: value for name, value in unsealed(record).items() if name not in OLD}
        verdict, why = Verdict(record["verdict"]), record.get("open")
        content |= {"verdict": verdict, "open": None if why is None else Open(why)}
        return cls(**({**content, **_why_open(record)} if verdict is Verdict.UNKNOWN and why is None else content))


def _why_open(record: Mapping[str, Any]) -> dict[str, Any]:
    """`open` and `failed` of an old record of an unknown sample.

    Records had `failed` and `late` before. Still older ones had a reason alone: that of a failure begins with the title
    of a stage; otherwise the time was over.
    """
    if "failed" in record or "late" in record:
        late = Open.TIME if record.get("late") else Open.UNDECIDED
        return {"open": Open.ERROR if record.get("failed") else late}
    reason = record.get("reason", "")
    if not reason:
        return {}
    stages = (record["stage"], *record.get("stage_seconds", ()))
    stage = next((stage for stage in stages if reason.startswith(f"{stage}: ")), None)
    return {"open": Open.TIME} if stage is None else {"failed": {stage: reason.removeprefix(f"{stage}: ")}}


@dataclass(frozen=True)
class Certification:
    """The records of a set of samples, in the order of their indices."""

    records: tuple[SampleRecord, ...]

    @classmethod
    def of(cls, records: Iterable[SampleRecord]) -> Certification:
        """Raises ValueError if a sample has two records."""
        ordered = tuple(sorted(records, key=lambda record: record.index))
        twice = [a.index for a, b in pairwise(ordered) if a.index == b.index]
        if twice:
            raise ValueError(f"sample {twice[0]} has two records: remove one of the two lines")
        return cls(ordered)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[SampleRecord]:
        return iter(self.records)

    def __getitem__(self, position: int) -> SampleRecord:
        return self.records[position]

    @property
    def counts(self) -> dict[Verdict, int]:
        """The number of samples with each verdict."""
        counts = Counter(record.verdict for record in self.records)
        return {verdict: counts[verdict] for verdict in Verdict}

    @property
    def stages(self) -> dict[str, dict[Verdict, int]]:
        """The number of samples that each stage decided, by verdict; open samples count for the last stage."""
        return self._by_stage(lambda record: record.verdict)

    @property
    def outcomes(self) -> dict[str, int]:
        """The number of samples with each of OUTCOMES: the verdicts, with "unknown" divided by its reason."""
        counts = Counter(record.outcome for record in self.records)
        return {outcome: counts[outcome] for outcome in (*OUTCOMES, *(counts.keys() - set(OUTCOMES)))}

    @property
    def outcomes_by_stage(self) -> dict[str, dict[str, int]]:
        """The same for each stage, like `stages`."""
        return self._by_stage(lambda record: record.outcome)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The stages that failed, even on samples that later stages decided."""
        return by_stage(record.failed for record in self.records)

    @property
    def natural_accuracy(self) -> float:
        """The share of samples that are right at the clean input."""
        return self._share(record.right for record in self.records)

    @property
    def adversarial_accuracy(self) -> float:
        """The share of samples that are right, and that no attack falsified."""
        return self._share(record.right and record.verdict is not Verdict.FALSIFIED for record in self.records)

    @property
    def certified_accuracy(self) -> float:
        """The share of samples that are proved right over their whole region."""
        return self._share(record.verdict is Verdict.CERTIFIED for record in self.records)

    @property
    def seconds(self) -> float:
        return sum(record.seconds for record in self.records)

    @property
    def seconds_by_stage(self) -> dict[str, float]:
        """The seconds of each stage, in the order of the stages."""
        seconds: Counter[str] = Counter()
        for record in self.records:
            seconds.update(record.stage_seconds)
        return dict(seconds)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary per sample, with the fields that the files have."""
        return [record.to_json() for record in self.records]

    def to_pandas(self) -> pd.DataFrame:
        """A table with a row per sample, and a column for the seconds of each stage, e.g. "stage_seconds.crown".

        Raises:
            ValueError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ValueError(f"pandas is not there ({error}): pip install pandas, or use to_dicts()") from None
        return pd.json_normalize(self.to_dicts())

    def _by_stage(self, kind: Callable[[SampleRecord], Key]) -> dict[str, dict[Key, int]]:
        """The number of records of each kind, by stage."""
        counters: dict[str, Counter[Key]] = {}
        for record in self.records:
            counters.setdefault(record.stage, Counter())[kind(record)] += 1
        return {stage: dict(counts) for stage, counts in counters.items()}

    def _share(self, chosen: Iterable[bool]) -> float:
        return sum(chosen) / len(self.records) if self.records else 0.0

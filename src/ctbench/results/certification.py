"""The results of a certification: one record per sample, and the accuracies computed from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
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
COMPACT = ("label", "prediction", "verdict", "open", "stage", "bound", "seconds")  # columns of `to_pandas`
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
    attempt: int = 0  # which stages and time limit it was decided with: a place in `CertificationFiles.attempts`
    decided_at: float | None = None  # the other radius whose verdict implies this one; None if it was decided here
    decided_seconds: float | None = None  # the sample's seconds at that radius
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

    def after(self, earlier: SampleRecord) -> SampleRecord:
        """The record of another attempt at a sample that `earlier` left unknown: the seconds are those of both."""
        best = max((bound for bound in (self.bound, earlier.bound) if bound is not None), default=None)
        spent = Counter(earlier.stage_seconds)
        spent.update(self.stage_seconds)
        return replace(
            self,
            bound=best if self.verdict in (Verdict.CERTIFIED, Verdict.UNKNOWN) else self.bound,
            seconds=self.seconds + earlier.seconds,
            stage_seconds=dict(spent),
        )

    def implied(self, eps: float) -> SampleRecord:
        """The record that this one implies at another radius. It takes no time.

        Args:
            eps: the radius of this record. The other one is smaller if the sample is certified, or larger if it is
                falsified. A misclassified sample is one at each radius.
        """
        assert self.verdict is not Verdict.UNKNOWN, "an open sample implies nothing"
        source = (eps, self.seconds) if self.decided_at is None else (self.decided_at, self.decided_seconds)
        bound = self.bound if self.verdict is Verdict.CERTIFIED else None  # the margin is smaller on a larger region
        record = replace(self, bound=bound, seconds=0.0, stage_seconds={}, failed={}, attempt=0)
        return replace(record, decided_at=source[0], decided_seconds=source[1])

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


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        """One line: the number of samples, the accuracies, and how many samples are unknown."""
        return f"<Certification of {self._accuracies()}, {self.counts[Verdict.UNKNOWN]} unknown>"

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

    def by_class(self) -> dict[int, Certification]:
        """The certification of the samples of each class, by its label, ascending."""
        labels = sorted({record.label for record in self.records})
        return {label: Certification(tuple(r for r in self.records if r.label == label)) for label in labels}

    def summary(self) -> str:
        """A text of several lines: the accuracies, each outcome with its stages, the seconds, and the classes."""
        lines = [self._accuracies()]
        for outcome, count in self.outcomes.items():
            stages = {stage: counts[outcome] for stage, counts in self.outcomes_by_stage.items() if outcome in counts}
            if count:
                lines.append(f"  {outcome:<22} {count:>6}   {_listed(stages, '{}')}".rstrip())
        if self.records:
            lines.append(
                f"  {'seconds':<22} {self.seconds:>6.1f}   {_listed(self.seconds_by_stage, '{:.1f}')}".rstrip()
            )
            certified = {label: part.certified_accuracy for label, part in self.by_class().items()}
            worst, best = (choose(certified, key=certified.__getitem__) for choose in (min, max))
            extremes = f"{worst} ({100 * certified[worst]:.2f} %) to {best} ({100 * certified[best]:.2f} %)"
            lines.append(f"  certified by class, from class {extremes}")
        lines += [f"  failed: {failure}" for failure in self.failures]
        return "\n".join(lines)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary per sample, with the fields that the files have."""
        return [record.to_json() for record in self.records]

    def to_pandas(self, *, details: bool = False) -> pd.DataFrame:
        """A table with a row per sample: label, prediction, verdict, why it is open, stage, bound and seconds.

        Args:
            details: all other fields as well, e.g. the seconds of each stage, "stage_seconds.crown".

        Raises:
            ValueError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ValueError(f"pandas is not there ({error}): pip install pandas, or use to_dicts()") from None
        table = pd.json_normalize(self.to_dicts())
        return table if details or not len(table) else table.set_index("index")[[*COMPACT]]

    def _by_stage(self, kind: Callable[[SampleRecord], Key]) -> dict[str, dict[Key, int]]:
        """The number of records of each kind, by stage."""
        counters: dict[str, Counter[Key]] = {}
        for record in self.records:
            counters.setdefault(record.stage, Counter())[kind(record)] += 1
        return {stage: dict(counts) for stage, counts in counters.items()}

    def _accuracies(self) -> str:
        """The number of samples and the accuracies, e.g. "100 samples: natural 97.00 %, ..."."""
        shares = {
            "natural": self.natural_accuracy,
            "adversarial": self.adversarial_accuracy,
            "certified": self.certified_accuracy,
        }
        samples = f"{len(self)} sample{'' if len(self) == 1 else 's'}"
        return f"{samples}: {', '.join(f'{name} {100 * share:.2f} %' for name, share in shares.items())}"

    def _share(self, chosen: Iterable[bool]) -> float:
        return sum(chosen) / len(self.records) if self.records else 0.0


def _listed(numbers: Mapping[str, float], form: str) -> str:
    """Numbers by name, e.g. "crown 3, interval 5"."""
    return ", ".join(f"{name} {form.format(number)}" for name, number in numbers.items())

"""The results of a certification: one record per sample, and the accuracies computed from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ctbench.results.checking import CHECKSUM, check, refuse, unsealed
from ctbench.results.failures import Failure, by_stage
from ctbench.results.verdicts import OUTCOMES, Open, Verdict

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

    from ctbench.results.stored import Stored

Key = TypeVar("Key")
COMPACT = ("label", "prediction", "verdict", "open", "stage", "bound", "seconds")  # columns of `to_pandas`
ROBUST_ACCURACIES = ("certified", "adversarial")  # the bounds of robust accuracy from below and from above
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
        """The record of another attempt at a sample that `earlier` left unknown: the seconds are those of both.

        If the job was over before this attempt came to the sample, the prediction is the earlier one.
        """
        best = max((bound for bound in (self.bound, earlier.bound) if bound is not None), default=None)
        spent = Counter(earlier.stage_seconds)
        spent.update(self.stage_seconds)
        return replace(
            self,
            prediction=earlier.prediction if self.open is Open.JOB_OVER and self.prediction < 0 else self.prediction,
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
        return {part.name: getattr(self, part.name) for part in IN_FILES}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> SampleRecord:
        """Raises ValueError if the record is not one of a certification, or contradicts itself, and says how."""
        lacking, strange = NEEDED - record.keys(), record.keys() - READ
        refuse(
            *(f"it lacks {name!r}" for name in sorted(lacking)),
            *(f"it has {name!r}, which is unknown" for name in sorted(strange)),
        )
        check(record)
        return cls.of_checked(record)

    @classmethod
    def of_checked(cls, record: dict[str, Any]) -> SampleRecord:
        """The record of a line that was checked before: nothing is checked again."""
        content = {name: value for name, value in unsealed(record).items() if name not in OLD}
        verdict, why = Verdict(record["verdict"]), record.get("open")
        content |= {"verdict": verdict, "open": None if why is None else Open(why)}
        return cls(**({**content, **_why_open(record)} if verdict is Verdict.UNKNOWN and why is None else content))


IN_FILES = [part for part in fields(SampleRecord) if part.compare]
NEEDED = {part.name for part in IN_FILES if part.default is MISSING and part.default_factory is MISSING}
READ = {*(part.name for part in IN_FILES), CHECKSUM, *OLD}


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


class Kind(NamedTuple):
    """What records that count alike have in common."""

    label: int
    stage: str
    verdict: Verdict
    outcome: str
    right: bool
    finished: bool

    @classmethod
    def of(cls, record: SampleRecord) -> Kind:
        return cls(record.label, record.stage, record.verdict, record.outcome, record.right, record.finished)


@dataclass
class Tally:
    """All that is counted of records, in one pass."""

    kinds: Counter[Kind] = field(default_factory=Counter)
    seconds: float = 0.0
    by_stage: Counter[str] = field(default_factory=Counter)  # seconds
    implied: int = 0  # records that follow from another radius
    attempts: Counter[int] = field(default_factory=Counter)  # unknown records, by their attempt
    reasons: int = 0  # finished records with a reason in words
    example: SampleRecord | None = None  # the first of these
    failures: tuple[Failure, ...] = ()

    @classmethod
    def of(cls, records: Iterable[SampleRecord]) -> Tally:
        tally = cls()
        tally.failures = by_stage(tally._counted(record).failed for record in records)
        return tally

    def _counted(self, record: SampleRecord) -> SampleRecord:
        self.kinds[Kind.of(record)] += 1
        self.seconds += record.seconds
        self.by_stage.update(record.stage_seconds)
        self.implied += record.decided_at is not None
        self.attempts[record.attempt] += record.verdict is Verdict.UNKNOWN
        if record.reason and record.finished:
            self.reasons, self.example = self.reasons + 1, self.example or record
        return record

    def grouped(self, key: Callable[[Kind], Key]) -> Counter[Key]:
        """The number of records by any property of their kinds, in the order of the first ones."""
        counts = Counter[Key]()
        for kind, number in self.kinds.items():
            counts[key(kind)] += number
        return counts


@dataclass(frozen=True, repr=False)
class Certification:
    """The records of a set of samples, in the order of their indices.

    Args:
        records: in memory, or in their file (`CertificationFiles.open`), from where they are read in each pass over
            them. All accuracies and numbers are counted together, in one pass.
    """

    records: tuple[SampleRecord, ...] | Stored

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
    def indices(self) -> NDArray[np.int64]:
        """The indices of the samples, [N]."""
        if isinstance(self.records, tuple):
            return np.array([record.index for record in self.records], dtype=np.int64)
        return self.records.indices

    @property
    def finished(self) -> Certification:
        """The records of the samples that had their time."""
        if isinstance(self.records, tuple):
            return Certification(tuple(record for record in self.records if record.finished))
        stored = self.records.offsets >= 0
        return self if stored.all() else Certification(self.records.at(stored))

    def only(self, indices: NDArray[np.int64]) -> Certification:
        """The records of some samples."""
        positions = np.flatnonzero(np.isin(self.indices, indices))
        if len(positions) == len(self):
            return self
        if isinstance(self.records, tuple):
            return Certification(tuple(self.records[position] for position in positions))
        return Certification(self.records.at(positions))

    @cached_property
    def tally(self) -> Tally:
        """What is counted of the records."""
        return Tally.of(self.records)

    @property
    def counts(self) -> dict[Verdict, int]:
        """The number of samples with each verdict."""
        counts = self.tally.grouped(attrgetter("verdict"))
        return {verdict: counts[verdict] for verdict in Verdict}

    @property
    def stages(self) -> dict[str, dict[Verdict, int]]:
        """The number of samples that each stage decided, by verdict; open samples count for the last stage."""
        return self._by_stage(attrgetter("verdict"))

    @property
    def outcomes(self) -> dict[str, int]:
        """The number of samples with each of OUTCOMES: the verdicts, with "unknown" divided by its reason."""
        counts = self.tally.grouped(attrgetter("outcome"))
        return {outcome: counts[outcome] for outcome in (*OUTCOMES, *(counts.keys() - set(OUTCOMES)))}

    @property
    def outcomes_by_stage(self) -> dict[str, dict[str, int]]:
        """The same for each stage, like `stages`."""
        return self._by_stage(attrgetter("outcome"))

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The stages that failed, even on samples that later stages decided."""
        return self.tally.failures

    @property
    def natural_accuracy(self) -> float:
        """The share of samples that are right at the clean input."""
        return self._share(lambda kind: kind.right)

    @property
    def adversarial_accuracy(self) -> float:
        """The share of samples that are right, and that no attack falsified."""
        return self._share(lambda kind: kind.right and kind.verdict is not Verdict.FALSIFIED)

    @property
    def certified_accuracy(self) -> float:
        """The share of samples that are proved right over their whole region."""
        return self._share(lambda kind: kind.verdict is Verdict.CERTIFIED)

    @property
    def seconds(self) -> float:
        return self.tally.seconds

    @property
    def seconds_by_stage(self) -> dict[str, float]:
        """The seconds of each stage, in the order of the stages."""
        return dict(self.tally.by_stage)

    def by_class(self) -> dict[int, Certification]:
        """The certification of the samples of each class, by its label, ascending."""
        labels = sorted(self.tally.grouped(attrgetter("label")))
        return {label: Certification(tuple(r for r in self.records if r.label == label)) for label in labels}

    def summary(self) -> str:
        """A text of several lines: the accuracies, each outcome with its stages, the seconds, and the classes."""
        lines = [self._accuracies()]
        for outcome, count in self.outcomes.items():
            stages = {stage: counts[outcome] for stage, counts in self.outcomes_by_stage.items() if outcome in counts}
            if count:
                lines.append(f"  {outcome:<22} {count:>6}   {_listed(stages, '{}')}".rstrip())
        if len(self):
            lines.append(
                f"  {'seconds':<22} {self.seconds:>6.1f}   {_listed(self.seconds_by_stage, '{:.1f}')}".rstrip()
            )
            each = self.tally.grouped(lambda kind: (kind.label, kind.verdict is Verdict.CERTIFIED))
            labels = sorted({label for label, _ in each})
            certified = {label: each[label, True] / (each[label, True] + each[label, False]) for label in labels}
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
        table = pandas_module(", or use to_dicts()").json_normalize(self.to_dicts())
        return table if details or not len(table) else table.set_index("index")[[*COMPACT]]

    def _by_stage(self, key: Callable[[Kind], Key]) -> dict[str, dict[Key, int]]:
        """The number of records by stage and by another property of their kinds."""
        stages: dict[str, dict[Key, int]] = {}
        for (stage, group), number in self.tally.grouped(lambda kind: (kind.stage, key(kind))).items():
            stages.setdefault(stage, {})[group] = number
        return stages

    def _accuracies(self) -> str:
        """The number of samples and the accuracies, e.g. "100 samples: natural 97.00 %, ..."."""
        shares = {
            "natural": self.natural_accuracy,
            "adversarial": self.adversarial_accuracy,
            "certified": self.certified_accuracy,
        }
        samples = f"{len(self)} sample{'' if len(self) == 1 else 's'}"
        return f"{samples}: {', '.join(f'{name} {100 * share:.2f} %' for name, share in shares.items())}"

    def _share(self, chosen: Callable[[Kind], bool]) -> float:
        return self.tally.grouped(chosen)[True] / len(self) if len(self) else 0.0


def pandas_module(instead: str = "") -> Any:
    """pandas, which is not needed otherwise.

    Args:
        instead: what else the message may say to do.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ValueError(f"pandas is not there ({error}): pip install pandas{instead}") from None
    return pandas


def _listed(numbers: Mapping[str, float], form: str) -> str:
    """Numbers by name, e.g. "crown 3, interval 5"."""
    return ", ".join(f"{name} {form.format(number)}" for name, number in numbers.items())

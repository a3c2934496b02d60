"""The largest certified and the smallest falsified radius of each sample, and the file of the trials that found them.

    RadiusFiles(path).read().certified_accuracy(0.1)

A trial is the record of a sample at one radius. The regions are nested, so a sample is certified at each radius up to
its largest certified one, and falsified from its smallest falsified one on. Between the two nothing is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ctbench.results import jsonl
from ctbench.results.certification import SampleRecord
from ctbench.results.checking import check_seal, refuse, sealed
from ctbench.results.files import RecordFiles, differences
from ctbench.results.implications import check
from ctbench.results.verdicts import Verdict

EPS = "eps"  # of the line of a trial, besides the fields of the record
SAMPLES = "samples"  # of settings: the range of samples that were to be tried, [start, stop]


class Trial(NamedTuple):
    """The record of a sample at one radius."""

    eps: float
    record: SampleRecord


@dataclass(frozen=True, kw_only=True)
class SampleRadius:
    """What the trials of a sample say."""

    index: int  # the index of the sample in the data set
    label: int
    prediction: int  # at the clean input
    certified: float | None  # the largest certified radius; 0 if there is none; None if the sample is misclassified
    falsified: float | None  # the smallest falsified radius; 0 if it is misclassified; None if there is none
    trials: int
    seconds: float  # of all trials

    @property
    def right(self) -> bool:
        """Whether the network is right at the clean input."""
        return self.prediction == self.label

    @classmethod
    def of(cls, trials: list[Trial]) -> SampleRadius:
        """The radii of one sample, from its trials; at least one.

        Raises:
            ContradictionError: it is certified at a radius, and falsified at a smaller one.
        """
        by_eps: dict[float, dict[int, SampleRecord]] = {trial.eps: {0: trial.record} for trial in trials}
        check(by_eps)
        at = {verdict: [eps for eps, record in trials if record.verdict is verdict] for verdict in Verdict}
        last = trials[-1].record
        wrong = bool(at[Verdict.MISCLASSIFIED])
        return cls(
            index=last.index,
            label=last.label,
            prediction=last.prediction,
            certified=None if wrong else max(at[Verdict.CERTIFIED], default=0.0),
            falsified=0.0 if wrong else min(at[Verdict.FALSIFIED], default=None),
            trials=len(trials),
            seconds=sum(record.seconds for _, record in trials),
        )


@dataclass(frozen=True, repr=False)
class Radii:
    """The radii of samples, in the order of their indices."""

    samples: tuple[SampleRadius, ...]
    largest: float  # the largest radius that was tried
    tolerance: float  # the distance of two radii that were tried

    @classmethod
    def of(cls, trials: Iterable[Trial], largest: float, tolerance: float) -> Radii:
        """The radii that trials found, in any order."""
        by_index: dict[int, list[Trial]] = {}
        for trial in trials:
            by_index.setdefault(trial.record.index, []).append(trial)
        return cls(tuple(SampleRadius.of(by_index[index]) for index in sorted(by_index)), largest, tolerance)

    def __repr__(self) -> str:
        return f"<Radii of {len(self)} samples, up to {self.largest:g} in steps of {self.tolerance:g}>"

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[SampleRadius]:
        return iter(self.samples)

    def certified_accuracy(self, eps: float) -> float:
        """The share of samples that are certified at a radius; at 0, the natural accuracy.

        It is a lower bound between the radii that were tried.
        """
        certified = [sample.right if eps == 0 else (sample.certified or 0.0) >= eps for sample in self.samples]
        return sum(certified) / len(certified) if certified else 0.0

    def adversarial_accuracy(self, eps: float) -> float:
        """The share of samples that are right, and not falsified at a radius.

        It is an upper bound between the radii that were tried.
        """
        standing = [sample.right and (sample.falsified is None or sample.falsified > eps) for sample in self.samples]
        return sum(standing) / len(standing) if standing else 0.0

    @property
    def steps(self) -> list[float]:
        """0, and each radius at which the certified or the adversarial accuracy changes, ascending."""
        ends = {end for sample in self.samples for end in (sample.certified, sample.falsified) if end}
        return sorted({0.0, self.largest, *ends})


@dataclass(frozen=True)
class RadiusFiles(RecordFiles):
    """The files of a search for radii: its settings and its trials."""

    kind: ClassVar[str] = "a search for radii"

    def read(self) -> Radii:
        """The radii that all complete trials found.

        Raises:
            FileNotFoundError: there are no settings.
            ValueError: a line is not a trial or was edited, or trials contradict each other; says in which file.
        """
        settings, trials = self.read_settings(), self.trials()
        with jsonl.named(self.records):
            return Radii.of(trials, settings["largest"], settings["tolerance"])

    def trials(self) -> list[Trial]:
        """All complete trials, in the order in which they were made."""
        trials = []
        for number, content in enumerate(jsonl.read(self.records), start=1):
            with jsonl.named(f"{self.records}, line {number}"):
                trials.append(_trial(content))
        return trials

    def start(self, settings: dict[str, Any], *, resume: bool) -> list[Trial]:
        """Prepare the files for `append`; returns the existing trials.

        Raises:
            ValueError: there are trials and `resume` is off, or they were made under other settings.
        """
        if self._begin(settings):
            return []
        if not resume:
            raise ValueError(f"{self.records} exists already: resume it (--resume), or choose another place (--out)")
        before, now = self.read_settings(), json.loads(json.dumps(settings))
        ends = [before.pop(SAMPLES), now.pop(SAMPLES)]
        if different := differences(before, now):
            raise ValueError(
                f"{self.records} was made under other settings ({different}): choose another place (--out)"
            )
        joined = [min(start for start, _ in ends), max(stop for _, stop in ends)]
        jsonl.write_json(self.settings, sealed({**now, SAMPLES: joined}))
        jsonl.rewrite(self.records, jsonl.read(self.records))  # without a line that a kill has cut
        return self.trials()

    def append(self, trials: Iterable[Trial]) -> None:
        jsonl.append(self.records, (sealed({EPS: eps, **record.to_json()}) for eps, record in trials))

    def _check(self, settings: Mapping[str, Any]) -> None:
        super()._check(settings)
        for name in ("largest", "tolerance"):
            value = settings.get(name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
                raise ValueError(f"not the settings of {self.kind}: its {name} is {value!r}, expected a number > 0")


def _trial(content: dict[str, Any]) -> Trial:
    check_seal(content)
    eps = content.get(EPS)
    if not isinstance(eps, int | float) or isinstance(eps, bool) or not 0 < eps < float("inf"):
        refuse(f"its {EPS} is {eps!r}, expected a radius > 0")
    return Trial(
        float(content[EPS]), SampleRecord.from_json({key: each for key, each in content.items() if key != EPS})
    )

"""Studies: many trials of one recipe with other hyper-parameters, what was chosen, and how the choice did. No torch.

A study is a folder:

study.json           the settings, what was chosen and why, and the results on the test set (below)
study.md             the same to read
trials.jsonl         a record for each trial (below);  trials.csv  the same as a table
trials/0003/         the run folder of trial 3; certified/*.jsonl in it are records of validation images, not of tests
final/0003-seed-0/   the run folder of trial 3's recipe, trained again on the whole training set; certified/*.jsonl are
                     records of test images
hindsight.json       how all complete trials do on the test images, found after the end (below); hindsight/*.jsonl are
                     the records
journal.jsonl        how the study goes on, for Optuna
locks/, *.lock       locks of the processes that work here

study.json:

name, recipe         the name of the recipe whose fields vary, and the recipe
protocol             "held-out": trials are compared on images held out of the training set. "ctbench-test-data": on the
                     test images, so that the results on them are optimistic
compared_on          "validation" or "test": the same in one word
objective            "certified": the highest certified accuracy;  "pareto": the front of natural and certified accuracy
space                the values of each parameter: {"choices": [...]} or {"low", "high", "log", "whole"}. A parameter is
                     the path of a field, "method.ratio", or several with the same value, "method.ratio+warmup.ratio"
settings             all other settings, e.g. "validation" (the share that is held out), "seed", "pruner", "bound" (what
                     pruning looks at) and "looks" (after which epochs), "trial_stages", "stages", "timeout"
trials               how many trials there are to be
chosen               null until all trials have ended; then the numbers of the chosen trials
why                  the same in words
importance           null, or {"evaluator", "values": {parameter: share}}, or {"evaluator": null, "reason"}
results              one for each final run: {"trial", "seed", "folder", "samples", "natural_accuracy",
                     "adversarial_accuracy", "certified_accuracy"} on the test set, or {"trial", "seed", "folder",
                     "error"}
finished             whether all results are there

A record of trials.jsonl:

trial, folder        its number, and its run folder, relative to the study
state                "running", "complete", "pruned" or "failed"
protocol             that of the study
parameters           the value of each parameter
natural_accuracy, certified_accuracy   of the compared images, in [0, 1]; null unless the trial is complete
bounds               {epoch: the certified accuracy by the bound for pruning, after this epoch}
pruned_at            the epoch after which it was pruned, or null
error                why it failed, or ""
seconds              of training and certification

hindsight.json:

stages, timeout      those of the certifications
trials               one for each complete trial: {"trial", "samples", "natural_accuracy", "certified_accuracy"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from ctbench.results import jsonl
from ctbench.results.fronts import dominates
from ctbench.results.runs import RunFolder

IMPORTANCE = (  # what the values of "importance" in study.json are
    "The share of each parameter in what makes a trial one of the best in certified accuracy, by {evaluator}."
)
State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial of a study; the fields are those of trials.jsonl, which the module describes."""

    trial: int
    folder: str
    state: State
    protocol: str
    parameters: Mapping[str, Any]
    natural_accuracy: float | None = None
    certified_accuracy: float | None = None
    bounds: Mapping[str, float]
    pruned_at: int | None = None
    error: str = ""
    seconds: float = 0.0

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Raises ValueError if a field is missing or unknown."""
        names = {field.name for field in fields(cls)}
        if record.keys() != names:
            wrong = ", ".join(sorted(record.keys() ^ names))
            raise ValueError(f"not the record of a trial: {wrong} is missing or unknown; run ctbench tune again")
        return cls(**record)

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def row(self) -> dict[str, Any]:
        """The fields, with a column for each parameter and each bound."""
        content = self.to_json()
        parameters, bounds = content.pop("parameters"), content.pop("bounds")
        return {**content, **parameters, **{f"bound after epoch {epoch}": value for epoch, value in bounds.items()}}

    @property
    def ending(self) -> str:
        """How the trial ended, in words; "running" if it has not."""
        return f"pruned after epoch {self.pruned_at}" if self.pruned_at else self.error or self.state

    @property
    def accuracies(self) -> tuple[float, float]:
        """The natural and the certified accuracy of a complete trial."""
        assert self.natural_accuracy is not None, "only a complete trial has accuracies"
        assert self.certified_accuracy is not None, "only a complete trial has accuracies"
        return self.natural_accuracy, self.certified_accuracy


@dataclass(frozen=True)
class TestedTrial:
    """A trial on the test images; the fields are those of hindsight.json, which the module describes."""

    __test__ = False  # not a class of tests

    trial: int
    samples: int
    natural_accuracy: float
    certified_accuracy: float


@dataclass(frozen=True)
class Hindsight:
    """How the complete trials of a study do on the test images, to see what a choice by these would have given."""

    stages: str
    timeout: float
    trials: tuple[TestedTrial, ...]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Raises ValueError if it is not the content of hindsight.json."""
        try:
            return cls(content["stages"], content["timeout"], tuple(TestedTrial(**each) for each in content["trials"]))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"not what hindsight.json holds ({error}): delete it, and run ctbench tune again"
            ) from None

    def of_trial(self, number: int) -> TestedTrial:
        """The accuracies of a trial on the test images."""
        return next(each for each in self.trials if each.trial == number)

    @property
    def best(self) -> TestedTrial:
        """What a choice by certified accuracy on the test images takes, with the same rule for equal ones."""
        return max(self.trials, key=lambda each: (each.certified_accuracy, each.natural_accuracy, -each.trial))


@dataclass(frozen=True)
class Study:
    """A study in a folder: its trials, and the content of study.json.

    study = Study.read("studies/sabr")
    study.protocol, study.chosen, study.results
    """

    path: Path
    content: Mapping[str, Any]
    trials: tuple[TrialRecord, ...]
    hindsight: Hindsight | None = None

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a folder.

        Raises:
            FileNotFoundError: there is no study.
            ValueError: a file is damaged.
        """
        folder = StudyFolder(Path(path))
        if not folder.study.is_file():
            raise FileNotFoundError(f"{folder.path} is not the folder of a study: it has no {folder.study.name}")
        content = jsonl.read_json(folder.study)
        missing = [] if not isinstance(content, dict) else [name for name in ENTRIES if name not in content]
        if not isinstance(content, dict) or missing:
            raise ValueError(f"{folder.study} is not that of a study: it lacks {', '.join(missing) or 'all entries'}")
        trials = []
        for number, record in enumerate(jsonl.read(folder.trials), start=1):
            with jsonl.named(f"{folder.trials}, line {number}"):
                trials.append(TrialRecord.from_json(record))
        hindsight = Hindsight.of(jsonl.read_json(folder.hindsight)) if folder.hindsight.exists() else None
        complete = [trial.trial for trial in trials if trial.state == "complete"]
        if hindsight is not None and [each.trial for each in hindsight.trials] != complete:
            raise ValueError(
                f"{folder.hindsight} is not about the complete trials {', '.join(map(str, complete))}: delete it, and "
                f"run ctbench tune again"
            )
        return cls(folder.path, content, tuple(trials), hindsight)

    def __repr__(self) -> str:
        return f"<Study of {self.content['name']} in {self.path}: {len(self.trials)} trials, {self.protocol}>"

    @property
    def protocol(self) -> str:
        return str(self.content["protocol"])

    @property
    def objective(self) -> str:
        return str(self.content["objective"])

    @property
    def trials_by_state(self) -> str:
        """How many trials have each state, in words, e.g. "3 complete, 2 pruned"; "" if there are none."""
        states = [trial.state for trial in self.trials]
        return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))

    @property
    def finished(self) -> bool:
        return bool(self.content["finished"])

    @property
    def chosen(self) -> tuple[TrialRecord, ...]:
        """The chosen trials; none until all trials have ended."""
        by_number = {trial.trial: trial for trial in self.trials}
        return tuple(by_number[number] for number in self.content["chosen"] or ())

    @property
    def results(self) -> list[dict[str, Any]]:
        """The results of the final runs on the test set, or their errors."""
        return list(self.content["results"])

    @property
    def runs(self) -> list[RunFolder]:
        """The folders of the final runs."""
        return [RunFolder(self.path / result["folder"]) for result in self.results]


ENTRIES = (
    "name",
    "recipe",
    "protocol",
    "compared_on",
    "objective",
    "space",
    "settings",
    "trials",
    "chosen",
    "why",
    "importance",
    "results",
    "finished",
)


@dataclass(frozen=True)
class StudyFolder:
    """The files of a study."""

    path: Path

    @property
    def study(self) -> Path:
        return self.path / "study.json"

    @property
    def text(self) -> Path:
        return self.path / "study.md"

    @property
    def trials(self) -> Path:
        return self.path / "trials.jsonl"

    @property
    def table(self) -> Path:
        return self.path / "trials.csv"

    @property
    def hindsight(self) -> Path:
        return self.path / "hindsight.json"

    def hindsight_of(self, number: int) -> Path:
        """The records of a trial's certification on the test images."""
        return self.path / "hindsight" / f"{number:04d}.jsonl"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def lock(self) -> Path:
        return self.path / "study.lock"

    def lock_of(self, run: RunFolder, holder: str) -> Path:
        """The lock of a run: that of the process that has it in hand ("driver"), or of its worker ("worker")."""
        return self.path / "locks" / f"{run.path.parent.name}-{run.path.name}-{holder}.lock"

    def trial(self, number: int) -> RunFolder:
        """The run folder of a trial."""
        return RunFolder(self.path / "trials" / f"{number:04d}")

    def final(self, number: int, seed: int) -> RunFolder:
        """The run folder of a chosen trial's recipe, trained on the whole training set."""
        return RunFolder(self.path / "final" / f"{number:04d}-seed-{seed}")


def front(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The complete trials that no other one beats: at least as high in both accuracies, and higher in one."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return [trial for trial in complete if not any(dominates(o.accuracies, trial.accuracies) for o in complete)]


def values_in_words(values: Mapping[str, Any]) -> str:
    """The values of a parameter in study.json, in words: its choices, or its range."""
    if "choices" in values:
        return ", ".join(map(str, values["choices"]))
    kinds = [word for key, word in (("log", "logarithmic"), ("whole", "whole numbers")) if values.get(key)]
    return f"{values['low']:g} to {values['high']:g}" + (f" ({', '.join(kinds)})" if kinds else "")

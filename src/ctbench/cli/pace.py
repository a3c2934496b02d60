"""How far runs are, and how long they may still take, from the records of the run folders next to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from ctbench.cli.options import wide_console
from ctbench.cli.overview import rounded_duration
from ctbench.report import Grid
from ctbench.results import CertificationFiles, RunFolder, Verdict, jsonl
from ctbench.results.files import differences
from ctbench.results.runs import SAMPLES, effort, extends
from ctbench.training import Recipe
from ctbench.training.checkpoints import epochs_done
from ctbench.training.recipe import ABOUT

ALIKE = ("dataset", "network", "train_samples")  # what a training of a method takes its time from, above all


@dataclass(frozen=True)
class Plan:
    """A run that is to be trained and certified.

    Args:
        name: of the run.
        recipe, folder, certified: its recipe and its files.
        how: the stages and the time limit, as the settings of a certification have them.
        samples: the number of test images to certify; None for all.
    """

    name: str
    recipe: Recipe
    folder: RunFolder
    certified: CertificationFiles
    how: Mapping[str, Any]
    samples: int | None = None

    @cached_property
    def content(self) -> dict[str, Any]:
        """The recipe as its file has it."""
        return self.recipe.to_json()

    @cached_property
    def epochs(self) -> int:
        """The number of whole epochs so far."""
        if self.folder.weights.exists():
            return self.recipe.epochs
        return epochs_done(self.folder.state) if self.folder.state.exists() else 0

    @cached_property
    def begun(self) -> dict[str, Any]:
        """The settings of its certification; empty if it has not begun."""
        return self.certified.read_settings() if self.certified.settings.is_file() else {}

    @cached_property
    def done(self) -> int:
        """The number of samples whose records are kept: with more stages or time, unknown ones are tried again."""
        again = self.begun and effort(self.begun) != self.how
        records = jsonl.read(self.certified.records)
        return len({one["index"] for one in records if not (again and one["verdict"] == Verdict.UNKNOWN)})

    @property
    def wanted(self) -> int | None:
        """The number of samples to certify, if it is known before the data are loaded."""
        start, stop = self.begun.get(SAMPLES) or (0, 0)
        return max(stop - start, self.samples or 0) or None

    def check(self) -> None:
        """Raise ValueError if its certification has begun with stages or a time limit that these do not extend."""
        if self.begun and effort(self.begun) != self.how and not extends(self.begun, {**self.begun, **self.how}):
            raise ValueError(
                f"{self.certified.records} was made under other settings "
                f"({differences(effort(self.begun), self.how)}): choose another place (--out), or the same stages, or "
                f"more, and no less time"
            )

    @property
    def kind(self) -> str:
        """How far the run is, in a word."""
        if not self.folder.weights.exists():
            return "interrupted" if self.epochs else "new"
        if not self.done:
            return "trained"
        return "complete" if self.done == self.wanted else "partly certified"

    @property
    def state(self) -> str:
        """How far the run is, with numbers."""
        if self.kind == "interrupted":
            return f"interrupted at epoch {self.epochs} of {self.recipe.epochs}"
        return f"certified {self.done} of {self.wanted} samples" if self.done else self.kind


@dataclass(frozen=True)
class Measured:
    """What the records of a run say of its time."""

    folder: RunFolder
    recipe: Mapping[str, Any]

    def is_own(self, plan: Plan) -> bool:
        """Whether this is the run itself."""
        return self.folder.path.absolute() == plan.folder.path.absolute()

    def has_recipe(self, plan: Plan) -> bool:
        """Whether the recipes differ in the seed at most."""
        aside = {*ABOUT, "seed"}
        return all(self.recipe.get(key) == value for key, value in plan.content.items() if key not in aside)

    def is_alike(self, plan: Plan) -> bool:
        """Whether the runs have the same method, network and data."""
        method = self.recipe.get("method")
        named = isinstance(method, dict) and method.get("name") == plan.recipe.method.name
        return named and all(self.recipe.get(key) == plan.content[key] for key in ALIKE)

    @cached_property
    def epochs(self) -> list[float]:
        """The seconds of each epoch."""
        return [epoch["seconds"] for epoch in jsonl.read(self.folder.metrics) if "seconds" in epoch]

    def samples(self, plan: Plan) -> list[float]:
        """The seconds of each sample, if samples were certified at the radius of a run, by its stages."""
        files = self.folder.certification(plan.certified.records.stem)
        if not files.settings.is_file() or effort(files.read_settings()) != plan.how:
            return []
        return [record["seconds"] for record in jsonl.read(files.records) if record.get("decided_at") is None]

    def wanted(self, plan: Plan) -> int | None:
        """The number of samples of that certification."""
        files = self.folder.certification(plan.certified.records.stem)
        return files.wanted if files.settings.is_file() else None


@dataclass(frozen=True)
class Pace:
    """The times of all runs in a folder."""

    runs: tuple[Measured, ...]

    @classmethod
    def of(cls, out: Path) -> Pace:
        """Raises ValueError if a recipe is not JSON."""
        folders = [RunFolder(path) for path in sorted(out.glob("*/")) if RunFolder(path).recipe.is_file()]
        contents = [(folder, jsonl.read_json(folder.recipe)) for folder in folders]
        return cls(tuple(Measured(folder, content) for folder, content in contents if isinstance(content, dict)))

    def nearest(self, plan: Plan, seconds: Callable[[Measured], list[float]]) -> float | None:
        """The mean over the run itself; else over those of its recipe; else over those alike; None if none has any."""
        for near in (Measured.is_own, Measured.has_recipe, Measured.is_alike):
            if times := [time for run in self.runs if near(run, plan) for time in seconds(run)]:
                return fmean(times)
        return None

    def training(self, plan: Plan) -> float | None:
        """The seconds that the training of a run may still take."""
        missing = plan.recipe.epochs - plan.epochs
        each = self.nearest(plan, lambda run: run.epochs) if missing else 0.0
        return None if each is None else missing * each

    def certification(self, plan: Plan) -> float | None:
        """The seconds that its certification may still take."""
        if plan.kind == "complete":
            return 0.0
        wanted = plan.wanted or max((run.wanted(plan) or 0 for run in self.runs if run.is_alike(plan)), default=0)
        each = self.nearest(plan, lambda run: run.samples(plan))
        return None if each is None or not wanted else max(0, wanted - plan.done) * each

    def left(self, plan: Plan) -> str:
        """The time that a run may still take, in words."""
        training, certification = self.training(plan), self.certification(plan)
        if training is None:
            return "unknown until one epoch has run"
        if certification is None:
            trained = f"{rounded_duration(training)} of training, then " if training else ""
            return f"{trained}unknown until one sample is certified"
        return rounded_duration(training + certification)


def show_plans(plans: Sequence[Plan], pace: Pace, *, workers: int) -> None:
    """Print how far each run is, and the time left."""
    lines = [[plan.name, plan.state, pace.left(plan)] for plan in plans]
    wide_console().print(Grid(headings=["run", "state", "time left, about"], rows=lines, texts=2))
    print(*summary(plans, pace, workers), sep="\n")


def summary(plans: Sequence[Plan], pace: Pace, workers: int) -> Iterator[str]:
    """How many runs are how far, and the time left for all of them."""
    kinds = Counter(plan.kind for plan in plans)
    yield f"{_runs(len(plans))}: {', '.join(f'{number} {kind}' for kind, number in kinds.items())}"
    parts = [(pace.training(plan), pace.certification(plan)) for plan in plans]
    times = [training + later for training, later in parts if training is not None and later is not None]
    if not times:
        yield "the time left is unknown until one epoch has run and one sample is certified"
        return
    at_once = (
        f", about {rounded_duration(max(*times, sum(times) / workers))} with {workers} at a time" if workers > 1 else ""
    )
    unknown = len(parts) - len(times)
    besides = f", besides {_runs(unknown)} whose time is unknown" if unknown else ""
    yield f"about {rounded_duration(sum(times))} of work left{at_once}{besides}"


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"

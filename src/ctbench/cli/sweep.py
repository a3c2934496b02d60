"""`ctbench sweep`: train and certify many recipes, several at a time, and compare them in a table."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import product

from ctbench.cli import compare, failures, show
from ctbench.cli.options import strength
from ctbench.cli.overview import Overview, Step
from ctbench.recipes import recipes, unknown
from ctbench.results import CertificationFiles, RunFolder
from ctbench.results.runs import region_name
from ctbench.training import Recipe
from ctbench.verify import stages_by_name

LOOK = 0.5  # seconds between two looks at the files of the runs
PASSED_ON = ("data", "device", "model", "data_from")  # options of training and certification


@dataclass(frozen=True)
class Trial:
    """A run of a sweep: a recipe or its file, the changes of its fields, "path=value", and those of them that vary."""

    recipe: str
    changes: tuple[str, ...] = ()
    varied: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its run folder, e.g. "digits_sabr,method.ratio=0.4"."""
        recipe = self._start.name if self.recipe.endswith(show.FILE) else self.recipe
        return ",".join((recipe, *self.varied)).replace("/", "_")

    def changed(self) -> Recipe:
        """Raises ValueError: a change is not valid."""
        return self._start.with_changes([*self.changes, *self.varied])

    @cached_property
    def _start(self) -> Recipe:
        return show.start(self.recipe)


def run(args: argparse.Namespace) -> None:
    trials = [
        Trial(name, tuple(args.changes), varied)
        for name in chosen(args.recipes)
        for varied in combinations(args.varied)
    ]
    check_different(trials)  # raises before anything is trained, like the next line
    stages_by_name(args.stages)
    shared = [
        text
        for option in PASSED_ON
        if (value := getattr(args, option)) is not None
        for text in (f"--{option.replace('_', '-')}", str(value))
    ]
    certifying = ["samples", "timeout", "attack_steps", "attack_restarts"]
    options = ["--stages", args.stages]
    for option in certifying:
        if getattr(args, option):
            options += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
    imports = [f"--import={module}" for module in args.modules]
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // args.jobs))}
    overview = Overview.of(len(trials), quiet=args.quiet)

    def work(trial: Trial) -> str:
        """Train and certify in separate processes; returns the error message, or ""."""
        folder = RunFolder(args.out / trial.name)
        files = certification(trial, folder, strength(args))
        changes = [f"--set={change}" for change in (*trial.changes, *trial.varied)]
        arguments = {
            "train": [trial.recipe, *changes, "--out", str(folder.path)],
            "certify": [str(folder.path), *options, "--out", str(files.records)],
        }
        for step in steps(trial, folder, files):
            overview.begin(step)
            call = [sys.executable, "-m", "ctbench", *imports, step.title, *arguments[step.title], *shared]
            done = subprocess.run(
                [*call, "--resume", "--quiet"], env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                overview.end(trial.name, done.stderr.strip())
                return done.stderr.strip()
        overview.end(trial.name)
        return ""

    with overview.shown(), ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(work, trial) for trial in trials]
        while wait(futures, timeout=LOOK).not_done:
            overview.look()
    errors = {trial.name: future.result() for trial, future in zip(trials, futures, strict=True)}
    failed = compare.show([args.out / name for name, error in errors.items() if not error], as_markdown=args.markdown)
    failures.tell(failed, strict=args.strict and not any(errors.values()))
    if any(errors.values()):
        messages = "; ".join(f"{name}: {error}" for name, error in errors.items() if error)
        raise ValueError(f"not all of the {len(trials)} recipes could be trained and certified. {messages}")


def check_different(trials: Sequence[Trial]) -> None:
    """Raise ValueError if a change is not valid, or if trials would have one folder, or differ only in their names."""
    by_folder: dict[str, Trial] = {}
    by_values: dict[tuple[str, str], Trial] = {}
    for trial in trials:
        other = by_folder.setdefault(trial.name, trial)
        if other is not trial:
            raise ValueError(
                f"{other.recipe} and {trial.recipe} would both be trained in the folder {trial.name}: sweep one of "
                f"them, or give a recipe another name"
            )
        other = by_values.setdefault((trial.recipe, trial.changed().hash), trial)
        if other is not trial:
            raise ValueError(f"{other.name} and {trial.name} are the same recipe: leave one of these values out")


def certification(trial: Trial, folder: RunFolder, strength: str) -> CertificationFiles:
    """The files of its certification; attacks of another strength have their own."""
    threat = trial.changed().threat
    return folder.certification("-".join(filter(None, (region_name(threat.name, threat.eps), strength))))


def steps(trial: Trial, folder: RunFolder, files: CertificationFiles) -> Iterator[Step]:
    """The two steps of a trial: training, whose records are epochs, and certification, whose records are samples."""
    yield Step(trial.name, "train", "epoch", folder.metrics, trial.changed().epochs)
    yield Step(trial.name, "certify", "sample", files.records, None)


def combinations(options: Sequence[str]) -> list[tuple[str, ...]]:
    """All combinations of the values of some fields, each as changes: "a=1,2" and "b=3" are (a=1, b=3), (a=2, b=3).

    Raises:
        ValueError: an option has not the form PATH=VALUE,VALUE,..., or names a field or a value twice.
    """
    fields: dict[str, list[str]] = {}
    for option in options:
        path, equals, text = option.partition("=")
        values = split(text)
        if not equals or not path or not all(values):
            raise ValueError(f"--vary {option!r}: write PATH=VALUE,VALUE,..., e.g. method.ratio=0.1,0.4")
        if path in fields or len(set(values)) < len(values):
            raise ValueError(f"--vary {option!r}: name each field once, and each of its values once")
        fields[path] = values
    return list(product(*([f"{path}={value}" for value in values] for path, values in fields.items())))


def split(text: str) -> list[str]:
    """The parts between commas that are not in brackets: "[1,2],3" has two."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def chosen(patterns: list[str]) -> list[str]:
    """The recipes that match some names or patterns, and files of recipes, each once, in the order of the patterns.

    Raises:
        ValueError: a pattern matches no recipe.
    """
    names = recipes()
    matches: dict[str, None] = {}
    for pattern in patterns:
        of_names = [name for name in names if fnmatchcase(name, pattern)]
        matching = [pattern] if pattern.endswith(show.FILE) else of_names
        if not matching:
            raise ValueError(unknown(pattern))
        matches |= dict.fromkeys(matching)
    return list(matches)

"""`ctbench sweep`: train and certify many recipes, several at a time, and compare them in a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, partial
from io import StringIO
from itertools import product
from pathlib import Path

from ctbench import report
from ctbench.cli import compare, failures, show
from ctbench.cli.engines import check_paths, engine
from ctbench.cli.options import attack_strength, check_changes, check_out_folder, strength
from ctbench.cli.overview import Overview, Step
from ctbench.cli.pace import Pace, Plan, show_plans
from ctbench.engine import Engine, Local, Task, TasksFailedError
from ctbench.recipes import recipes, unknown
from ctbench.results import CertificationFiles, RunFolder
from ctbench.results.runs import effort, region_name
from ctbench.training import Recipe
from ctbench.training.runs import check_folder
from ctbench.tuning.space import split
from ctbench.verify import stages_by_name, timeout_of, with_attack

PASSED_ON = ("data", "device", "model", "data_from")  # options of training and certification
OF_CERTIFICATION = ("stages", "samples", "timeout", "attack_steps", "attack_restarts")


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
        for varied in combinations(fields(args))
    ]
    check(trials, args)  # raises before anything is trained, like the next lines
    planned = plans(trials, args)
    for plan in planned:
        plan.check()
    place = engine(args.on, args.device, workers=args.jobs, apart=True)
    for plan in planned:
        check_paths(place, plan.recipe.dataset, args.data)
    if args.dry_run:
        show_plans(planned, Pace.of(args.out), workers=place.size() if isinstance(place, Local) else 1)
        return
    errors = work_off(trials, args, place)
    rows = report.rows([args.out / name for name, error in errors.items() if not error])
    if rows:
        compare.show_rows(rows, form="markdown" if args.markdown else "")
    if len({plan.recipe.seed for plan in planned}) > 1 and rows:
        show_means(rows, planned, args)
    failures.tell(compare.failed_stages(rows), strict=args.strict and not any(errors.values()))
    if any(errors.values()):
        messages = "; ".join(f"{name}: {error}" for name, error in errors.items() if error)
        raise ValueError(f"not all of the {len(trials)} runs could be trained and certified. {messages}")


def show_means(rows: Sequence[report.Row], planned: Sequence[Plan], args: argparse.Namespace) -> None:
    """Print the means over seeds; other certifications in the folders of the runs take no part."""
    threats = {plan.name: plan.recipe.threat for plan in planned}
    own = [
        row
        for row in rows
        if (row.norm, row.eps) == (threats[row.run].name, threats[row.run].eps) and row.attack == strength(args)
    ]
    compare.show_groups(report.grouped(own, report.separating(own)), [], form="markdown" if args.markdown else "")


def work_off(trials: Sequence[Trial], args: argparse.Namespace, place: Engine) -> dict[str, str]:
    """Train and certify the trials; returns the error of each, or "", by their names."""
    by_name, ended = {trial.name: trial for trial in trials}, dict[str, str]()
    overview = Overview.of(len(trials), quiet=args.quiet)

    def end(name: str, error: str) -> None:
        ended[name] = error
        overview.end(name, error)

    tasks = [Task(trial.name, work, (commands(trial, args),), on_failure=partial(end, trial.name)) for trial in trials]
    with overview.shown(), closing(place.run(tasks, count=len(tasks))) as results:
        try:
            for name, (begun, error) in results:
                if begun is None:
                    end(name, error)
                else:
                    overview.begin(list(steps(by_name[name], *files(by_name[name], args)))[begun])
        except TasksFailedError:
            pass  # `end` has heard of each
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; finished results are kept, and the same command continues") from None
    return {trial.name: ended[trial.name] for trial in trials}


def commands(trial: Trial, args: argparse.Namespace) -> list[list[str]]:
    """The commands that train and certify a trial, one after the other. Workers may have another working folder."""
    folder, certified = files(trial, args)
    changes = [f"--set={change}" for change in (*trial.changes, *trial.varied)]
    common = [f"--import={found_anywhere(module)}" for module in args.modules]
    common += [*_options(PASSED_ON, args), "--resume", "--quiet"]
    train = ["train", _recipe(trial.recipe), *changes, "--out", _absolute(folder.path)]
    certify = ["certify", _absolute(folder.path), *_options(OF_CERTIFICATION, args)]
    return [[*train, *common], [*certify, "--out", _absolute(certified.records), *common]]


def _options(names: Sequence[str], args: argparse.Namespace) -> list[str]:
    """The options with these names, if they have values, as a command takes them."""
    texts = list[str]()
    for name in names:
        if (value := getattr(args, name)) is not None:
            text = _absolute(value) if isinstance(value, Path) else found_anywhere(str(value))
            texts += [f"--{name.replace('_', '-')}", text]
    return texts


def found_anywhere(text: str) -> str:
    """MODULE, FILE.py, MODULE:FUNCTION or FILE.py:FUNCTION, with the absolute path of the file; else the same text."""
    return _absolute(Path(text)) if text.endswith(".py") or ".py:" in text else text


def _recipe(name: str) -> str:
    """The name of a recipe, or the absolute path of its file."""
    return _absolute(Path(name)) if name.endswith(show.FILE) else name


def _absolute(path: Path) -> str:
    return str(path.absolute())


def work(commands: Sequence[Sequence[str]]) -> Iterator[tuple[int | None, str]]:
    """The task of a worker: run commands one after the other.

    Yields the place of each command when it begins; and at the end None, and the error message or "".
    """
    from ctbench.cli.main import main

    for place, arguments in enumerate(commands):
        yield place, ""
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as told:
            try:
                status: object = main(arguments)
            except SystemExit as refusal:  # of an argument, e.g. a device that only the driver has
                status = refusal.code
            except Exception as error:  # the driver shows it now, not after all other runs
                status = f"{type(error).__name__}: {error}"
                print(status, file=sys.stderr)
        if status:
            yield None, told.getvalue().strip()
            return
    yield None, ""


def files(trial: Trial, args: argparse.Namespace) -> tuple[RunFolder, CertificationFiles]:
    """The run folder of a trial, and the files of its certification."""
    folder = RunFolder(args.out / trial.name)
    return folder, certification(trial, folder, strength(args))


def plans(trials: Sequence[Trial], args: argparse.Namespace) -> list[Plan]:
    """The trials as `pace` takes them. Raises ValueError if a stage is unknown."""
    stages = with_attack(stages_by_name(args.stages), **attack_strength(args))
    how = effort({"stages": [repr(stage) for stage in stages], "timeout": args.timeout or timeout_of(args.stages)})
    return [Plan(trial.name, trial.changed(), *files(trial, args), how, args.samples) for trial in trials]


def check(trials: Sequence[Trial], args: argparse.Namespace) -> None:
    """Raise an error if a trial cannot be trained.

    Raises:
        ValueError: a change is not valid, trials are the same run, or a folder holds another run.
        OSError: the folders cannot be made.
    """
    check_out_folder(args.out)
    check_different(trials)
    if not (args.model or args.data_from):  # whose digests are part of the recipe
        for trial in trials:
            check_folder(RunFolder(args.out / trial.name), trial.changed(), resume=True)


def check_different(trials: Sequence[Trial]) -> None:
    """Raise ValueError if a change is not valid, or if trials would have one folder, or differ only in their names."""
    by_folder: dict[str, Trial] = {}
    by_hash: dict[str, Trial] = {}
    for trial in trials:
        other = by_folder.setdefault(trial.name, trial)
        if other is not trial:
            raise ValueError(
                f"{other.recipe} and {trial.recipe} would both be trained in the folder {trial.name}: sweep one of "
                f"them, or give a recipe another name"
            )
        other = by_hash.setdefault(trial.changed().hash, trial)
        if other is not trial:
            raise ValueError(
                f"{other.name} and {trial.name} are the same run: leave one of these values or recipes out"
            )


def certification(trial: Trial, folder: RunFolder, strength: str) -> CertificationFiles:
    """The files of its certification; attacks of another strength have their own."""
    threat = trial.changed().threat
    return folder.certification("-".join(filter(None, (region_name(threat.name, threat.eps), strength))))


def steps(trial: Trial, folder: RunFolder, certified: CertificationFiles) -> Iterator[Step]:
    """The two steps of a trial: training, whose records are epochs, and certification, whose records are samples."""
    yield Step(trial.name, "train", "epoch", folder.metrics, trial.changed().epochs)
    yield Step(trial.name, "certify", "sample", certified.records, None)


def fields(args: argparse.Namespace) -> list[str]:
    """The fields that vary, each with its values: "path=value,value,...".

    Raises:
        ValueError: a field is named twice.
    """
    seeds = [f"seed={','.join(map(str, args.seeds))}"] if args.seeds else []
    check_changes(args.changes)
    fixed = [change.partition("=")[0] for change in args.changes]
    paths = [*fixed, *(option.partition("=")[0] for option in [*args.grid, *seeds])]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"{path} is named twice by --set, --grid or --seeds: name each field once")
    return [*args.grid, *seeds]


def combinations(options: Sequence[str]) -> list[tuple[str, ...]]:
    """All combinations of the values of some fields, each as changes: "a=1,2" and "b=3" are (a=1, b=3), (a=2, b=3).

    Raises:
        ValueError: an option has not the form PATH=VALUE,VALUE,..., or names a value twice.
    """
    choices = list[list[str]]()
    for option in options:
        path, equals, text = option.partition("=")
        values = split(text)
        if not equals or not path or not all(values):
            raise ValueError(f"--grid {option!r}: write PATH=VALUE,VALUE,..., e.g. method.ratio=0.1,0.4")
        if twice := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"--grid {option!r}: {twice[0]} is there twice, name each value once")
        choices.append([f"{path}={value}" for value in values])
    return list(product(*choices))


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

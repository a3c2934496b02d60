"""`ctbench sweep`: train and certify many recipes, several at a time, and compare them in a table."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path

from ctbench.cli import failures
from ctbench.cli.compare import show
from ctbench.cli.engines import engine
from ctbench.cli.overview import Overview, Step
from ctbench.engine import Task, TasksFailedError
from ctbench.recipes import recipes, unknown
from ctbench.results import RunFolder
from ctbench.results.runs import region_name
from ctbench.verify import stages_by_name

LOOK = 0.5  # seconds between two looks at the files of the runs


def run(args: argparse.Namespace) -> None:
    names = chosen(args.recipes)
    stages_by_name(args.stages)  # raises before anything is trained
    place = engine(args.on, args.device, workers=args.jobs, apart=True)
    overview, errors = Overview.of(len(names), quiet=args.quiet), dict[str, str]()
    tasks = [Task(name, work, (commands(name, args),)) for name in names]
    with overview.shown(), _looking(overview), closing(place.run(tasks, count=len(tasks))) as results:
        try:
            for name, (begun, error) in results:
                if begun is not None:
                    overview.begin(list(steps(name, RunFolder(args.out / name)))[begun])
                else:
                    errors[name] = error
                    overview.end(name, error)
        except TasksFailedError as failed:
            for name, error in failed.failures.items():
                errors[name] = error
                overview.end(name, error)
    failed_stages = show([args.out / name for name in names if not errors[name]], as_markdown=args.markdown)
    failures.tell(failed_stages, strict=args.strict and not any(errors.values()))
    if any(errors.values()):
        messages = "; ".join(f"{name}: {error}" for name, error in errors.items() if error)
        raise ValueError(f"not all of the {len(names)} recipes could be trained and certified. {messages}")


def commands(name: str, args: argparse.Namespace) -> list[list[str]]:
    """The commands that train and certify a recipe, one after the other. Workers may have another working folder."""
    folder = str((args.out / name).absolute())
    modules = [str(Path(module).absolute()) if module.endswith(".py") else module for module in args.modules]
    common = [f"--import={module}" for module in modules]
    common += ["--resume", "--quiet", "--device", args.device]
    common += ["--data", str(args.data.absolute())] if args.data else []
    certify = ["certify", folder, "--stages", args.stages]
    certify += ["--samples", str(args.samples)] if args.samples else []
    certify += ["--timeout", str(args.timeout)] if args.timeout else []
    return [["train", name, "--out", folder, *common], [*certify, *common]]


def work(commands: Sequence[Sequence[str]]) -> Iterator[tuple[int | None, str]]:
    """The task of a worker: run commands one after the other.

    Yields the place of each command when it begins; and at the end None, and the error message or "".
    """
    from ctbench.cli.main import main

    for place, arguments in enumerate(commands):
        yield place, ""
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as told:
            status = main(arguments)
        if status:
            yield None, told.getvalue().strip()
            return
    yield None, ""


@contextmanager
def _looking(overview: Overview) -> Iterator[None]:
    """A context in which the files of the runs are looked at from time to time."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK):
            overview.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def steps(name: str, folder: RunFolder) -> Iterator[Step]:
    """The two steps of a recipe: training, whose records are epochs, and certification, whose records are samples."""
    recipe = recipes()[name]()
    yield Step(name, "train", "epoch", folder.metrics, recipe.epochs)
    certification = folder.certification(region_name(recipe.threat.name, recipe.threat.eps))
    yield Step(name, "certify", "sample", certification.records, None)


def chosen(patterns: list[str]) -> list[str]:
    """The recipes that match some names or patterns, each once, in the order of the patterns.

    Raises:
        ValueError: a pattern matches no recipe.
    """
    names = recipes()
    matches: dict[str, None] = {}
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise ValueError(unknown(pattern))
        matches |= dict.fromkeys(matching)
    return list(matches)

"""`ctbench sweep`: train and certify many recipes, several at a time, and compare them in a table."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from fnmatch import fnmatchcase

from ctbench.cli import failures
from ctbench.cli.compare import show
from ctbench.cli.overview import Overview, Step
from ctbench.recipes import recipes, unknown
from ctbench.results import RunFolder
from ctbench.results.runs import region_name
from ctbench.verify import stages_by_name

LOOK = 0.5  # seconds between two looks at the files of the runs


def run(args: argparse.Namespace) -> None:
    names = chosen(args.recipes)
    data = ["--data", str(args.data)] if args.data else []
    stages_by_name(args.stages)  # raises before anything is trained
    options = ["--stages", args.stages]
    imports = [f"--import={module}" for module in args.modules]
    options += ["--samples", str(args.samples)] if args.samples else []
    options += ["--timeout", str(args.timeout)] if args.timeout else []
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // args.jobs))}
    overview = Overview.of(len(names), quiet=args.quiet)

    def work(name: str) -> str:
        """Train and certify in separate processes; returns the error message, or ""."""
        folder = RunFolder(args.out / name)
        for step in steps(name, folder):
            overview.begin(step)
            arguments = [name, "--out", str(folder.path)] if step.title == "train" else [str(folder.path), *options]
            call = [sys.executable, "-m", "ctbench", *imports, step.title, *arguments, *data, "--resume", "--quiet"]
            done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                overview.end(name, done.stderr.strip())
                return done.stderr.strip()
        overview.end(name)
        return ""

    with overview.shown(), ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(work, name) for name in names]
        while wait(futures, timeout=LOOK).not_done:
            overview.look()
    errors = {name: future.result() for name, future in zip(names, futures, strict=True)}
    failed = show([args.out / name for name in names if not errors[name]], as_markdown=args.markdown)
    failures.tell(failed, strict=args.strict and not any(errors.values()))
    if any(errors.values()):
        messages = "; ".join(f"{name}: {error}" for name, error in errors.items() if error)
        raise ValueError(f"not all of the {len(names)} recipes could be trained and certified. {messages}")


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

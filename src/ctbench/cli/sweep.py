"""`ctbench sweep`: train and certify many recipes, several at a time, and compare them in a table."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console

from ctbench.cli import failures
from ctbench.cli.compare import show
from ctbench.cli.options import Commands, add_data, add_stages, add_timeout, positive
from ctbench.recipes import recipes, unknown
from ctbench.verify import stages_by_name


def add_to(commands: Commands) -> None:
    command = commands.add_parser("sweep", help="train and certify many recipes, and compare them")
    command.add_argument("recipes", nargs="+", metavar="RECIPE", help="names, or patterns such as 'mnist_small_*'")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for the run folders")
    command.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="recipes at a time; they share the cores"
    )
    command.add_argument("--samples", type=positive, metavar="N", help="certify only the first N test images")
    add_stages(command)
    add_timeout(command)
    command.add_argument("--markdown", action="store_true", help="print a Markdown table")
    failures.add_strict(command)
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_data(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    names = chosen(args.recipes)
    data = ["--data", str(args.data)] if args.data else []
    stages_by_name(args.stages)  # raises before anything is trained
    options = ["--stages", args.stages]
    imports = [f"--import={module}" for module in args.modules]
    options += ["--samples", str(args.samples)] if args.samples else []
    options += ["--timeout", str(args.timeout)] if args.timeout else []
    console = Console(stderr=True, quiet=args.quiet)
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // args.jobs))}

    def work(name: str) -> str:
        """Train and certify in separate processes; returns the error message, or ""."""
        folder = str(args.out / name)
        for command in (["train", name, "--out", folder], ["certify", folder, *options]):
            console.print(f"{name}: {command[0]}", highlight=False)
            call = [sys.executable, "-m", "ctbench", *imports, *command, *data, "--resume", "--quiet"]
            done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                return done.stderr.strip()
        return ""

    with ThreadPoolExecutor(args.jobs) as pool:
        errors = dict(zip(names, pool.map(work, names), strict=True))
    failed = show([args.out / name for name in names if not errors[name]], as_markdown=args.markdown)
    failures.tell(failed, strict=args.strict and not any(errors.values()))
    if any(errors.values()):
        messages = "; ".join(f"{name}: {error}" for name, error in errors.items() if error)
        raise ValueError(f"not all of the {len(names)} recipes could be trained and certified. {messages}")


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

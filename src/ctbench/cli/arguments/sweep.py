"""The arguments of `ctbench sweep`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ctbench.cli.options import (
    Commands,
    add_attack_strength,
    add_data,
    add_engine,
    add_own,
    add_set,
    add_stages,
    add_strict,
    add_timeout,
    positive,
)


def add_to(commands: Commands) -> None:
    command = commands.add_parser("sweep", help="train and certify many recipes, and compare them")
    command.add_argument(
        "recipes", nargs="+", metavar="RECIPE", help="names, patterns such as 'mnist_small_*', or files recipe.json"
    )
    add_set(command)
    command.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="PATH=VALUE,VALUE,...",
        help="train each recipe with each of these values of a field, e.g. method.ratio=0.1,0.4; if repeated, with "
        "each combination",
    )
    command.add_argument(
        "--seeds",
        type=seeds,
        default=[],
        metavar="N",
        help="train each run with the seeds 0 to N - 1, or with these seeds, e.g. 3,5,7; the means over the seeds are "
        "shown at the end",
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for the run folders")
    command.add_argument(
        "--jobs", type=positive, metavar="N", help="recipes at a time (short for --on local:N); they share the cores"
    )
    command.add_argument("--samples", type=positive, metavar="N", help="certify only the first N test images")
    add_stages(command)
    add_attack_strength(command)
    add_timeout(command)
    command.add_argument(
        "--dry-run", action="store_true", help="train nothing; list the runs, how far each is, and the time left"
    )
    command.add_argument("--markdown", action="store_true", help="print a Markdown table")
    add_strict(command)
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_own(command)
    add_data(command)
    add_engine(command)


def seeds(text: str) -> list[int]:
    """The seeds 0 to N - 1 of a number N, or the seeds of a list."""
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts) or text == "0":
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seeds, 1 or more, or a list such as 3,5,7")
    numbers = list(map(int, parts))
    if len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"{text!r} has a seed twice: name each seed once")
    return numbers if len(numbers) > 1 else list(range(numbers[0]))

"""The arguments of `ctbench sweep`."""

from __future__ import annotations

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
        "--vary",
        dest="varied",
        action="append",
        default=[],
        metavar="PATH=VALUE,VALUE,...",
        help="train each recipe with each of these values of a field, e.g. method.ratio=0.1,0.4; if repeated, with "
        "each combination",
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for the run folders")
    command.add_argument(
        "--jobs", type=positive, metavar="N", help="recipes at a time (short for --on local:N); they share the cores"
    )
    command.add_argument("--samples", type=positive, metavar="N", help="certify only the first N test images")
    add_stages(command)
    add_attack_strength(command)
    add_timeout(command)
    command.add_argument("--markdown", action="store_true", help="print a Markdown table")
    add_strict(command)
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_own(command)
    add_data(command)
    add_engine(command)

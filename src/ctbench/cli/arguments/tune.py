"""The arguments of `ctbench tune`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.options import (
    Commands,
    add_changes,
    add_data,
    add_engine,
    add_stages,
    add_timeout,
    positive,
    seconds,
    whole,
)


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "tune", help="choose values of a recipe's fields by images that are held out, and test the choice once"
    )
    add_changes(command)
    command.add_argument(
        "--space",
        nargs="+",
        action="extend",
        required=True,
        metavar="SPACE",
        help="the values to try: PATH=A,B,C or PATH=LOW:HIGH or PATH=LOW:HIGH:log, e.g. method.ratio=0.1:0.9; a JSON "
        "file of these; or a name (ctbench list spaces)",
    )
    command.add_argument("--trials", type=positive, required=True, metavar="N", help="how many values to try, at most")
    command.add_argument("--total", type=seconds, metavar="S", help="seconds after which no trial begins")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of the study")
    command.add_argument(
        "--objective",
        choices=("certified", "pareto"),
        default="certified",
        help="certified: the highest certified accuracy (the default); pareto: the front of natural and certified "
        "accuracy",
    )
    command.add_argument(
        "--protocol",
        choices=("held-out", "ctbench-test-data"),
        default="held-out",
        help="held-out: compare trials on images held out of the training set (the default); ctbench-test-data: on the "
        "test images, so that the results are optimistic, which all files say",
    )
    command.add_argument(
        "--validation",
        type=float,
        metavar="SHARE",
        help="the share of the training set that is held out (default: validation of the recipe, or 0.1)",
    )
    command.add_argument(
        "--pruner",
        choices=("median", "hyperband", "none"),
        help="how bad trials are found early (default: median; with --objective pareto none, the only choice there)",
    )
    command.add_argument(
        "--prune-after",
        type=positive,
        default=5,
        metavar="N",
        help="complete trials that the median pruner waits for (default: 5)",
    )
    command.add_argument(
        "--bound", default="crown-ibp", metavar="NAMES", help="stages that pruning looks at (default: crown-ibp)"
    )
    command.add_argument(
        "--trial-stages", default="fast", metavar="NAMES", help="stages that compare trials (default: fast)"
    )
    command.add_argument(
        "--seeds", type=positive, default=1, metavar="K", help="final runs of each chosen recipe (default: 1)"
    )
    command.add_argument(
        "--search-seed", type=whole, default=0, metavar="N", help="the seed of the search and of what is held out"
    )
    command.add_argument(
        "--hindsight",
        action="store_true",
        help="at the end, also certify all trials on the test images, to see what a choice by these would have given",
    )
    command.add_argument("--samples", type=positive, metavar="N", help="certify only the first N test images")
    add_stages(command)
    add_timeout(command)
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_data(command)
    add_engine(command)

"""The arguments of `ctbench reproduce`."""

from __future__ import annotations

import math
from pathlib import Path

from ctbench.cli.options import Commands, add_data, add_engine, positive, seconds


def add_to(commands: Commands) -> None:
    command = commands.add_parser("reproduce", help="run the experiment of a paper and draw its figure")
    command.add_argument("paper", metavar="PAPER", help="a paper, e.g. robust-accuracy (ctbench list figures)")
    command.add_argument(
        "figures",
        nargs="*",
        default=[],
        metavar="FIGURE",
        help="the numbers of figures, e.g. 3a or table-2; without numbers, list all figures",
    )
    command.add_argument(
        "--scale",
        choices=["tiny", "small", "paper"],
        default="tiny",
        help="tiny (the default): seconds to minutes, as a test; small, of trained networks: MNIST on two cores; "
        "paper: the whole experiment, hours or days",
    )
    command.add_argument(
        "--seeds",
        type=positive,
        metavar="N",
        help="the number of seeds, of figures that have seeds (default: 2, or that of the paper)",
    )
    command.add_argument(
        "--jobs", type=positive, metavar="N", help="trials at a time, in processes of this machine (default: the cores)"
    )
    command.add_argument(
        "--total", type=seconds, default=math.inf, metavar="S", help="seconds after which no trial starts"
    )
    command.add_argument("--out", type=Path, default=Path("runs/reproduce"), metavar="DIR", help="records and figures")
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_data(command)
    add_engine(command)

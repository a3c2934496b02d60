"""The arguments of `ctbench radius`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.arguments import subject
from ctbench.cli.options import Commands, add_data, add_engine, add_stages, add_timeout, positive_radius, seconds


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "radius", help="find the largest certified and the smallest falsified radius of each test image"
    )
    subject.add_network_to(command)
    command.add_argument(
        "--largest",
        dest="eps",
        type=positive_radius,
        metavar="EPS",
        help="the largest radius to try, e.g. 0.2 or 8/255 (default: twice the recipe's)",
    )
    command.add_argument(
        "--tolerance",
        type=positive_radius,
        metavar="EPS",
        help="the distance between radii that are tried, at most (default: a 64th of the largest)",
    )
    subject.add_kind_to(command)
    add_stages(command)
    add_timeout(command)
    command.add_argument(
        "--total", type=seconds, metavar="S", help="seconds for all samples together (default: no limit)"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="the trials (default: in the run folder)")
    command.add_argument("--resume", action="store_true", help="keep the trials that exist, and make the missing ones")
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_data(command)
    add_engine(command)

"""The arguments of `ctbench check`."""

from __future__ import annotations

from ctbench.cli.options import Commands, add_data, add_data_from, seconds, whole


def add_to(commands: Commands) -> None:
    command = commands.add_parser("check", help="look again at each claim of a pack or a run")
    command.add_argument("pack", metavar="FILE.zip|RUN", help="a pack, or a run folder")
    command.add_argument(
        "--samples",
        type=whole,
        metavar="N",
        default=100,
        help="the samples of each certification that are certified again, chosen at random (default: %(default)s)",
    )
    command.add_argument("--seed", type=whole, metavar="N", help="of the choice (default: a random one, which is told)")
    command.add_argument(
        "--timeout", type=seconds, metavar="S", default=60.0, help="seconds for each of them (default: 60)"
    )
    add_data_from(command)
    add_data(command)

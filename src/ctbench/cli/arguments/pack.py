"""The arguments of `ctbench pack`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.options import Commands, add_data, add_data_from


def add_to(commands: Commands) -> None:
    command = commands.add_parser("pack", help="write a run with its records into one file that others can check")
    command.add_argument("run", metavar="RUN", help="a run folder")
    command.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.zip", help="the pack")
    add_data_from(command)
    add_data(command)

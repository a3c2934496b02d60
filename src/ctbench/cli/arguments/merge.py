"""The arguments of `ctbench merge`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.options import Commands


def add_to(commands: Commands) -> None:
    command = commands.add_parser("merge", help="join the records of parts of a data set in one file")
    command.add_argument("out", type=Path, metavar="OUT", help="a new .jsonl file")
    command.add_argument("parts", type=Path, nargs="+", metavar="PART", help="records of certify --samples A:B")

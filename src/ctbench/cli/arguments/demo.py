"""The arguments of `ctbench demo`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.options import Commands, add_strict


def add_to(commands: Commands) -> None:
    command = commands.add_parser("demo", help="train, certify and compare three networks on real digits")
    command.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="default: runs/demo")
    add_strict(command)

"""The arguments of `ctbench show`."""

from __future__ import annotations

from ctbench.cli.options import Commands, add_changes


def add_to(commands: Commands) -> None:
    command = commands.add_parser("show", help="show every field of a recipe, and what it means")
    add_changes(command)

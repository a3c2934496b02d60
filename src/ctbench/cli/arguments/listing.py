"""The arguments of `ctbench list`."""

from __future__ import annotations

from ctbench.cli.options import Commands

KINDS = (
    "recipes",
    "methods",
    "networks",
    "datasets",
    "threats",
    "attacks",
    "stages",
    "analyses",
    "corruptions",
    "figures",
    "spaces",
)


def add_to(commands: Commands) -> None:
    command = commands.add_parser("list", help="list the available recipes, methods, networks etc.")
    command.add_argument("kind", choices=KINDS)
    command.add_argument(
        "pattern", nargs="?", metavar="PATTERN", help="only names such as 'cifar10_*', or with this part"
    )

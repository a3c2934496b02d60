"""`ctbench list`: what there is to choose from."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from collections.abc import Callable, Mapping

from rich.table import Table

from ctbench.cli.options import Commands, wide_console
from ctbench.datasets import datasets
from ctbench.methods import methods
from ctbench.networks import architectures
from ctbench.recipes import recipes

KINDS = ("recipes", "methods", "networks", "datasets")


def add_to(commands: Commands) -> None:
    command = commands.add_parser("list", help="list what there is to choose from")
    command.add_argument("kind", choices=KINDS)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    table = Table(box=None, pad_edge=False)
    details = "source" if args.kind == "recipes" else "fields"
    for heading, style in (("name", "bold"), ("about", ""), (details, "dim")):
        table.add_column(heading, style=style, no_wrap=heading == "name")
    for name, about, fields in _entries(args.kind):
        table.add_row(name, about, fields)
    wide_console().print(table)


def _entries(kind: str) -> list[tuple[str, str, str]]:
    """Name, one line about it, and its fields with their defaults."""
    if kind == "recipes":
        made = [make() for make in recipes().values()]
        return [
            (
                recipe.name,
                f"{recipe.dataset.name}, {recipe.network.name}, {recipe.method.name}, eps {recipe.threat.eps:g}, "
                f"{recipe.epochs} epochs",
                recipe.source,
            )
            for recipe in made
        ]
    members: dict[str, Callable[[], Mapping[str, type]]] = {
        "methods": methods,
        "networks": architectures,
        "datasets": datasets,
    }
    return [(name, _about(member), _fields(member)) for name, member in members[kind]().items()]


def _about(member: type) -> str:
    """The first paragraph about it."""
    return (inspect.getdoc(member) or "").partition("\n\n")[0].replace("\n", " ")


def _fields(member: type) -> str:
    """Its fields with their defaults, as "width=16, batch_norm=True"."""
    told = []
    for field in dataclasses.fields(member):
        if field.default_factory is not dataclasses.MISSING:
            told.append(f"{field.name}={field.default_factory()!r}")
        else:
            told.append(field.name if field.default is dataclasses.MISSING else f"{field.name}={field.default!r}")
    return ", ".join(told)

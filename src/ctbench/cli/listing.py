"""`ctbench list`: what there is to choose from."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from collections.abc import Callable, Mapping

from rich.table import Table

from ctbench.attacks import attacks
from ctbench.cli.options import Commands, wide_console
from ctbench.datasets import datasets
from ctbench.experiments import PAPERS, figures
from ctbench.methods import methods
from ctbench.networks import architectures
from ctbench.recipes import recipes
from ctbench.regions import threats
from ctbench.verify import stage_types

KINDS = ("recipes", "methods", "networks", "datasets", "threats", "attacks", "stages", "figures")


def add_to(commands: Commands) -> None:
    command = commands.add_parser("list", help="list what there is to choose from")
    command.add_argument("kind", choices=KINDS)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    made = {"recipes": _recipes, "figures": _figures}.get(args.kind)
    entries = made() if made else _members(args.kind)
    table = Table(box=None, pad_edge=False)
    for heading, style in zip(entries[0], ("bold", "", "dim", "dim"), strict=False):
        table.add_column(heading, style=style, no_wrap=heading == "name")
    for entry in entries[1:]:
        table.add_row(*entry)
    wide_console().print(table)


def _recipes() -> list[tuple[str, ...]]:
    """Headings; then of each recipe its name, one line about it, its source, and the accuracies published for it."""
    entries: list[tuple[str, ...]] = [("name", "about", "source", "published: natural / adversarial / certified %")]
    for made in (make() for make in recipes().values()):
        about = f"{made.dataset.name}, {made.network.name}, {made.method.name}, eps {made.threat.eps:.4g}, "
        published = f"{made.published} ({made.published.source})" if made.published else ""
        entries.append((made.name, f"{about}{made.epochs} epochs", made.source, published))
    return entries


def _figures() -> list[tuple[str, ...]]:
    """Headings; then of each figure its paper, its number, its experiment, and what the paper says it shows."""
    shown = [(paper, figure) for paper in PAPERS for figure in figures(paper).values()]
    entries = [(paper, figure.number, figure.experiment.name, figure.claim) for paper, figure in shown]
    return [("paper", "figure", "experiment", "claim"), *entries]


def _members(kind: str) -> list[tuple[str, ...]]:
    """Headings; then of each member its name, one line about it, and its fields with their defaults."""
    members: dict[str, Callable[[], Mapping[str, type]]] = {
        "methods": methods,
        "networks": architectures,
        "datasets": datasets,
        "threats": threats,
        "attacks": attacks,
        "stages": stage_types,
    }
    entries = [(name, _about(member), _fields(member)) for name, member in members[kind]().items()]
    return [("name", "about", "fields"), *entries]


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

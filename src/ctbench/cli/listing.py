"""`ctbench list`: the available recipes, figures, methods, networks and data sets."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ctbench.attacks import attacks
from ctbench.cli import analyse
from ctbench.cli.options import wide_console
from ctbench.corruptions import corruptions
from ctbench.datasets import datasets
from ctbench.experiments import PAPERS, figures
from ctbench.methods import methods
from ctbench.networks import architectures
from ctbench.recipes import recipes
from ctbench.regions import threats
from ctbench.results.decimals import decimals
from ctbench.tuning import spaces
from ctbench.verify import stage_types

NARROW = 140  # characters of a terminal in which columns would be too narrow to read


def run(args: argparse.Namespace) -> None:
    list_kind = {"recipes": _recipes, "figures": _figures, "spaces": _spaces}.get(args.kind)
    entries = list_kind() if list_kind else _members(args.kind)
    heading, *entries = entries
    if args.pattern is not None:
        entries = [entry for entry in entries if args.pattern in entry[0] or fnmatchcase(entry[0], args.pattern)]
        if not entries:
            raise ValueError(
                f"no name of the {args.kind} has {args.pattern!r} in it: ctbench list {args.kind} shows all"
            )
    console = wide_console()
    if console.width < NARROW:
        _show_below(heading, entries, console)
        return
    table = Table(box=None, pad_edge=False)
    for title, style in zip(heading, ("bold", "", "dim", "dim"), strict=False):
        table.add_column(title, style=style, no_wrap=title == "name")
    for entry in entries:
        table.add_row(*entry)
    console.print(table)


def _show_below(heading: tuple[str, ...], entries: list[tuple[str, ...]], console: Console) -> None:
    """Each entry as its name, with the other columns below it: so a narrow terminal breaks no line of numbers."""
    console.print(Text(", ".join(heading), "dim"))
    for name, *others in entries:
        console.print(Text(name, "bold"))
        for text in filter(None, others):
            console.print(Padding(Text(text), (0, 0, 0, 4)))


def _recipes() -> list[tuple[str, ...]]:
    """Headings, then one row per recipe: its name, a summary, its source, and its published accuracies."""
    entries: list[tuple[str, ...]] = [("name", "about", "source", "published: natural / adversarial / certified %")]
    for recipe in (make() for make in recipes().values()):
        about = (
            f"{recipe.dataset.name}, {recipe.network.name}, {recipe.method.name}, eps {decimals(recipe.threat.eps)}, "
        )
        published = f"{recipe.published} ({recipe.published.source})" if recipe.published else ""
        entries.append((recipe.name, f"{about}{recipe.epochs} epochs", recipe.source, published))
    return entries


def _figures() -> list[tuple[str, ...]]:
    """Headings, then one row per figure: its paper, its number, its records, and the claim of the paper."""
    shown = [(paper, figure) for paper in PAPERS for figure in figures(paper).values()]
    entries = [(paper, figure.number, figure.records, figure.claim) for paper, figure in shown]
    return [("paper", "figure", "records", "claim"), *entries]


def _spaces() -> list[tuple[str, ...]]:
    """Headings, then one row per space of `ctbench tune`."""
    return [("name", "about"), *spaces().items()]


def _members(kind: str) -> list[tuple[str, ...]]:
    """Headings, then one row per member: its name, a summary, and its fields with their defaults."""
    members: dict[str, Callable[[], Mapping[str, type]]] = {
        "methods": methods,
        "networks": architectures,
        "datasets": datasets,
        "threats": threats,
        "attacks": attacks,
        "stages": stage_types,
        "analyses": analyse.kinds,
        "corruptions": corruptions,
    }
    entries = [(name, about(member), _fields(member)) for name, member in members[kind]().items()]
    return [("name", "about", "fields"), *entries]


def about(member: type) -> str:
    """The first paragraph of its docstring."""
    return (inspect.getdoc(member) or "").partition("\n\n")[0].replace("\n", " ")


def _fields(member: type) -> str:
    """Its fields with their defaults, e.g. "width=16, batch_norm=True"."""
    texts = []
    for field in dataclasses.fields(member):
        if field.default_factory is not dataclasses.MISSING:
            texts.append(f"{field.name}={field.default_factory()!r}")
        else:
            texts.append(field.name if field.default is dataclasses.MISSING else f"{field.name}={field.default!r}")
    return ", ".join(texts)

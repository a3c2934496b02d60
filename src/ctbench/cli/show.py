"""`ctbench show`: every field of a recipe, its value, where the value comes from, and what it means."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ctbench.cli.options import changes, wide_console
from ctbench.members import own_name
from ctbench.recipes import recipe
from ctbench.results.decimals import decimals
from ctbench.training import Recipe

FILE = ".json"  # how the name of a file with a recipe ends


def run(args: argparse.Namespace) -> None:
    show(start(args.recipe).with_changes(changes(args)), changes(args))


def start(name: str) -> Recipe:
    """The recipe of a name, or of a file recipe.json."""
    return Recipe.read(Path(name)) if name.endswith(FILE) else recipe(name)


def show(recipe: Recipe, set_by_user: Collection[str] = ()) -> None:
    """Print a table of all fields.

    Args:
        recipe: the recipe.
        set_by_user: the changes of the command line, "path=value".
    """
    paths = {change.partition("=")[0] for change in set_by_user}
    table = Table(box=None, pad_edge=False)
    for heading, style in (("field", "bold"), ("value", ""), ("from", "dim"), ("meaning", "dim")):
        table.add_column(heading, style=style, no_wrap=heading == "field")
    for path, value, is_default, meaning in rows(recipe):
        origin = "--set" if path in paths else "default" if is_default else "recipe"
        table.add_row(path, escape(value), origin, escape(meaning))
    wide_console().print(table)


def rows(part: Any, path: str = "") -> Iterator[tuple[str, str, bool, str]]:
    """The fields of a dataclass and of the dataclasses in it: path, value, whether it is the default, and meaning."""
    kind: type = type(part)
    meanings = described(kind)
    for field in dataclasses.fields(part):
        value, place = getattr(part, field.name), f"{path}.{field.name}" if path else field.name
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield place, text(value), value == default, meanings.get(field.name, "")
        if dataclasses.is_dataclass(value):
            yield from rows(value, place)


def text(value: Any) -> str:
    """A value as a recipe writes it: a class by its name, a radius as a fraction if it is one."""
    if dataclasses.is_dataclass(value):
        return own_name(type(value)) or str(value) if not isinstance(value, type) else value.__name__
    if isinstance(value, tuple):
        return f"[{', '.join(map(text, value))}]"
    return decimals(value) if isinstance(value, float) else str(value)


@cache
def described(kind: type) -> dict[str, str]:
    """What the docstring of a class, or of a class that it derives from, says of each field."""
    meanings: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        doc = inspect.cleandoc(vars(base).get("__doc__") or "")
        section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
        for names, meaning in re.findall(r"^    (\w[\w, ]*): ((?:.|\n {8})*)", section[1] if section else "", re.M):
            meanings |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return meanings

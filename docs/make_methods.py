"""Writes a page for each training method into docs/methods, from its docstrings and its recipes."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from ctbench.methods import Method, methods
from ctbench.recipes import recipes
from ctbench.training import Recipe

FOLDER = Path(__file__).parent / "methods"


def pages() -> dict[str, str]:
    """The text of every page, by the name of its file; the index is README.md."""
    texts = {}
    lines = ["# Training methods", "", "One page per file in `src/ctbench/methods`, made from its docstrings.", ""]
    ours = (method for method in methods().values() if method.__module__.startswith("ctbench."))
    ordered = sorted(ours, key=lambda method: method.__module__)
    for module, members in groupby(ordered, key=lambda method: method.__module__):
        file, kinds = f"{module.rpartition('.')[2]}.md", list(members)
        title, body = _docstring(module)
        texts[file] = "\n".join([*_page(title, body, kinds), ""])
        lines.append(f"- [{title}]({file})")
    return {"README.md": "\n".join([*lines, ""]), **texts}


def _docstring(module: str) -> tuple[str, str]:
    """The title of a module's docstring, its first sentence, and the rest."""
    text = inspect.getdoc(importlib.import_module(module)) or ""
    first, _, body = text.partition("\n\n")
    return first.replace("\n", " ").removesuffix("."), body


def _page(title: str, body: str, kinds: list[type[Method]]) -> Iterator[str]:
    yield from (f"# {title}", "", body)
    for kind in kinds:
        about, _, details = (inspect.getdoc(kind) or "").partition("\n\n")
        yield from ("", f"## {kind.__name__}, `{kind.name}`", "", about)
        notes = details.partition("Args:")[0].strip()
        if notes:
            yield from ("", notes)
        yield from ("", "| hyper-parameter | default | |", "| --- | --- | --- |", *_fields(kind, details))
    yield from ("", "## Published results", "")
    rows = [_row(recipe) for recipe in _recipes(kinds) if recipe.published]
    if rows:
        yield "In percent. ctbench has recipes with these hyper-parameters; the numbers are from the papers."
        yield from ("", "| recipe | natural | adversarial | certified | published in |")
        yield from ("| --- | ---: | ---: | ---: | --- |", *rows)
    else:
        yield "There are no published results for the settings of the recipes."


def _fields(kind: type[Method], details: str) -> Iterator[str]:
    """A row for each hyper-parameter, with the text from the Args of the class or of one of its bases."""
    texts = dict(_arguments(details))
    for base in kind.__mro__:
        texts = dict(_arguments(inspect.getdoc(base) or "")) | texts
    for field in dataclasses.fields(kind):
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        yield f"| `{field.name}` | `{default!r}` | {texts[field.name]} |"


def _arguments(text: str) -> Iterator[tuple[str, str]]:
    """The names and texts of the Args of a docstring."""
    section = re.search(r"^Args:\n((?: {4}.*\n?)+)", text, flags=re.MULTILINE)
    for names, about in re.findall(r"^ {4}([\w, ]+): (.*(?:\n {8}.*)*)", section[1] if section else "", re.MULTILINE):
        for name in names.split(", "):
            yield name, re.sub(r"\s+", " ", about)


def _recipes(kinds: list[type[Method]]) -> Iterator[Recipe]:
    """The recipes with one of these methods. SABR with the default inner method, IBP, has no results of IBP."""
    for recipe in (make() for make in recipes().values()):
        if type(recipe.method) in kinds or _is_named_for(recipe.method, kinds):
            yield recipe


def _is_named_for(method: Method, kinds: list[type[Method]]) -> bool:
    """Whether a method has one of these inside in place of its default, e.g. STAPS, which is SABR around TAPS."""
    inner = getattr(method, "inner", None)
    factories = [field.default_factory for field in dataclasses.fields(method) if field.name == "inner"]
    return type(inner) in kinds and type(inner) not in factories


def _row(recipe: Recipe) -> str:
    assert recipe.published is not None
    cells = (recipe.published.natural, recipe.published.adversarial, recipe.published.certified)
    shown = " | ".join("-" if cell is None else f"{cell:.2f}" for cell in cells)
    return f"| `{recipe.name}` | {shown} | {recipe.published.source} |"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()

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
    """The text of every page, by the name of its file; that of the index is README.md."""
    made = {}
    lines = ["# Training methods", "", "One file in `src/ctbench/methods` each; its docstring made its page.", ""]
    ours = (method for method in methods().values() if method.__module__.startswith("ctbench."))
    ordered = sorted(ours, key=lambda method: method.__module__)
    for module, members in groupby(ordered, key=lambda method: method.__module__):
        file, kinds = f"{module.rpartition('.')[2]}.md", list(members)
        title, body = _docstring(module)
        made[file] = "\n".join([*_page(title, body, kinds), ""])
        lines.append(f"- [{title}]({file})")
    return {"README.md": "\n".join([*lines, ""]), **made}


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
    rows = [_row(made) for made in _recipes(kinds) if made.published]
    if rows:
        yield "Percent; recipes with these hyper-parameters are in ctbench, the figures are the papers' own."
        yield from ("", "| recipe | natural | adversarial | certified | published in |")
        yield from ("| --- | ---: | ---: | ---: | --- |", *rows)
    else:
        yield "None for the settings that there are recipes for."


def _fields(kind: type[Method], details: str) -> Iterator[str]:
    """A row for each hyper-parameter, told as in the Args of the docstring of the class or the one it is made of."""
    told = dict(_arguments(details))
    for base in kind.__mro__:
        told = dict(_arguments(inspect.getdoc(base) or "")) | told
    for field in dataclasses.fields(kind):
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        yield f"| `{field.name}` | `{default!r}` | {told[field.name]} |"


def _arguments(text: str) -> Iterator[tuple[str, str]]:
    """The names and texts of the Args of a docstring."""
    found = re.search(r"^Args:\n((?: {4}.*\n?)+)", text, flags=re.MULTILINE)
    for names, about in re.findall(r"^ {4}([\w, ]+): (.*(?:\n {8}.*)*)", found[1] if found else "", re.MULTILINE):
        for name in names.split(", "):
            yield name, re.sub(r"\s+", " ", about)


def _recipes(kinds: list[type[Method]]) -> Iterator[Recipe]:
    """The recipes whose method is one of these, itself or within another."""
    for made in (make() for make in recipes().values()):
        method: object = made.method
        while isinstance(method, Method):
            if type(method) in kinds:
                yield made
            method = getattr(method, "inner", None)


def _row(made: Recipe) -> str:
    assert made.published is not None
    cells = (made.published.natural, made.published.adversarial, made.published.certified)
    shown = " | ".join("-" if cell is None else f"{cell:.2f}" for cell in cells)
    return f"| `{made.name}` | {shown} | {made.published.source} |"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()

"""The directive `{members} PACKAGE`: the public names of a package, from signatures and docstrings.

Docstrings of ctbench are Markdown with the sections Args, Returns, Raises and Warns, so that they read well in a
terminal; this writes them as objects of Sphinx's Python domain, which gives each an anchor and a place in the index.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cached_property
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SECTION = re.compile(r"^(Args|Returns|Raises|Warns|Yields):\n((?:(?: {4}.*)?\n?)*)", re.MULTILINE)
ENTRY = re.compile(r"^ {4}([\w, .]+): (.*(?:\n {8}.*)*)", re.MULTILINE)
LONGEST_VALUE = 80  # characters of a default value that a signature shows


class Members(SphinxDirective):
    """The docstring of a module, then its public names."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        text = "\n".join(page(importlib.import_module(self.arguments[0])))
        lines = StringList(text.splitlines(), source=self.arguments[0])
        here = nodes.container()
        self.state.nested_parse(lines, self.content_offset, here)
        return here.children


def page(module: ModuleType) -> Iterator[str]:
    """The Markdown of a module."""
    package, _, name = module.__name__.rpartition(".")
    if not package or getattr(importlib.import_module(package), name) is module:  # otherwise a function has its name
        yield from (f"```{{py:module}} {module.__name__}", "```", "")
    yield from (module.__doc__ or "", "")
    elsewhere = list[str]()
    for name in public(module):
        member = getattr(module, name)
        if home := _home(module.__name__, name, member):
            elsewhere.append(f"{{py:obj}}`{home}.{name}`")
        else:
            yield from described(name, member)
    if elsewhere:
        yield from (f"Names that another page describes: {', '.join(elsewhere)}.", "")


def _home(module: str, name: str, member: Any) -> str:
    """The other package that exports the same member, and whose page describes it; "" if there is no other."""
    packages = [module.rpartition(".")[0], "ctbench"]
    if module != "ctbench":  # the first page describes what it exports, wherever that is defined
        packages.append(".".join(getattr(member, "__module__", module).split(".")[:2]))
    homes = [home for home in packages if home.startswith("ctbench") and home != module]
    return next((home for home in homes if getattr(importlib.import_module(home), name, None) is member), "")


def public(module: ModuleType) -> list[str]:
    """The names in `__all__`, or else those of functions and classes that the module defines."""
    names = getattr(module, "__all__", None) or [
        name
        for name, member in vars(module).items()
        if not name.startswith("_") and getattr(member, "__module__", None) == module.__name__
    ]
    return [name for name in names if not name.startswith("__")]


def described(name: str, member: Any) -> Iterator[str]:
    """The Markdown of one public name."""
    if inspect.isclass(member):
        yield from _class(name, member)
    elif inspect.isfunction(inspect.unwrap(member)):
        yield from _object("function", f"{name}{_signature(member)}", body(member))
    elif inspect.ismethod(member):  # of a value with all its defaults, e.g. a domain
        about = (
            f"`{type(member.__self__).__name__}().{member.__name__}`: the method of the class with its default options."
        )
        yield from _object("function", f"{name}{_signature(member.__func__, bound=True)}", [about, ""])
    elif isinstance(member, tuple):
        yield from _object("data", name, [f"- `{value!r}`" for value in member])
    else:
        yield from _object("data", name, [])


def _class(name: str, kind: type) -> Iterator[str]:
    lines = list(body(kind))
    for attribute, member in vars(kind).items():
        if attribute.startswith("_") and attribute != "__call__":
            continue
        if isinstance(member, property | cached_property):
            lines += _object("property", attribute, body(member), outer=5)
            continue
        function = inspect.unwrap(getattr(member, "__func__", member))
        if inspect.isfunction(function) and (attribute != "__call__" or function.__doc__):
            option = [f":{type(member).__name__}:", ""] if isinstance(member, classmethod | staticmethod) else []
            called = f"{attribute}{_signature(function, bound=True)}"
            lines += _object("method", called, [*option, *body(function)], outer=5)
    if issubclass(kind, enum.Enum):
        for choice in kind:
            lines += _object("attribute", choice.name, [f"`{choice.value!r}`"], outer=5)
    yield from _object("class", f"{name}{_fields(kind)}", lines)


def _object(kind: str, signature: str, lines: Iterator[str] | list[str], *, outer: int = 7) -> Iterator[str]:
    fence = "`" * outer
    yield from (f"{fence}{{py:{kind}}} {signature}", *lines, fence, "")


def _signature(function: Any, *, bound: bool = False) -> str:
    """The arguments as they stand in the source, so that a default is its name and not its value."""
    node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    assert isinstance(node, ast.FunctionDef)
    if bound and node.args.args[:1] and node.args.args[0].arg in ("self", "cls"):
        del node.args.args[0]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


def _fields(kind: type) -> str:
    """The fields of a dataclass that its constructor takes."""
    if not dataclasses.is_dataclass(kind):
        return ""
    shown = list[str]()
    for field in dataclasses.fields(kind):
        if field.init and not field.name.startswith("_"):
            if field.kw_only and "*" not in shown:
                shown.append("*")
            shown.append(field.name + _default(field))
    return f"({', '.join(shown)})"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value = repr(field.default_factory())
    elif field.default is dataclasses.MISSING:
        return ""
    else:
        value = str(field.default) if isinstance(field.default, enum.Enum) else repr(field.default)
    return f"={value}" if len(value) <= LONGEST_VALUE and " at 0x" not in value else "=..."


def body(member: Any) -> list[str]:
    """A docstring, with its sections as lists of fields."""
    text = "" if _inherited(member) else inspect.getdoc(member) or ""
    lines = [SECTION.sub("", text).strip(), ""]
    for title, content in SECTION.findall(text):
        if title == "Args":
            for names, about in ENTRY.findall(content):
                lines += [f":param {name}: {_one_line(about)}" for name in names.split(", ")]
        elif title in ("Raises", "Warns"):
            lines += [f":raises {name}: {_one_line(about)}" for name, about in ENTRY.findall(content)]
        else:
            lines += [f":returns: {_one_line(content)}"]
    return lines


def _inherited(member: Any) -> bool:
    """Whether a class has only the docstring that `dataclass` or `Enum` makes, or its base's."""
    return inspect.isclass(member) and (
        not member.__dict__.get("__doc__") or member.__doc__.startswith(f"{member.__name__}(")
    )


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("members", Members)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Members of a kind: the concrete subclasses of an abstract class, such as `Method` or `Dataset`, by their names."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")


def members(base: type[T], *, records: bool = False) -> dict[str, type[T]]:
    """Return the concrete subclasses of an abstract class, sorted by their class attribute `name`.

    If the class is defined in the module `base` of a package, all modules of that package are imported first. A class
    in any other module is found once that module has been imported. A class without a `name` of its own is not found.

    Args:
        base: the abstract class.
        records: also classes with `record_only = True`, which stand in the recipe of a run for something that is not
            there, such as a module of the user's own.

    Raises:
        ValueError: two classes have the same name.
    """
    package, _, module = base.__module__.rpartition(".")
    if package and module == "base":
        modules(package)
    classes: dict[str, type[T]] = {}
    for member in subclasses(base):
        name = own_name(member)
        if name is None or inspect.isabstract(member) or (vars(member).get("record_only") and not records):
            continue
        other = classes.setdefault(name, member)
        if _path(other) != _path(member):
            raise ValueError(f"{_path(other)} and {_path(member)} are both named {name!r}: rename one of them")
        classes[name] = member  # of a class that a notebook defines again, the last one counts
    return dict(sorted(classes.items()))


@cache
def modules(package: str) -> tuple[ModuleType, ...]:
    """Import all modules of a package, sorted by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(import_module(package).__path__))
    return tuple(import_module(f"{package}.{name}") for name in names)


def subclasses(base: type[T]) -> Iterator[type[T]]:
    """Yield all subclasses of a class, each before its own subclasses."""
    for child in base.__subclasses__():
        yield child
        yield from subclasses(child)


def own_name(kind: type) -> str | None:
    """Return the class attribute `name` that a class defines itself, unless it is a dataclass field or not a string."""
    name = vars(kind).get("name")
    if not isinstance(name, str):
        return None
    is_field = dataclasses.is_dataclass(kind) and any(field.name == "name" for field in dataclasses.fields(kind))
    return None if is_field else name


def required_fields(kind: Any) -> list[str]:
    """Return the names of the fields of a dataclass that have no default."""
    return [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"

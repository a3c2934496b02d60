"""Recipes: functions without parameters that return a Recipe, and tables of them; one file per paper or setting."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, partial
from types import ModuleType

from ctbench.members import modules
from ctbench.training import Recipe


def recipes() -> dict[str, Callable[[], Recipe]]:
    """Return all recipes of this package by name.

    A recipe is a public function without parameters, or an entry of the table `RECIPES`, of a module. Its name in the
    module becomes the recipe's `name`.
    """
    return dict(_by_name())


@cache
def _by_name() -> dict[str, Callable[[], Recipe]]:
    by_name: dict[str, Callable[[], Recipe]] = {}
    for module in modules(__name__):
        for name, make in _recipes_of(module).items():
            assert name not in by_name, f"two recipes are named {name}"
            by_name[name] = partial(_named, name, make)
    return dict(sorted(by_name.items()))


def _recipes_of(module: ModuleType) -> dict[str, Callable[[], Recipe]]:
    functions = {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and not inspect.signature(function).parameters
    }
    table: dict[str, Callable[[], Recipe]] = vars(module).get("RECIPES", {})
    assert not functions.keys() & table.keys(), f"{module.__name__} has a function and an entry of one name"
    return functions | table


def _named(name: str, make: Callable[[], Recipe]) -> Recipe:
    return replace(make(), name=name)


def recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ValueError: there is no such recipe; the message lists similar names.
    """
    by_name = _by_name()
    if name not in by_name:
        raise ValueError(unknown(name))
    return by_name[name]()


def unknown(name: str) -> str:
    """The message for a name or pattern that no recipe has."""
    longer = [other for other in _by_name() if fnmatchcase(other, f"*_{name}")]  # with the prefix of a paper
    near = list(dict.fromkeys([*longer, *difflib.get_close_matches(name, _by_name(), n=4, cutoff=0.4)]))[:4]
    hint = f"there are {', '.join(near)}, and more" if near else "see the list"
    return f"no recipe is called {name!r}; {hint}: ctbench list recipes"

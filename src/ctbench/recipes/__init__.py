"""Recipes: functions without arguments that return a Recipe, one file per paper or setting."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable

from ctbench.training import Recipe


def recipes() -> dict[str, Callable[[], Recipe]]:
    """Every recipe function by its name, found by walking this package."""
    found: dict[str, Callable[[], Recipe]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        found |= {
            name: function
            for name, function in inspect.getmembers(module, inspect.isfunction)
            if function.__module__ == module.__name__ and not name.startswith("_")
        }
    return dict(sorted(found.items()))


def recipe(name: str) -> Recipe:
    """The recipe of this name; ValueError lists the names there are."""
    known = recipes()
    if name not in known:
        raise ValueError(f"no recipe is called {name!r}; there are {', '.join(known)}")
    return known[name]()

"""Recipes: functions without arguments that return a Recipe, one file per paper or setting."""

from __future__ import annotations

import difflib
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
            if function.__module__ == module.__name__ and not inspect.signature(function).parameters
        }
    return dict(sorted(found.items()))


def recipe(name: str) -> Recipe:
    """The recipe of this name; ValueError tells those of similar names."""
    known = recipes()
    if name not in known:
        raise ValueError(unknown(name))
    return known[name]()


def unknown(name: str) -> str:
    """What to say of a name or pattern that no recipe has."""
    near = difflib.get_close_matches(name, recipes(), n=4, cutoff=0.4)
    hint = f"there are {', '.join(near)}, and more" if near else "see those there are"
    return f"no recipe is called {name!r}; {hint}: ctbench list recipes"

"""Classes of the user's own in a recipe: which modules define them, and reading a recipe whose classes are not there.

A run notes the names of these modules as text. They are imported by the user alone: `--import MODULE`, or Python's
import. Nothing is ever imported because a run folder says so.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from ctbench.methods.base import Unavailable
from ctbench.results import RunFolder, jsonl
from ctbench.training import codec
from ctbench.training.recipe import Recipe


def own_modules(recipe: Recipe) -> list[str]:
    """The modules outside ctbench that define classes of a recipe, sorted."""
    return sorted({kind.__module__ for kind in _classes(recipe) if kind.__module__.partition(".")[0] != "ctbench"})


def _classes(value: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        for field in dataclasses.fields(value):
            yield from _classes(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _classes(item)


def recipe_of(folder: RunFolder) -> Recipe:
    """The recipe of a run folder. To use a trained network needs no method: one that is not there is `Unavailable`.

    Raises:
        ValueError: another class of the recipe is not there; the message names the modules to import.
    """
    content = jsonl.read_json(folder.recipe)
    with jsonl.named(folder.recipe):
        try:
            return Recipe.from_json(content)
        except codec.UnknownMemberError as error:
            hint = _hint(folder)
            try:
                return Recipe.from_json(_without_methods(content))
            except codec.UnknownMemberError:
                raise ValueError(f"{error}{hint}") from None


def _hint(folder: RunFolder) -> str:
    versions = jsonl.read_json(folder.versions) if folder.versions.is_file() else {}
    modules = versions.get("modules", []) if isinstance(versions, dict) else []
    if not modules:
        return ""
    options = " ".join(f"--import {module}" for module in modules)
    return f"; the run was trained with classes of {', '.join(modules)}: import them first ({options})"


def _without_methods(content: dict[str, codec.Json]) -> dict[str, codec.Json]:
    """The JSON of a recipe, in which methods that are not there are replaced, and what changes their fields is left
    out."""
    changed = dict(content)
    for part in ("method", "warmup"):
        try:
            codec.decode(codec.field_types(Recipe)[part], content.get(part), part)
        except codec.UnknownMemberError:
            changed[part] = {"name": Unavailable.name, "settings": json.dumps(content[part])}
            schedules = changed.get("schedules") or []
            assert isinstance(schedules, list)
            changed["schedules"] = [each for each in schedules if not _about(part, each)]
    return changed


def _about(part: str, schedule: codec.Json) -> bool:
    return isinstance(schedule, dict) and str(schedule.get("path", "")).partition(".")[0] == part

"""The command that repeats a run: its training, and its certifications."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ctbench.datasets import GivenData
from ctbench.domains import domains
from ctbench.networks import Given
from ctbench.recipes import recipe as recipe_of
from ctbench.recipes import recipes
from ctbench.results import CertificationFiles, RunFolder
from ctbench.results.decimals import decimals
from ctbench.training import Recipe
from ctbench.verify import stages_by_name, timeout_of
from ctbench.verify.defaults import CASCADES, stage_types, with_attack

OWN_MODULE = (
    "Its network is a module of your own, and its data may be: ctbench train --model MODULE:FUNCTION repeats it."
)
NO_NAME = "Its stages have no name, so the command leaves them out: its settings show them."


def repeated(folder: RunFolder, name: str, recipe_file: str) -> tuple[str, str]:
    """The command that trains and certifies again, or the reason why there is none.

    Args:
        folder: the run.
        name: of the new run folder.
        recipe_file: a file with its recipe, for one that has no name of its own.

    Returns:
        The command, or "" if there is none; and what is to be said of it, or why there is none.
    """
    if not folder.recipe.is_file():
        return "", "There is no recipe: these are records of weights or of a network from elsewhere."
    try:
        recipe = Recipe.read(folder.recipe)
    except ValueError as error:
        return "", f"Its recipe cannot be read here: {' '.join(str(error).replace(str(folder.recipe), 'it').split())}"
    if isinstance(recipe.network, Given) or isinstance(recipe.dataset, GivenData):
        return "", OWN_MODULE
    out = shlex.quote(f"runs/{name}")
    command = f"ctbench train {_named(recipe, recipe_file)} --out {out}"
    nameless = [not _stages(its.get("stages") or (), strength_of(its)) for its in _settings(folder)]
    steps = [_certify(files, out, recipe) for files in folder.certifications()]
    steps += [_radius(files.read_settings(), out) for files in folder.searches()]
    return " && \\\n".join([command, *(step for step in steps if step)]), NO_NAME if any(nameless) else ""


def _settings(folder: RunFolder) -> list[dict[str, Any]]:
    return [files.read_settings() for files in (*folder.certifications(), *folder.searches())]


def _named(recipe: Recipe, recipe_file: str) -> str:
    """The recipe for a command: a name and a seed if it is one of this package, or the file."""
    of_package = recipe_of(recipe.name) if recipe.name in recipes() else None
    if of_package is None or replace(of_package, seed=recipe.seed) != recipe:
        return shlex.quote(recipe_file)
    return recipe.name if of_package.seed == recipe.seed else f"{recipe.name} --seed {recipe.seed}"


def _certify(files: CertificationFiles, out: str, recipe: Recipe) -> str:
    """The command of a certification; "" if it is of other images or of a radius for each feature."""
    settings = files.read_settings()
    eps, title = settings["eps"], recipe.dataset.title
    if not isinstance(eps, int | float) or settings.get("dataset", title) != title:
        return ""
    parts = [f"ctbench certify {out} --eps {decimals(eps, 10)}", *_common(settings, recipe)]
    return " ".join([*parts, *(["--counterexamples"] if files.counterexamples.is_dir() else [])])


def _radius(settings: Mapping[str, Any], out: str) -> str:
    largest, tolerance = settings["largest"], settings["tolerance"]
    parts = [f"ctbench radius {out} --largest {decimals(largest, 10)} --tolerance {tolerance:.10g}"]
    return " ".join([*parts, *_common(settings, None)])


def _common(settings: Mapping[str, Any], recipe: Recipe | None) -> Iterator[str]:
    """The options that both commands have."""
    norm, samples, timeout = settings.get("norm"), settings.get("samples"), settings.get("timeout")
    if recipe is not None and norm != recipe.threat.name:
        yield f"--norm {shlex.quote(str(norm))}"
    if samples:
        yield f"--samples {samples[0]}:{samples[1]}" if samples[0] else f"--samples {samples[1]}"
    strength = strength_of(settings)
    name = _stages(settings.get("stages") or (), strength)
    if name:
        yield f"--stages {name}"
        yield from (f"--attack-{key} {value}" for key, value in strength.items())
    if isinstance(timeout, int | float) and math.isfinite(timeout) and timeout != timeout_of(name or "complete"):
        yield f"--timeout {timeout:g}"


def strength_of(settings: Mapping[str, Any]) -> dict[str, int]:
    """The steps and restarts of attacks in settings, if the command gave any."""
    return {key: int(value) for value, key in re.findall(r"(\d+)-(steps|restarts)", str(settings.get("attack", "")))}


def _stages(descriptions: Sequence[str], strength: Mapping[str, int]) -> str | None:
    """The name of a cascade, or the names of stages with commas; None if they have none."""
    for name in CASCADES:
        if _described(name, strength) == list(descriptions):
            return name
    names = {_described(name, {})[0]: name for name in (*domains(), *stage_types()) if _is_complete(name)}
    chosen = [names.get(description) for description in descriptions]
    return None if None in chosen or strength else ",".join(name for name in chosen if name)


def _described(name: str, strength: Mapping[str, int]) -> list[str]:
    return [repr(stage) for stage in with_attack(stages_by_name(name), **strength)]


def _is_complete(name: str) -> bool:
    """Whether stages of this name have a default for each field."""
    try:
        stages_by_name(name)
    except ValueError:
        return False
    return True

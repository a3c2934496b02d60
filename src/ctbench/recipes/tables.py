"""From the tables of papers to recipes: a setting, a method, and what the paper tuned for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ctbench import attacks
from ctbench.methods import Method
from ctbench.methods.taps import TAPS
from ctbench.results import Published, published_result
from ctbench.training import Recipe


def certified(setting: Recipe, method: Method, *, shi: float = 0.5, **changes: Any) -> Recipe:
    """Return a recipe of standard training with another method, and Shi et al.'s initialisation and regulariser."""
    return replace(setting, method=method, initialization="shi", shi=shi, **changes)


def adversarial(setting: Recipe, method: Method, **changes: Any) -> Recipe:
    """Return a recipe of standard training with another method."""
    return replace(setting, method=method, **changes)


def search(steps: int, restarts: int = 3) -> attacks.PGD:
    """CTBench's attack on the input for PGD, EDAC and MTL-IBP: steps of max(1/4, 2/S) of the radius."""
    return attacks.PGD(steps=steps, restarts=restarts)


def centre_search(steps: int, restarts: int = 3) -> attacks.PGD:
    """CTBench's attack for SABR's centre: steps of a fifth of the radius."""
    return attacks.PGD(steps=steps, restarts=restarts, step_size=0.2)


def latent_search(steps: int, restarts: int = 3) -> attacks.PGD:
    """CTBench's attack in TAPS' latent box: the first step max(0.2, 2/S) of its width, a fifth of that at the end."""
    decay_at = (0.7,) if steps >= 10 else ()
    return attacks.PGD(steps=steps, restarts=restarts, step_size=2 * max(0.2, 2 / steps), decay_at=decay_at, decay=0.2)


def taps(steps: int, *, relus: int, scale: float, restarts: int = 3) -> TAPS:
    """TAPS with CTBench's attack."""
    return TAPS(classifier_relus=relus, scale=scale, attack=latent_search(steps, restarts))


def table_1(dataset: str, eps: float, method: str) -> Published:
    """CTBench's own result in its Table 1."""
    return published_result(dataset, "linf", eps, method, paper="CTBench").accuracies

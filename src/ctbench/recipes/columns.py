"""How the columns of a table become recipes: a setting, a method, and what the paper tuned for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ctbench import attacks
from ctbench.methods import Method
from ctbench.methods.taps import TAPS
from ctbench.results import Published
from ctbench.training import Recipe


def certified(setting: Recipe, name: str, method: Method, *, shi: float = 0.5, **changes: Any) -> Recipe:
    """A method with Shi et al.'s initialisation and regulariser, in a setting that is a recipe of standard training."""
    return replace(setting, name=name, method=method, initialization="shi", shi=shi, **changes)


def adversarial(setting: Recipe, name: str, method: Method, **changes: Any) -> Recipe:
    """A method without them."""
    return replace(setting, name=name, method=method, **changes)


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


def ctbench(natural: float, certified: float | None = None, adversarial: float | None = None) -> Published:
    """A row of CTBench's Table 1, in the order of its columns."""
    return Published(natural=natural, adversarial=adversarial, certified=certified, source="CTBench, Table 1")

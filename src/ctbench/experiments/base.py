"""What an experiment is: many trials, each a recipe and what to measure of its network, and the figures made of them.

    Trial(series="COAP", x=5.0, candidate=0.1, recipe=..., measures=Measures())

x is the trial's place on the axis, `series` its line. Candidates are the values of a hyper-parameter (a learning rate)
of which the figure shows the best. Trials are data: they run in any order, in any process, and their records resume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ctbench.report import Plot
from ctbench.training import Recipe

KEY = ("series", "x", "candidate", "seed")  # what tells the trials of an experiment apart


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured of a network (see measuring.py).

    Args:
        attacks: for the robust error in balls; that on segments is exact.
        followed: how many test samples are looked at after each epoch; 0 follows nothing.
    """

    attacks: tuple[str, ...] = ("apgd-ce", "apgd-dlr")
    followed: int = 0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run, and its place in an experiment; the seed is the recipe's."""

    series: str
    x: float
    candidate: float
    recipe: Recipe
    measures: Measures = Measures()

    @property
    def key(self) -> dict[str, Any]:
        """What its record begins with."""
        return {"series": self.series, "x": self.x, "candidate": self.candidate, "seed": self.recipe.seed}

    @property
    def digest(self) -> str:
        """What its record depends on."""
        return hashlib.sha256(f"{self.recipe.hash} {self.measures}".encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of an experiment is run.

    Args:
        seeds: how many, from 0 on.
        epochs: of a run; None for the paper's.
        test_samples: how many there are; None for the paper's.
        points: how many places on the axis, evenly from the first to the last; None for all.
        candidates: how many learning rates, from the first on; None for all.

    Raises:
        ValueError: a number is below 1.
    """

    seeds: int
    epochs: int | None = None
    test_samples: int | None = None
    points: int | None = None
    candidates: int | None = None

    def __post_init__(self) -> None:
        for name, number in vars(self).items():
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}: it must be 1 at least")

    def places(self, places: Sequence[float]) -> list[float]:
        """Some of the places on the axis."""
        if self.points is None or self.points >= len(places):
            return list(places)
        step = (len(places) - 1) / max(1, self.points - 1)
        return [places[round(step * number)] for number in range(self.points)]


TINY = Scale(seeds=2, epochs=3, test_samples=100, points=2, candidates=1)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Trials that one or several figures show.

    Args:
        name: of its records.
        trials: all of a scale, seed by seed.
        seeds: how many the paper has.
    """

    name: str
    trials: Callable[[Scale], list[Trial]]
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a paper.

    Args:
        number: what the paper calls it, as "3a".
        experiment: whose records it shows.
        plot: how.
        claim: what the paper says it shows.
    """

    number: str
    experiment: Experiment
    plot: Plot
    claim: str

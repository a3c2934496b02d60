"""Experiments: many trials, each with a recipe and the quantities to measure, and the figures of their records.

    Trial(series="COAP", x=5.0, candidate=0.1, recipe=..., measures=Measures())

x is the value of the trial on the axis, `series` its line. Candidates are values of a hyper-parameter (a learning
rate); the figure shows the best candidate. Trials are data: they run in any order and process, and can be resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ctbench.report import Plot
from ctbench.training import Recipe

KEY = ("series", "x", "candidate", "seed")  # identifies a trial within its experiment


@dataclass(frozen=True, kw_only=True)
class Measures:
    """The quantities to measure (see measuring.py).

    Args:
        attacks: for the robust error in balls; the robust error on segments is exact.
        followed: the number of test samples that are evaluated after each epoch; 0 evaluates nothing.
    """

    attacks: tuple[str, ...] = ("apgd-ce", "apgd-dlr")
    followed: int = 0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run, and its place in an experiment. Its seed is the seed of the recipe."""

    series: str
    x: float
    candidate: float
    recipe: Recipe
    measures: Measures = Measures()

    @property
    def key(self) -> dict[str, Any]:
        """The first fields of its record."""
        return {"series": self.series, "x": self.x, "candidate": self.candidate, "seed": self.recipe.seed}

    @property
    def digest(self) -> str:
        """A digest of everything that the record depends on."""
        return hashlib.sha256(f"{self.recipe.hash} {self.measures}".encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class ExperimentScale:
    """The part of an experiment to run.

    Args:
        seeds: the number of seeds, starting at 0.
        epochs: the number of epochs of a run; None: as in the paper.
        test_samples: the number of test samples; None: as in the paper.
        points: the number of values on the axis, evenly spaced from the first to the last; None for all.
        candidates: the number of learning rates, starting with the first; None for all.

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
                raise ValueError(f"{name} is {number}: it must be at least 1")

    def places(self, places: Sequence[float]) -> list[float]:
        """A selection of `points` values on the axis."""
        if self.points is None or self.points >= len(places):
            return list(places)
        step = (len(places) - 1) / max(1, self.points - 1)
        return [places[round(step * number)] for number in range(self.points)]


TINY = ExperimentScale(seeds=2, epochs=3, test_samples=100, points=2, candidates=1)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Trials for one or several figures.

    Args:
        name: the name of its records.
        trials: from a scale to all its trials, seed by seed.
        seeds: the number of seeds in the paper.
    """

    name: str
    trials: Callable[[ExperimentScale], list[Trial]]
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a paper.

    Args:
        number: its number in the paper, e.g. "3a".
        experiment: the experiment that provides the records.
        plot: the layout.
        claim: the claim of the paper about this figure.
    """

    number: str
    experiment: Experiment
    plot: Plot
    claim: str

    @property
    def records(self) -> str:
        """Where its numbers come from: the name of its experiment."""
        return self.experiment.name

"""The experiments of the papers: trials that are data, run in parallel, whose records make figures.

A new figure is an `Experiment` and a `Figure` in a file of its paper, which `PAPERS` names.
"""

from __future__ import annotations

from types import ModuleType

from ctbench.experiments import generalisation, robust_accuracy
from ctbench.experiments.base import TINY, Experiment, Figure, Measures, Scale, Trial
from ctbench.experiments.measuring import errors, measure
from ctbench.experiments.running import run

PAPERS: dict[str, ModuleType] = {"generalisation": generalisation, "robust-accuracy": robust_accuracy}

__all__ = [
    "PAPERS",
    "TINY",
    "Experiment",
    "Figure",
    "Measures",
    "Scale",
    "Trial",
    "errors",
    "figures",
    "measure",
    "run",
]


def figures(paper: str) -> dict[str, Figure]:
    """The figures of a paper by their numbers.

    Raises:
        ValueError: no paper is called that.
    """
    if paper not in PAPERS:
        raise ValueError(f"no paper is called {paper!r}; there are {', '.join(PAPERS)}")
    return {figure.number: figure for figure in PAPERS[paper].FIGURES}

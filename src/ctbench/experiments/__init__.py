"""The experiments of the papers. Trials are data and run in parallel; figures are computed from their records.

To add a figure, write an `Experiment` and a `Figure` in the file of its paper. `PAPERS` lists these files.
"""

from __future__ import annotations

from types import ModuleType

from ctbench.experiments import generalisation, robust_accuracy
from ctbench.experiments.base import TINY, Experiment, ExperimentScale, Figure, Measures, Trial
from ctbench.experiments.measuring import errors, measure
from ctbench.experiments.running import run

PAPERS: dict[str, ModuleType] = {"generalisation": generalisation, "robust-accuracy": robust_accuracy}

__all__ = [
    "PAPERS",
    "TINY",
    "Experiment",
    "ExperimentScale",
    "Figure",
    "Measures",
    "Trial",
    "errors",
    "figures",
    "measure",
    "run",
]


def figures(paper: str) -> dict[str, Figure]:
    """The figures of a paper by number.

    Raises:
        ValueError: there is no paper with this name.
    """
    if paper not in PAPERS:
        raise ValueError(f"no paper is called {paper!r}; there are {', '.join(PAPERS)}")
    return {figure.number: figure for figure in PAPERS[paper].FIGURES}

"""The experiments of the papers, as data; figures are computed from their records.

There are two kinds of figures. A `Figure` shows an `Experiment`, many trials of small trainings that run in parallel. A
`NetworkFigure` shows quantities of trained networks, which all figures of a scale share. To add a figure, write it in
the file of its paper. `PAPERS` lists these files.
"""

from __future__ import annotations

from types import ModuleType

from ctbench.experiments import ctbench, generalisation, robust_accuracy, sabr, taps
from ctbench.experiments.base import TINY, Experiment, ExperimentScale, Figure, Measures, Trial
from ctbench.experiments.measuring import errors, measure
from ctbench.experiments.network_figures import NetworkFigure
from ctbench.experiments.networks import NetworkOf, Networks
from ctbench.experiments.running import run
from ctbench.experiments.scales import NETWORK_SCALES, NetworkScale

PAPERS: dict[str, ModuleType] = {
    "ctbench": ctbench,
    "generalisation": generalisation,
    "robust-accuracy": robust_accuracy,
    "sabr": sabr,
    "taps": taps,
}

__all__ = [
    "NETWORK_SCALES",
    "PAPERS",
    "TINY",
    "Experiment",
    "ExperimentScale",
    "Figure",
    "Measures",
    "NetworkFigure",
    "NetworkOf",
    "NetworkScale",
    "Networks",
    "Trial",
    "errors",
    "figures",
    "measure",
    "run",
]


def figures(paper: str) -> dict[str, Figure | NetworkFigure]:
    """The figures of a paper by number.

    Raises:
        ValueError: there is no paper with this name.
    """
    if paper not in PAPERS:
        raise ValueError(f"no paper is called {paper!r}; there are {', '.join(PAPERS)}")
    return {figure.number: figure for figure in PAPERS[paper].FIGURES}

"""ctbench: train networks whose robustness can be proved, and prove it."""

from ctbench.domains.bounds import bounds, margin_bounds
from ctbench.regions import Linf
from ctbench.training import Recipe, load_network, load_run, load_weights, train

__all__ = [
    "Linf",
    "Recipe",
    "bounds",
    "load_network",
    "load_run",
    "load_weights",
    "margin_bounds",
    "train",
]

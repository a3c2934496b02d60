"""ctbench: train networks whose robustness can be proved, and prove it.

run = ctbench.train(ctbench.recipe("digits_ibp"))
result = ctbench.certify(run.model, x, y, eps=0.1)
lower, upper = ctbench.bounds(model, x, eps=0.1, domain="crown")
"""

from ctbench.domains.bounds import bounds, margin_bounds
from ctbench.graph import UnsupportedLayerError
from ctbench.memory import keep_freed_memory
from ctbench.recipes import recipe
from ctbench.regions import Linf
from ctbench.results import Certification, SampleRecord, Verdict
from ctbench.training import Recipe, Run, load_network, load_run, load_weights, train
from ctbench.verify import certify

__all__ = [
    "Certification",
    "Linf",
    "Recipe",
    "Run",
    "SampleRecord",
    "UnsupportedLayerError",
    "Verdict",
    "bounds",
    "certify",
    "keep_freed_memory",
    "load_network",
    "load_run",
    "load_weights",
    "margin_bounds",
    "recipe",
    "train",
]

"""ctbench: train networks whose robustness can be proved, and prove it.

run = ctbench.train(ctbench.recipe("digits_ibp"))
result = ctbench.certify(run.model, x, y, Linf(0.1))
lower, upper = ctbench.bounds(model, x, eps=0.1, domain="crown")
model = ctbench.load_onnx("network.onnx")
"""

from importlib.metadata import version

import ctbench.threads  # noqa: F401 (before torch is there)
from ctbench import analyses  # noqa: F401 (a subpackage that users call)
from ctbench.domains.bounds import bounds, margin_bounds
from ctbench.graph import UnsupportedLayerError
from ctbench.memory import keep_freed_memory
from ctbench.onnx import load_onnx, save_onnx
from ctbench.recipes import recipe
from ctbench.regions import L1, L2, Box, FirstCoordinate, Linf, Segments
from ctbench.results import Certification, SampleRecord, StageFailedWarning, Verdict
from ctbench.training import Recipe, Run, load_network, load_run, load_weights, train
from ctbench.verify import Records, certify, read_vnnlib, verify_property, write_robustness

__version__ = version("ctbench")

__all__ = [
    "L1",
    "L2",
    "Box",
    "Certification",
    "FirstCoordinate",
    "Linf",
    "Recipe",
    "Records",
    "Run",
    "SampleRecord",
    "Segments",
    "StageFailedWarning",
    "UnsupportedLayerError",
    "Verdict",
    "__version__",
    "bounds",
    "certify",
    "keep_freed_memory",
    "load_network",
    "load_onnx",
    "load_run",
    "load_weights",
    "margin_bounds",
    "read_vnnlib",
    "recipe",
    "save_onnx",
    "train",
    "verify_property",
    "write_robustness",
]

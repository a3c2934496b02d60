"""The public names of ctbench, each from the module that defines it. `ctbench` gives them as its own."""

from ctbench.domains.bounds import bounds, margin_bounds
from ctbench.graph import UnsupportedLayerError
from ctbench.memory import keep_freed_memory
from ctbench.onnx import load_onnx, save_onnx
from ctbench.recipes import recipe
from ctbench.regions import L1, L2, Box, FirstCoordinate, Linf, Segments
from ctbench.results import Certification, Radii, SampleRecord, StageFailedWarning, Verdict
from ctbench.training import Recipe, Run, load_network, load_run, load_weights, train
from ctbench.tuning import tune
from ctbench.verify import Records, certify, certify_radii, radii, read_vnnlib, verify_property, write_robustness

__all__ = [
    "L1",
    "L2",
    "Box",
    "Certification",
    "FirstCoordinate",
    "Linf",
    "Radii",
    "Recipe",
    "Records",
    "Run",
    "SampleRecord",
    "Segments",
    "StageFailedWarning",
    "UnsupportedLayerError",
    "Verdict",
    "bounds",
    "certify",
    "certify_radii",
    "keep_freed_memory",
    "load_network",
    "load_onnx",
    "load_run",
    "load_weights",
    "margin_bounds",
    "radii",
    "read_vnnlib",
    "recipe",
    "save_onnx",
    "train",
    "tune",
    "verify_property",
    "write_robustness",
]

"""Certification: problems, stages, the cascade that runs them, and VNN-LIB files."""

from ctbench.verify.branch_and_bound import BranchAndBound
from ctbench.verify.cascade import Cascade, Decision
from ctbench.verify.defaults import ALPHA_CROWN, CASCADES, DEFAULT_STAGES, FAST_STAGES, stage_types, stages_by_name
from ctbench.verify.input_split import InputSplit
from ctbench.verify.milp import Milp
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.properties import PropertyResult, property_graph, verify_property
from ctbench.verify.samples import certify
from ctbench.verify.stages import Bound, Falsify, Stage
from ctbench.verify.vnnlib import Property, read_vnnlib, write_property, write_robustness

__all__ = [
    "ALPHA_CROWN",
    "CASCADES",
    "DEFAULT_STAGES",
    "FAST_STAGES",
    "Bound",
    "BranchAndBound",
    "Cascade",
    "Decision",
    "Falsify",
    "Findings",
    "InputSplit",
    "Milp",
    "Problem",
    "Property",
    "PropertyResult",
    "Stage",
    "certify",
    "property_graph",
    "read_vnnlib",
    "stage_types",
    "stages_by_name",
    "verify_property",
    "write_property",
    "write_robustness",
]

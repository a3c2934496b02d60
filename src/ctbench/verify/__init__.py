"""Certification: problems, stages, the cascade that runs them, and properties of VNN-LIB files (`ctbench.vnnlib`)."""

from ctbench.time_budget import Budget
from ctbench.verify.branch_and_bound import BranchAndBound
from ctbench.verify.cascade import Cascade, Decision
from ctbench.verify.certifying import certify
from ctbench.verify.defaults import (
    ALPHA_CROWN,
    CASCADES,
    CTBENCH_STAGES,
    DEFAULT_STAGES,
    FAST_STAGES,
    stage_types,
    stages_by_name,
    timeout_of,
    with_attack,
)
from ctbench.verify.input_split import InputSplit
from ctbench.verify.instances import Instance, decide_instances, read_instances
from ctbench.verify.milp import Milp
from ctbench.verify.nested import certify_radii
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.properties import PropertyResult, verify_property
from ctbench.verify.property_problems import property_graph
from ctbench.verify.radius_search import radii
from ctbench.verify.records import Records
from ctbench.verify.stages import Bound, Falsify, Stage
from ctbench.vnnlib import Property, read_vnnlib, write_property, write_robustness

__all__ = [
    "ALPHA_CROWN",
    "CASCADES",
    "CTBENCH_STAGES",
    "DEFAULT_STAGES",
    "FAST_STAGES",
    "Bound",
    "BranchAndBound",
    "Budget",
    "Cascade",
    "Decision",
    "Falsify",
    "Findings",
    "InputSplit",
    "Instance",
    "Milp",
    "Problem",
    "Property",
    "PropertyResult",
    "Records",
    "Stage",
    "certify",
    "certify_radii",
    "decide_instances",
    "property_graph",
    "radii",
    "read_instances",
    "read_vnnlib",
    "stage_types",
    "stages_by_name",
    "timeout_of",
    "verify_property",
    "with_attack",
    "write_property",
    "write_robustness",
]

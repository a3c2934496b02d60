"""Certification: problems, stages, the cascade that runs them, and VNN-LIB files."""

from ctbench.verify.cascade import Cascade, Decision
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.samples import certify
from ctbench.verify.stages import DEFAULT_STAGES, AlphaCrown, Bound, Falsify, Stage
from ctbench.verify.vnnlib import Property, read_vnnlib, write_property, write_robustness

__all__ = [
    "DEFAULT_STAGES",
    "AlphaCrown",
    "Bound",
    "Cascade",
    "Decision",
    "Falsify",
    "Findings",
    "Problem",
    "Property",
    "Stage",
    "certify",
    "read_vnnlib",
    "write_property",
    "write_robustness",
]

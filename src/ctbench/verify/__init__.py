"""Certification: problems, stages, the cascade that runs them, and VNN-LIB files."""

from ctbench.verify.cascade import certify
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.stages import DEFAULT_STAGES, AlphaCrown, Bound, Falsify, Stage
from ctbench.verify.vnnlib import Property, read_vnnlib, write_property, write_robustness

__all__ = [
    "DEFAULT_STAGES",
    "AlphaCrown",
    "Bound",
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

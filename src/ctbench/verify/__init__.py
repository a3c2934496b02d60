"""Certification: problems, stages, and the cascade that runs them."""

from ctbench.verify.cascade import certify
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.stages import DEFAULT_STAGES, Bound, Falsify, Stage

__all__ = ["DEFAULT_STAGES", "Bound", "Falsify", "Findings", "Problem", "Stage", "certify"]

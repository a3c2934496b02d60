"""Training methods: one paper per file."""

from ctbench.methods.base import Batch, Method, RobustLoss, methods

__all__ = ["Batch", "Method", "RobustLoss", "methods"]

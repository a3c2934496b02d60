"""The error of a domain without a rule for an op."""

from __future__ import annotations

from ctbench.graph import Op, UnsupportedLayerError
from ctbench.graph.ops import BatchNorm


def no_rule(domain: str, op: Op) -> ValueError:
    if isinstance(op, BatchNorm):
        return ValueError("this graph's batch norms have no statistics yet: call freeze(graph, x) first")
    return UnsupportedLayerError(
        f"the {domain} domain has no rule for {type(op).__name__}: make it an Affine or an Elementwise op"
    )

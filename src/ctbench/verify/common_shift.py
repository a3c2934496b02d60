"""The end of a network that adds the same number to all outputs: it changes no margin z_y - z_k, so it is left out.

A log-softmax is x_i - x_0 - log sum_j exp(x_j - x_0): two such numbers. Without them, the last layer is the one before,
which bounds merge with the margins, and the margins of ReLU networks are rational numbers.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ctbench.graph import Graph
from ctbench.graph.ops import Add, AlongAxis, Select


def without_common_shift(graph: Graph) -> Graph:
    """A graph whose outputs have the same differences; the graph itself if no last step adds one number to all."""
    while (kept := _before(graph)) is not None:
        graph = replace(graph, nodes=graph.nodes[: kept + 1])
    return graph


def _before(graph: Graph) -> int | None:
    """The node that the last node adds one number to."""
    last = graph.nodes[-1]
    if isinstance(last.op, AlongAxis) and len(last.shape) == 1 and last.op.weight.shape[0] == last.op.weight.shape[1]:
        weight = last.op.weight
        extra = weight - torch.eye(*weight.shape, dtype=weight.dtype, device=weight.device)
        is_exact = (weight == weight.round()).all()  # 1e-20 - 1 is rounded to -1
        return last.inputs[0] if bool(is_exact & (extra == extra[:1]).all()) else None
    if isinstance(last.op, Add) and len(last.shape) == 1:
        for kept, added in (last.inputs, last.inputs[::-1]):
            op = graph.nodes[added].op
            if isinstance(op, Select) and bool((op.index == op.index[:1]).all()):
                return kept
    return None

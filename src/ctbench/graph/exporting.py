"""A forward that cannot be traced, by torch.export: it runs the forward on tensors, not on proxies.

It is the second choice: it knows only the operators of ATen, and its graph has no layers.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ctbench.graph.functions import READINGS
from ctbench.graph.ops import Shape


def exported(model: nn.Module, shape: Shape, like: Tensor) -> tuple[fx.Graph, nn.Module]:
    """The graph of a forward for batches of any size, and the module that its constants are attributes of.

    Writes into a tensor, such as h[:, 0] = v, become functions of it, such as `torch.select_scatter`. Nodes that do not
    lead to the output, such as checks of shapes, are left out. Raises whatever torch.export raises.
    """
    x = torch.zeros(2, *shape, dtype=like.dtype, device=like.device)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},), strict=False)
    if any(map(_writes, program.graph.nodes)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch copies trees in a way that it has deprecated
            program = program.run_decompositions({})  # the same without writes, whose results nothing uses
    module: Any = program.module()
    graph: fx.Graph = module.graph
    needed = set[fx.Node]()
    for node in reversed(graph.nodes):
        if node.op in ("output", "placeholder") or node in needed:
            needed |= {node, *node.all_input_nodes}
    for node in reversed(graph.nodes):
        if node not in needed:
            graph.erase_node(node)
        elif _writes(node):
            raise ValueError(f"{node.name} ({node.target}) writes into a tensor: compute a new one instead")
    for node in graph.nodes:
        if node.op == "call_function":
            node.target = named(node.target)
    return graph, module


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def named(target: Any) -> Any:
    """The function of torch for an operator of ATen, if there is a reading for it; otherwise the operator."""
    if not isinstance(target, torch._ops.OpOverload):
        return target
    name = target._schema.name.split("::")[1]
    if name == "sym_size":
        return "size"
    for place in (F, torch):
        if getattr(place, name, None) in READINGS:
            return getattr(place, name)
    return name if name in READINGS else target

"""The states of ReLUs whose inputs lie in [l, u], the same in training, in regularisers and in analyses.

    dead: u < 0,    active: l > 0,    unstable: all others

The definition is De Bartolomeis et al. 2023, "How robust accuracy suffers from certified training with convex
relaxations", Eq. (4), and that of Shi et al. 2021 and CTBench. A ReLU with u = 0 or l = 0 is unstable, so each ReLU is
in one state. "Inactive" in papers is "dead" here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ctbench.graph import Graph
from ctbench.graph.ops import ReLU
from ctbench.regions import Box


class ReLUShares(NamedTuple):
    """The shares of ReLUs in each state, scalars in double precision. They sum to 1."""

    dead: Tensor
    active: Tensor
    unstable: Tensor


def relu_inputs(net: Graph, boxes: list[Box]) -> list[Box]:
    """The bounds of the pre-activations of each ReLU layer, from the boxes of every node."""
    return [boxes[node.inputs[0]] for node in net.nodes if isinstance(node.op, ReLU)]


def dead(box: Box) -> Tensor:
    """Where ReLUs of these inputs are 0 on the whole box: 1 there and 0 elsewhere, [B, *node], in the type of the box.

    Floats are made at once, because a CPU sums them faster than truth values.
    """
    upper = box.upper.detach()
    return torch.lt(upper, 0, out=torch.empty_like(upper))


def active(box: Box) -> Tensor:
    """Where ReLUs of these inputs are the identity on the whole box: 1 there and 0 elsewhere, [B, *node]."""
    lower = box.lower.detach()
    return torch.gt(lower, 0, out=torch.empty_like(lower))


def relu_shares(inputs: list[Box]) -> ReLUShares:
    """The shares over samples and neurons of all layers together, from the bounds of at least one layer."""
    count = sum(box.lower.numel() for box in inputs)
    dead_ones, active_ones = (
        torch.stack([state(box).sum().double() for box in inputs]).sum() for state in (dead, active)
    )
    return ReLUShares(dead_ones / count, active_ones / count, (count - dead_ones - active_ones) / count)

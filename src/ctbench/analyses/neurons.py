"""Which hidden neurons can switch? The shares of dead, active and unstable ReLUs.

    unstable = 1 / (m n) sum over samples i and neurons j of [l_j(x_i) <= 0 <= u_j(x_i)]

l, u are bounds of the pre-activation over the region. De Bartolomeis et al., "How robust accuracy suffers from
certified training with convex relaxations", Eq. (4). `ctbench.domains.relu_states` has the definition of all three
states. In the text of the paper a neuron with u = 0 also counts as inactive (dead), and a neuron with l = 0 also as
active. Here both are only unstable, following Eq. (4), so that the shares sum to 1.

The tighter the bounds, the fewer neurons are unstable. The default bounds are CROWN's; `boxes` takes those of other
domains:

    neuron_states(net, region).unstable
    neuron_states(net, region, boxes=coap.boxes(net, region))          # the bounds that COAP trains with
    neuron_states(net, region, boxes=interval.boxes(net, region))      # loose but fast
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ctbench.domains import crown
from ctbench.domains.relu_states import relu_inputs, relu_shares
from ctbench.graph import Graph
from ctbench.precision import full_float32
from ctbench.regions import Box, Region


class NeuronStates(NamedTuple):
    """Shares of the ReLUs, over samples and neurons."""

    dead: float
    active: float
    unstable: float


@full_float32
@torch.no_grad()
def neuron_states(net: Graph, region: Region, boxes: list[Box] | None = None) -> NeuronStates:
    """The shares of dead, active and unstable ReLUs.

    Args:
        net: a frozen graph.
        region: the inputs, for B samples.
        boxes: bounds of every node; None computes them with CROWN.

    Raises:
        ValueError: the network has no ReLU.
    """
    boxes = crown.boxes(net, region) if boxes is None else boxes
    inputs = relu_inputs(net, boxes)
    if not inputs:
        raise ValueError("the network has no ReLU: only ReLUs are counted as dead, active or unstable")
    return NeuronStates(*(float(share) for share in relu_shares(inputs)))

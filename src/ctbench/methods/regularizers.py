"""Terms added to the loss: the regulariser of Shi et al. 2021 ("Fast certified robust training", section 3.4) and L1.

For the pre-activations of ReLU i with bounds l, u over the batch, centre c, radius r, and the mean radius r0 of the
normalised input:

    tightness_i = max(0, tau - r0 / mean(r)) / tau
    relu_i      = (max(0, tau - rho) + max(0, tau - nu)) / tau
    rho         = mean(c [l > 0]) / -mean(c [u < 0]),  nu likewise for the squared distances from mean(c),
                  each ratio or its inverse, whichever is smaller
    R           = sum_i (tightness_i + relu_i) / number of ReLUs,   tau = 1/2
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctbench.domains import relu_states
from ctbench.graph import Affine, Graph
from ctbench.networks import weights
from ctbench.regions import Box

TAU = 0.5
TINY = 1e-12


def shi(graph: Graph, boxes: list[Box]) -> Tensor:
    """The regulariser R (a scalar), from the boxes of every node."""
    mixing = (node for node in graph.nodes if isinstance(node.op, Affine) and node.op.mixes)
    first = next(mixing, graph.nodes[-1])
    input_radius = boxes[first.inputs[0]].radius.mean()
    terms = [_tightness(box, input_radius) + _balance(box) for box in relu_states.relu_inputs(graph, boxes)]
    return torch.stack(terms).mean() if terms else input_radius.new_zeros(())


def _tightness(box: Box, input_radius: Tensor) -> Tensor:
    return (TAU - input_radius / box.radius.mean().clamp(min=TINY)).clamp(min=0) / TAU


def _balance(box: Box) -> Tensor:
    center = box.center
    active, dead = relu_states.active(box), relu_states.dead(box)
    spread = (center - center.mean()).square()
    rho = _ratio((center * active).mean(), -(center * dead).mean())
    nu = _ratio((spread * active).sum(), (spread * dead).sum())
    term = ((TAU - rho).clamp(min=0) + (TAU - nu).clamp(min=0)) / TAU
    # if every neuron is unstable, both ratios are 0/0, and the term is dropped
    return torch.where((active + dead).any(), term, 0.0)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """min(a/b, b/a) for a, b >= 0, with finite gradients where one of them is 0."""
    return torch.minimum(a, b) / torch.maximum(a, b).clamp(min=TINY)


def l1(model: nn.Module) -> Tensor:
    """The sum of |weight| over all weights of a network (a scalar): see `ctbench.networks.weights`.

    Raises:
        ValueError: the network has no weights.
    """
    sums = [weight.values.abs().sum() for weight in weights(model)]
    if not sums:
        raise ValueError(
            "l1 is > 0, but the network has no weights: set l1=0, or let the names of its parameters [out, in, ...] "
            "end in 'weight'"
        )
    return torch.stack(sums).sum()

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

Two analyses count for each input, also for leaky ReLUs and ReLUs with a ceiling:

    utilisation    the share of ReLUs with a positive pre-activation at the input itself
                   (Mao et al. 2024, "CTBench", section 5.3, Figures 4 and 8)
    states         the shares of dead, active and unstable ReLUs by interval boxes, at the input and in the region;
                   also as means over layers of the share in each layer (Müller et al. 2023, SABR, Table 5)

    utilisation(model, x, eps=0.1).mean("utilisation")
    states(model, x, eps=0.1).mean("region: unstable")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from ctbench.analyses.base import Analysis, Part, Where, joined, measurement
from ctbench.domains import crown, interval
from ctbench.domains.relu_states import active, dead, relu_inputs, relu_shares
from ctbench.graph import Graph, Op, walk_forward
from ctbench.graph.graph import Node
from ctbench.graph.ops import PiecewiseLinear
from ctbench.precision import full_float32
from ctbench.regions import Box, Region
from ctbench.results import Layout, Measurement, Measurements


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


def piecewise(net: Graph) -> list[Node]:
    """The nodes of piecewise linear activations. Raises ValueError if there are none."""
    nodes = [node for node in net.nodes if isinstance(node.op, PiecewiseLinear)]
    if not nodes:
        raise ValueError("the network has no ReLU or other piecewise linear activation: no neuron can switch")
    return nodes


def crossed(op: Op, lower: Tensor, upper: Tensor) -> Tensor:
    """Whether a kink of the activation lies inside (l, u), [B, *node] bool. A kink at an end does not count."""
    assert isinstance(op, PiecewiseLinear)
    inside = [(lower < kink) & (kink < upper) for kink in op.kinks]
    return torch.stack(inside).any(0)


def relus(net: Graph) -> list[Node]:
    """The nodes that begin to rise, or rise more, at 0: ReLUs, leaky ReLUs, clamps from 0.

    Raises:
        ValueError: there are none.
    """
    nodes = [node for node in net.nodes if isinstance(node.op, PiecewiseLinear) and _switches_on_at_0(node.op)]
    if not nodes:
        raise ValueError("the network has no ReLU: only ReLUs are counted as dead, active or unstable")
    return nodes


def _switches_on_at_0(op: PiecewiseLinear) -> bool:
    return op.kinks[:1] == (0.0,) and 0 <= op.pieces[0] < op.pieces[1]


def _shares(layers: Sequence[Mapping[str, Tensor]], prefix: str) -> dict[str, Tensor]:
    """Shares [B] of bool tensors [B, *node] by state: over all neurons, over layers, and of each layer."""
    shares = dict[str, Tensor]()
    for state in layers[0]:
        masks = [layer[state].flatten(1).double() for layer in layers]
        means = [mask.mean(1) for mask in masks]
        shares[f"{prefix}{state}"] = torch.cat(masks, dim=1).mean(1)
        shares[f"{prefix}{state}, layers"] = torch.stack(means).mean(0)
        shares |= {f"layer {k}: {prefix}{state}": mean for k, mean in enumerate(means, start=1)}
    return shares


@dataclass(frozen=True, kw_only=True)
class Utilisation(Analysis):
    """The share of ReLUs that are active at the input itself; eps has no effect."""

    name: ClassVar[str] = "utilisation"
    layout: ClassVar[Layout] = Layout(kind="bars", quantities=("utilisation",), label="active neurons (share)")

    def measure(self, part: Part) -> list[Measurement]:
        nodes = relus(part.net)
        parts = [_utilisation(some, nodes) for some in part.split(2 * interval.footprint(part.net, 1))]
        return [measurement(joined(parts))]


def _utilisation(part: Part, nodes: Sequence[Node]) -> dict[str, Tensor]:
    values = walk_forward(part.net, lambda node, *inputs: node.op(*inputs), part.x)
    return _shares([{"utilisation": values[node.inputs[0]] > 0} for node in nodes], "")


@dataclass(frozen=True, kw_only=True)
class States(Analysis):
    """The shares of dead (u < 0), active (l > 0) and unstable ReLUs by interval boxes, at inputs and in regions."""

    name: ClassVar[str] = "states"
    layout: ClassVar[Layout] = Layout(
        kind="bars", quantities=("region: unstable", "region: active"), label="neurons (share)"
    )

    def measure(self, part: Part) -> list[Measurement]:
        nodes = relus(part.net)
        return [measurement(joined([_states(some, nodes) for some in part.split(2 * interval.footprint(part.net, 1))]))]


def _states(part: Part, nodes: Sequence[Node]) -> dict[str, Tensor]:
    shares = dict[str, Tensor]()
    for prefix, region in (("point: ", part.scaled(0.0)), ("region: ", part.region)):
        boxes = interval.boxes(part.net, region)
        shares |= _shares([_masks(boxes[node.inputs[0]]) for node in nodes], prefix)
    return {name: values for name, values in shares.items() if "point: unstable" not in name}  # a pre-activation of 0


def _masks(box: Box) -> dict[str, Tensor]:
    on, off = active(box).bool(), dead(box).bool()
    return {"active": on, "dead": off, "unstable": ~(on | off)}


def utilisation(model: nn.Module, x: Tensor, **where: Unpack[Where]) -> Measurements:
    """The quantity "utilisation": the share of active ReLUs at each input, [N, *shape]; `where` may be empty."""
    if "threat" not in where:
        where.setdefault("eps", 0.0)
    return Utilisation()(model, x, **where)


def states(model: nn.Module, x: Tensor, **where: Unpack[Where]) -> Measurements:
    """The quantities "point: active", "region: unstable" etc. of each input, [N, *shape]; `where` as for `Analysis`."""
    return States()(model, x, **where)

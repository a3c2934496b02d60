"""How fragmented is the loss surface around an input? The share of neurons that switch in the region.

    fragmentation = share of the neurons j with  min_s a_j(x_s) < 0 < max_s a_j(x_s),   s = 1..n
    x_s = clip(x + eps clip(g, -1, 1), 0, 1),   g ~ N(0, I)

a_j is the pre-activation of a ReLU, at any layer and any position of a feature map. Neurons that switch cut the region
into pieces on which the network is linear. Mao et al. 2024, "CTBench", section 5.1 and Figures 3 and 7, with n = 50.

Samples find too few of these neurons, and bounds too many. So the same share is also computed by the boxes of CROWN and
of intervals. For every input

    sampled <= crown <= interval

The claim of the paper is that the three are close for networks of certified training. Other piecewise linear
activations also count; a neuron switches where one of their kinks lies inside. In regions that are not boxes, points
are drawn from the region.

    fragmentation(model, x, eps=0.1).mean("sampled")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from ctbench.analyses.base import Analysis, Part, Where, joined, measurement
from ctbench.analyses.neurons import crossed, piecewise
from ctbench.domains import crown, interval
from ctbench.graph import Graph, walk_forward
from ctbench.graph.graph import Node
from ctbench.regions import Box
from ctbench.results import Layout, Measurement, Measurements


@dataclass(frozen=True, kw_only=True)
class Fragmentation(Analysis):
    """The share of neurons that switch in the region: found by samples, and at most by CROWN and by intervals.

    Args:
        draws: the number of points n.

    Raises:
        ValueError: draws is below 2; when called, if the network has no piecewise linear activation.
    """

    name: ClassVar[str] = "fragmentation"
    layout: ClassVar[Layout] = Layout(kind="bars", quantities=("sampled", "interval"), label="unstable neurons (share)")
    draws: int = 50

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise ValueError(f"draws is {self.draws}: neurons switch between at least 2 points")

    def measure(self, part: Part) -> list[Measurement]:
        nodes = piecewise(part.net)
        front = Graph(part.net.nodes[: max(node.inputs[0] for node in nodes) + 1])
        numbers = crown.footprint(part.net, 1)
        return [measurement(joined([self._shares(some, front, nodes) for some in part.split(numbers)]))]

    def _shares(self, part: Part, front: Graph, nodes: Sequence[Node]) -> dict[str, Tensor]:
        boxes = {
            "sampled": _ranges(front, nodes, self._points(part)),
            "crown": _inputs(crown.boxes(part.net, part.region), nodes),
            "interval": _inputs(interval.boxes(part.net, part.region), nodes),
        }
        switching = {
            name: [crossed(node.op, *bounds).flatten(1) for node, bounds in zip(nodes, ranges, strict=True)]
            for name, ranges in boxes.items()
        }
        shares = {name: torch.cat(layers, dim=1).double().mean(1) for name, layers in switching.items()}
        for name, layers in switching.items():
            shares |= {f"layer {k}: {name}": layer.double().mean(1) for k, layer in enumerate(layers, start=1)}
        return shares

    def _points(self, part: Part) -> Iterator[Tensor]:
        """The points, one for each sample at a time."""
        generator, region = part.generator(), part.region
        for _ in range(self.draws):
            if isinstance(region, Box):
                noise = torch.randn(part.x.shape, generator=generator, dtype=part.x.dtype, device=part.x.device)
                yield region.project(part.x + part.threat.eps * noise.clamp(-1, 1))
            else:
                yield region.sample(1, generator)[0]


def _ranges(front: Graph, nodes: Sequence[Node], points: Iterator[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The smallest and the largest pre-activations at some points, [B, *node] each."""
    lower, upper = list[Tensor](), list[Tensor]()
    for x in points:
        values = walk_forward(front, lambda node, *inputs: node.op(*inputs), x)
        inputs = [values[node.inputs[0]] for node in nodes]
        lower = list(map(torch.minimum, lower, inputs)) if lower else inputs
        upper = list(map(torch.maximum, upper, inputs)) if upper else inputs
    return list(zip(lower, upper, strict=True))


def _inputs(boxes: list[Box], nodes: Sequence[Node]) -> list[tuple[Tensor, Tensor]]:
    return [(boxes[node.inputs[0]].lower, boxes[node.inputs[0]].upper) for node in nodes]


def fragmentation(model: nn.Module, x: Tensor, *, draws: int = 50, **where: Unpack[Where]) -> Measurements:
    """The quantities "sampled", "crown" and "interval": shares of switching neurons around each input, [N, *shape].

    `where` has threat or eps, and seed, as for `Analysis`. Raises ValueError as `Fragmentation` does.
    """
    return Fragmentation(draws=draws)(model, x, **where)

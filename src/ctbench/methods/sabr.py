"""SABR: Müller et al. 2023, "Certified training: small boxes are all you need".

    x'   = argmax over the region of CE(z(x'), y), searched by an attack
    rho  = ratio (u - l) / 2,   [l, u] the region
    loss = the loss of IBP over the box around clamp(x', l + rho, u - rho) with radius rho

No gradient flows through the box. The inner method can be another one; then it is trained on the small box:

    SABR(ratio=0.4)
    SABR(ratio=0.4, inner=TAPS())      # STAPS: Mao et al. 2023, App. B
    SABR(ratio=0.1, shrink=0.8)        # with the shrinking of App. B, Eq. (15)

Use it at small radii, where intervals over the whole region regularise too much: natural accuracy rises as the ratio
falls. Its networks need a tighter verifier than intervals.

Cost: PGD's attack, and IBP's passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ctbench import attacks
from ctbench.graph import Graph
from ctbench.graph.ops import ReLU
from ctbench.methods.adversary import worst_point
from ctbench.methods.base import Batch, Method, RobustLoss, check_shares
from ctbench.methods.ibp import IBP
from ctbench.regions import Box


@dataclass(frozen=True, kw_only=True)
class SABR(Method):
    """A certified method on a small box around an adversarial point.

    If the region is not a box, its hull is used. `correct` and the boxes are those of the small box.

    Args:
        ratio: the radius of the small box, as a share of the radius of the region (coordinate by coordinate).
        inner: the method that computes the loss on the small box.
        attack: the search for its centre. The default is that of App. B: 8 steps of half the radius, ten times smaller
            after the 4th and the 7th step.
        shrink: the factor of the upper bound of unstable ReLUs in interval passes; 1: no shrinking.

    Raises:
        ValueError: ratio or shrink is not in [0, 1].
    """

    name: ClassVar[str] = "sabr"
    ratio: float = 0.4
    inner: Method = field(default_factory=IBP)
    attack: attacks.Attack = field(
        default_factory=lambda: attacks.PGD(steps=8, step_size=0.5, decay_at=(4 / 8, 7 / 8), decay=0.1)
    )
    shrink: float = 1.0

    def __post_init__(self) -> None:
        check_shares(self, "ratio", "shrink")

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        point = worst_point(self.attack, net, batch)
        box = small_box(batch.region.hull, point, self.ratio)
        result = self.inner(shrunk(net, self.shrink), replace(batch, region=box))
        return replace(result, whole=False)


def small_box(box: Box, point: Tensor, ratio: float) -> Box:
    """The box with `ratio` times the radius around a point, [B, *shape], moved so that it lies inside the box."""
    radius = ratio * box.radius
    return Box.around(torch.clamp(point, box.lower + radius, box.upper - radius), radius)


@dataclass(frozen=True)
class ShrunkReLU(ReLU):
    """A ReLU with the interval image [0, factor u] if it is unstable. This is not sound, and only for training."""

    factor: float

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        unstable = (lower <= 0) & (upper > 0)
        return super().image(lower, torch.where(unstable, self.factor * upper, upper))


def shrunk(graph: Graph, factor: float) -> Graph:
    """The graph with shrunk images of unstable ReLUs in interval passes. Its values do not change."""
    if factor == 1:
        return graph
    nodes = (replace(node, op=ShrunkReLU(factor)) if isinstance(node.op, ReLU) else node for node in graph.nodes)
    return Graph(tuple(nodes))

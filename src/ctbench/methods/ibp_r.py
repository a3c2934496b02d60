"""IBP-R: De Palma et al. 2022, "IBP regularization for verified adversarial robustness via branch-and-bound".

    x'   = argmax of CE(z(x'), y) over a region of `scale` times the radius, searched by an attack
    R    = sum over all hidden ReLUs of max(u, 0) max(-l, 0),   [l, u] the interval bounds over the region
    loss = CE(z(x'), y) + weight R

A term of R is twice the area of the triangle to which a verifier relaxes the ReLU, and 0 if the ReLU is stable.

    IBPR(scale=2.1)      # CIFAR-10, eps = 2/255

Use it at small radii, where it is above IBP in natural and in certified accuracy (TAPS, Table 1: CIFAR-10, 2/255); at
8/255 it certifies less. Few ReLUs are unstable, so a verifier has few to split; intervals alone certify little.

Cost: PGD's attack with its forward and backward pass, and IBP's passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ctbench import attacks
from ctbench.domains import interval
from ctbench.graph import Graph
from ctbench.graph.ops import ReLU
from ctbench.methods.adversary import worst_point
from ctbench.methods.base import Batch, Method, RobustLoss, check_weights
from ctbench.regions import Box


@dataclass(frozen=True, kw_only=True)
class IBPR(Method):
    """Adversarial training at a larger radius, with a regulariser that makes ReLUs stable. `correct`: under the attack.

    Args:
        weight: the weight of R, a sum that grows with the network; the default is ctbench's choice.
        scale: the eps of the attack, as a multiple of the eps of the bounds; the paper uses 2.1 for CIFAR-10 at 2/255.
        attack: the search for x'.

    Raises:
        ValueError: weight is not a number >= 0, or scale is not a number > 0; when called, if scale is not 1 and the
            batch has no `region_at`.
    """

    name: ClassVar[str] = "ibp-r"
    weight: float = 0.01
    scale: float = 2.1
    attack: attacks.Attack = field(default_factory=lambda: attacks.PGD(steps=8))

    def __post_init__(self) -> None:
        check_weights(self, "weight")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale of {self.name} is {self.scale}: it is a multiple of eps, give a number > 0")

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        boxes = interval.boxes(net, batch.region)
        logits = net(worst_point(self.attack, net, batch, batch.scaled(self.scale)))
        loss = F.cross_entropy(logits, batch.y, reduction="none") + self.weight * instability(net, boxes)
        return RobustLoss(loss, correct=logits.argmax(1) == batch.y, boxes=boxes)


def instability(graph: Graph, boxes: list[Box]) -> Tensor:
    """R for each sample, [B], from the boxes of every node."""
    inputs = (boxes[node.inputs[0]] for node in graph.nodes if isinstance(node.op, ReLU))
    terms = ((F.relu(box.upper) * F.relu(-box.lower)).flatten(1).sum(1) for box in inputs)
    return sum(terms, start=boxes[0].lower.new_zeros(len(boxes[0].lower)))

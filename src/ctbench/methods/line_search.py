"""Adversarial training by line search: De Bartolomeis et al. 2023, "How robust accuracy suffers from certified training
with convex relaxations", App. A.2, and "Certified defences can hurt generalisation", App. D.1.

    loss = CE(z(x'), y),   x' = argmax over the segments of CE(z(x'), y), found exactly; no gradient through x'

Use it as adversarial training for threat models of segments (`FirstCoordinate`, `Segments`, `RandomSegments`). There
the worst point can be computed exactly: no attack finds a larger loss. The exact search needs affine layers and
piecewise linear activations such as ReLU; for other networks, and for large ones, set `attack` to a search on grids.

Cost: on each segment, the layers before the first activation at both ends, and the later layers at the breakpoints of
the activations before them, about one per neuron that changes sign; on grids, a forward pass for each point. Then one
forward and one backward pass, and the clean forward pass that computes the statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from ctbench import attacks
from ctbench.attacks.exact_line_search import worst_on_segments
from ctbench.graph import Graph
from ctbench.methods.adversary import worst_point
from ctbench.methods.base import Batch, Method, RobustLoss


@dataclass(frozen=True, kw_only=True)
class LineSearchTraining(Method):
    """Adversarial training on segments: the loss at their worst point.

    Args:
        attack: a search for x' on grids; None: the exact search.
    """

    name: ClassVar[str] = "line-search"
    attack: attacks.LineSearch | None = None

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        if self.attack is None:
            worst = worst_on_segments(net, batch.region, batch.y)
        else:
            worst = worst_point(self.attack, net, batch)
        logits = net(worst)
        loss = F.cross_entropy(logits, batch.y, reduction="none")
        return RobustLoss(loss, correct=logits.argmax(1) == batch.y)

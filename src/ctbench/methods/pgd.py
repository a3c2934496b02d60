"""Adversarial training with PGD: Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks".

    loss = CE(z(x'), y),   x' = argmax over the region of CE(z(x'), y), searched by PGD; no gradient through x'

Use it as the reference for natural and adversarial accuracy. Almost nothing can be certified for its networks.

Cost, with S steps and R restarts: R (S + 1) forward passes and R S gradients of the input for the attack, then one
forward and one backward pass, and the clean forward pass that computes the statistics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F

from ctbench import attacks
from ctbench.graph import Graph
from ctbench.methods.base import Batch, Method, RobustLoss
from ctbench.specification import cross_entropy_at


@dataclass(frozen=True, kw_only=True)
class PGD(Method):
    """Adversarial training: the loss at the worst point that PGD finds.

    Args:
        attack: the search for x'.
    """

    name: ClassVar[str] = "pgd"
    attack: attacks.Attack = field(default_factory=attacks.PGD)

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        objective = cross_entropy_at(net.detach(), batch.y)
        logits = net(self.attack(objective, batch.region, batch.x, batch.generator))
        loss = F.cross_entropy(logits, batch.y, reduction="none")
        return RobustLoss(loss, correct=logits.argmax(1) == batch.y)

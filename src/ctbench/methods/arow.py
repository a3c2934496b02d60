"""ARoW: Yang et al. 2023, "Improving adversarial robustness by putting more regularizations on less robust samples".

With p the softmax of the logits, and x' = argmax over the region of KL(p(x) || p(x')), searched by an attack:

    loss = CE of z(x) to the smoothed label + 2 weight KL(p(x) || p(x')) (1 - p_y(x'))

Use it as a comparison from adversarial training: less robust samples have a larger weight.

Cost: the cost of PGD, and a backward pass through the clean forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ctbench import attacks
from ctbench.attacks import Objective
from ctbench.graph import Graph
from ctbench.methods.base import Batch, Method, RobustLoss, check_shares, check_weights


@dataclass(frozen=True, kw_only=True)
class ARoW(Method):
    """Clean training with a regulariser that has most weight on samples where the adversary succeeds.

    Args:
        weight: the weight of the regulariser, lambda in the paper: 3.5 for CIFAR-10.
        smoothing: the probability that label smoothing distributes among all K classes.
        attack: the search for x'; it maximises the divergence, not the cross-entropy.

    Raises:
        ValueError: weight is not a number >= 0, or smoothing not in [0, 1].
    """

    name: ClassVar[str] = "arow"
    weight: float = 3.5
    smoothing: float = 0.2
    attack: attacks.Attack = field(default_factory=attacks.PGD)

    def __post_init__(self) -> None:
        check_shares(self, "smoothing")
        check_weights(self, "weight")

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        clean = batch.logits.log_softmax(1)
        objective = _divergence_at(net.detach(), clean.detach())
        attacked = net(self.attack(objective, batch.region, batch.x, batch.generator)).log_softmax(1)
        vulnerability = 1 - attacked.gather(1, batch.y.unsqueeze(1)).squeeze(1).exp()
        natural = F.cross_entropy(batch.logits, batch.y, reduction="none", label_smoothing=self.smoothing)
        loss = natural + 2 * self.weight * _divergence(clean, attacked) * vulnerability
        return RobustLoss(loss, correct=attacked.argmax(1) == batch.y)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of two distributions, given as logarithms, [B, K] to [B]."""
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def _divergence_at(net: Graph, clean: Tensor) -> Objective:
    """The divergence from the clean predictions, as the objective of an attack: points [R, B, *shape] to [R, B]."""

    def objective(points: Tensor) -> Tensor:
        attacked = net(points.flatten(0, 1)).log_softmax(1)
        return _divergence(clean.repeat(len(points), 1), attacked).view(points.shape[:2])

    return objective

"""MART: Wang et al. 2020, "Improving adversarial robustness requires revisiting misclassified examples", Eq. (11).

With p the softmax of the logits, and x' found by an attack on CE(z(x'), y):

    loss = -log p_y(x') - log(1 - max_{k != y} p_k(x')) + weight KL(p(x) || p(x')) (1 - p_y(x))

Use it as a comparison from adversarial training: samples that are misclassified without an attack have a larger weight.

Cost: the cost of PGD, and a backward pass through the clean forward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ctbench import attacks
from ctbench.graph import Graph
from ctbench.methods.adversary import worst_point
from ctbench.methods.base import Batch, Method, RobustLoss, check_weights


@dataclass(frozen=True, kw_only=True)
class MART(Method):
    """Adversarial training with a boosted cross-entropy, and a consistency term for uncertain clean predictions.

    Args:
        weight: the weight of the consistency term, lambda in the paper; the authors use 5 for ResNet-18.
        attack: the search for x'.

    Raises:
        ValueError: weight is not a number >= 0.
    """

    name: ClassVar[str] = "mart"
    weight: float = 5.0
    attack: attacks.Attack = field(default_factory=attacks.PGD)

    def __post_init__(self) -> None:
        check_weights(self, "weight")

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        y, attacked = batch.y, net(worst_point(self.attack, net, batch))
        clean, adversarial = batch.logits.log_softmax(1), attacked.log_softmax(1)
        doubt = 1 - _of(clean, y).exp()
        inconsistency = F.kl_div(adversarial, clean, reduction="none", log_target=True).sum(1)
        loss = boosted_cross_entropy(attacked, y) + self.weight * inconsistency * doubt
        return RobustLoss(loss, correct=attacked.argmax(1) == y)


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log p_y - log(1 - p_k), k the most probable wrong class, [B]; finite for any logits [B, K]."""
    total, here = logits.logsumexp(1), y.unsqueeze(1)
    strongest = logits.scatter(1, here, -math.inf).argmax(1, keepdim=True)
    rest = logits.scatter(1, strongest, -math.inf).logsumexp(1)  # 1 - p_k is the sum of the other probabilities
    return (total - _of(logits, y)) + (total - rest)


def _of(values: Tensor, y: Tensor) -> Tensor:
    """The value at the label, [B, K] to [B]."""
    return values.gather(1, y.unsqueeze(1)).squeeze(1)

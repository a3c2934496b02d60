"""EDAC: M. Zhang et al. 2023, "Generating less certain adversarial examples improves robust generalization".

Adversarial training with an extra gradient step before each step, which makes the network less certain of its
predictions at adversarial points. With x' found by an attack, and std over the K logits (unbiased):

    first    a step on   size * mean over the batch of std(z(x'))
    then     a step on   CE(z(x''), y),   x'' found by a new attack on the network after the first step

Use it if only adversarial accuracy matters: it is above PGD in CTBench's tables, but as little can be certified.

Cost: twice the cost of PGD, because everything is computed again after the first step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ctbench import attacks
from ctbench.graph import Graph
from ctbench.methods.adversary import worst_point
from ctbench.methods.base import Batch, Method, RobustLoss, check_weights
from ctbench.methods.pgd import PGD


@dataclass(frozen=True, kw_only=True)
class EDAC(Method):
    """Adversarial training that first decreases adversarial certainty.

    Args:
        size: the factor of the certainty; CTBench uses 0.3.
        attack: the search for both points.

    Raises:
        ValueError: size is not a number >= 0.
    """

    name: ClassVar[str] = "edac"
    size: float = 0.3
    attack: attacks.Attack = field(default_factory=attacks.PGD)

    def __post_init__(self) -> None:
        check_weights(self, "size")

    def prelude(self, net: Graph, batch: Batch) -> Tensor:
        logits = net(worst_point(self.attack, net, batch))
        return self.size * logits.std(dim=1).mean()

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        return PGD(attack=self.attack)(net, batch)

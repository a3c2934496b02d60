"""MTL-IBP, CC-IBP, Exp-IBP: De Palma et al. 2024, "Expressive losses for verified robustness via convex combinations".

With m the interval bounds of the margins over the region, and m' the margins at an adversarial point x':

    L(m)    = log(1 + sum_k exp(-m_k))
    MTL-IBP   alpha L(m) + (1 - alpha) L(m')
    CC-IBP    L(alpha m + (1 - alpha) m')
    Exp-IBP   L(m)^alpha L(m')^(1 - alpha)

Each interpolates between adversarial training (alpha = 0) and IBP (alpha = 1). The region of the attack may be larger
than the region of the bounds:

    MTLIBP(alpha=0.01, attack_scale=2.0)      # CTBench on CIFAR-10, eps = 2/255

Use MTL-IBP to trade natural and adversarial accuracy against certified accuracy with a single number, alpha: small at
small radii, about 1/2 at large radii. Its networks need a tighter verifier than intervals.

Cost: IBP's passes, and PGD's attack (one step suffices in CTBench) with its forward and backward pass.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ctbench import attacks
from ctbench.domains import interval
from ctbench.graph import Graph
from ctbench.methods.adversary import worst_point
from ctbench.methods.base import Batch, Method, RobustLoss, check_shares
from ctbench.specification import margin_rows, margins, robust_cross_entropy

LEAST = 1e-12  # a loss below this has no gradient in Exp-IBP: the gradient of a power of 0 would be infinite


@dataclass(frozen=True, kw_only=True)
class ExpressiveLoss(Method):
    """A loss between adversarial training and IBP. `correct`: right under the attack.

    Args:
        alpha: the share of IBP; the paper uses 0.5 for CIFAR-10 at 8/255.
        attack: the search for x'; by default one step that crosses the whole region.
        attack_scale: the eps of the attack, as a multiple of the eps of the bounds.

    Raises:
        ValueError: alpha is not in [0, 1], or attack_scale not a positive number; when called, if attack_scale is not 1
            and the batch has no `region_at`.
    """

    alpha: float = 0.5
    attack: attacks.Attack = field(default_factory=lambda: attacks.PGD(steps=1))
    attack_scale: float = 1.0

    def __post_init__(self) -> None:
        check_shares(self, "alpha")
        if not 0 < self.attack_scale < math.inf:
            raise ValueError(f"attack_scale is {self.attack_scale}: it is a multiple of eps, give a number > 0")

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        boxes = interval.boxes(net, batch.region)
        spec = margin_rows(batch.y, net.classes, dtype=batch.x.dtype)
        bounds = interval.lower_bounds(net, batch.region, spec, inner=boxes)
        point = worst_point(self.attack, net, batch, batch.scaled(self.attack_scale))
        attacked = margins(net(point), batch.y)
        return RobustLoss(self.mix(bounds, attacked), correct=(attacked > 0).all(1), boxes=boxes)

    @abstractmethod
    def mix(self, bounds: Tensor, attacked: Tensor) -> Tensor:
        """The loss [B], from the bounds of the margins and the margins at the adversarial points, both [B, K-1]."""


@dataclass(frozen=True, kw_only=True)
class MTLIBP(ExpressiveLoss):
    """The convex combination of both losses."""

    name: ClassVar[str] = "mtl-ibp"

    def mix(self, bounds: Tensor, attacked: Tensor) -> Tensor:
        return self.alpha * robust_cross_entropy(bounds) + (1 - self.alpha) * robust_cross_entropy(attacked)


@dataclass(frozen=True, kw_only=True)
class CCIBP(ExpressiveLoss):
    """The loss of the convex combination of the margins."""

    name: ClassVar[str] = "cc-ibp"

    def mix(self, bounds: Tensor, attacked: Tensor) -> Tensor:
        return robust_cross_entropy(self.alpha * bounds + (1 - self.alpha) * attacked)


@dataclass(frozen=True, kw_only=True)
class ExpIBP(ExpressiveLoss):
    """The convex combination of the logarithms of both losses."""

    name: ClassVar[str] = "exp-ibp"

    def mix(self, bounds: Tensor, attacked: Tensor) -> Tensor:
        certified, adversarial = (robust_cross_entropy(m).clamp(min=LEAST) for m in (bounds, attacked))
        return certified**self.alpha * adversarial ** (1 - self.alpha)

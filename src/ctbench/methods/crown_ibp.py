"""CROWN-IBP: Zhang et al. 2020, "Towards stable and efficient training of verifiably robust neural networks"; its loss
fusion: Xu et al. 2020, "Automatic perturbation analysis for scalable certified robustness and beyond", section 3.3.

    m_k  = beta (CROWN-IBP bound of z_y - z_k) + (1 - beta) (interval bound)
    loss = log(1 + sum_k exp(-m_k))

With `fused`, one form is bounded instead of K - 1. On the interval bounds [l_k, u_k] of a margin, exp(-m) is below its
chord a_k - c_k m. So with the bound B, mixed in the same way, of the single form sum_k c_k (z_y - z_k)

    loss = log(1 + sum_k a_k - B),   c_k = (exp(-l_k) - exp(-u_k)) / (u_k - l_k),   a_k = exp(-l_k) + c_k l_k

computed with the largest exponent factored out, so that nothing overflows. beta falls from 1 to 0 in the training of
Zhang et al., and is always 1 in CTBench.

Use it at small radii, where its tighter bounds pay off: in CTBench's tables it certifies more than IBP on CIFAR-10 at
2/255 and on TinyImageNet, but less on CIFAR-10 at 8/255.

Cost: IBP's passes, and a backward pass of one linear form per sample (K - 1 if not fused) through the network, with its
gradient. With every_layer, a step is about 1/8 slower.

    CrownIBP()                  # fused
    CrownIBP(fused=False, beta=0.5)
    CrownIBP(every_layer=True)  # with the best bound over all layers, like CTBench
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.domains import crown_ibp, interval
from ctbench.graph import Graph
from ctbench.methods.base import Batch, Method, RobustLoss, check_shares
from ctbench.regions import Box, Region
from ctbench.specification import margin_rows, robust_cross_entropy

NARROW = 1e-6  # below this width, the chord of exp is replaced by its tangent


@dataclass(frozen=True, kw_only=True)
class CrownIBP(Method):
    """The loss of one backward pass over interval bounds.

    With `fused`, a sample counts as correct if the interval bounds or a loss below log 2 prove it; otherwise, if all
    margins are positive.

    Args:
        fused: bound the sum of the exponentials as one form (a K - 1 times smaller pass) instead of every margin.
        beta: the share of the CROWN-IBP bound; 0 skips the backward pass.
        every_layer: bound a form with the boxes of every layer on its way back and keep the best bound, instead of only
            the bound at the input; the result is then never below the interval bound.

    Raises:
        ValueError: beta is not in [0, 1].
    """

    name: ClassVar[str] = "crown-ibp"
    fused: bool = True
    beta: float = 1.0
    every_layer: bool = False

    def __post_init__(self) -> None:
        check_shares(self, "beta")

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        boxes = interval.boxes(net, batch.region)
        spec = margin_rows(batch.y, net.classes, dtype=batch.x.dtype)
        if not self.fused:
            margins = self._bounds(net, batch.region, spec, boxes)
            return RobustLoss(robust_cross_entropy(margins), correct=(margins > 0).all(1), boxes=boxes)
        lower, upper = margin_box(net, batch.region, spec, boxes)
        shift = (-lower.detach()).amax(1, keepdim=True).clamp(min=0)  # [B, 1], the largest exponent
        slope = chord(lower, upper, shift)
        form = (slope.unsqueeze(2) * spec).sum(1, keepdim=True)  # [B, 1, K]
        bound = self._bounds(net, batch.region, form, boxes)
        loss = fused_cross_entropy(lower, upper, shift, bound.squeeze(1))
        return RobustLoss(loss, correct=(lower > 0).all(1) | (loss < math.log(2)), boxes=boxes)

    def _bounds(self, net: Graph, region: Region, spec: Tensor, boxes: list[Box]) -> Tensor:
        """Lower bounds of the forms [B, S, K], a mixture of both kinds, [B, S]."""
        if self.beta == 0:
            return interval.lower_bounds(net, region, spec, inner=boxes)
        backward = crown_ibp.CrownIBP(every_layer=self.every_layer).lower_bounds(net, region, spec, inner=boxes)
        if self.beta == 1:
            return backward
        bounds = interval.lower_bounds(net, region, spec, inner=boxes)
        return self.beta * backward + (1 - self.beta) * bounds  # under bfloat16 the two have different types


def margin_box(net: Graph, region: Region, spec: Tensor, boxes: list[Box]) -> tuple[Tensor, Tensor]:
    """Lower and upper interval bounds of the margins, [B, K-1] each."""
    both = interval.lower_bounds(net, region, torch.cat([spec, -spec], dim=1), inner=boxes)
    lower, negative = both.chunk(2, dim=1)
    return lower, -negative


def chord(lower: Tensor, upper: Tensor, shift: Tensor) -> Tensor:
    """c_k exp(-shift): minus the slope of the chord of exp(-m) on [l, u], scaled, [B, K-1]."""
    width = upper - lower
    wide = width > NARROW
    # (1 - exp(-w)) / w; dividing by 1 where w is 0 keeps NaN out of the gradients
    relative = torch.where(wide, -torch.expm1(-width) / torch.where(wide, width, 1.0), 1 - width / 2)
    return (-lower - shift).exp() * relative


def fused_cross_entropy(lower: Tensor, upper: Tensor, shift: Tensor, bound: Tensor) -> Tensor:
    """log(1 + sum_k a_k - B), [B], from bounds of the margins [B, K-1] and B exp(-shift), [B]."""
    slope = chord(lower, upper, shift)
    total = (-shift).exp().squeeze(1) + ((-lower - shift).exp() + slope * lower).sum(1) - bound
    # if a small difference of large numbers is lost in rounding, the loss is at least that of the upper bounds
    least = robust_cross_entropy(upper)
    loss = total.clamp(min=torch.finfo(total.dtype).tiny).log() + shift.squeeze(1)
    return torch.maximum(loss, least)

"""TAPS: Mao et al. 2023, "Connecting certified and adversarial training".

The network is cut in two. Intervals bound the input [l, u] of the back part, the classifier. An attack searches [l, u]:

    p_k    = argmax over [l, u] of z_k - z_y, for every wrong class k;  m_k = z_y - z_k at p_k
    L_TAPS = log(1 + sum_k exp(-m_k))
    loss   = mean(L_TAPS) mean(L_IBP)                                            (App. A, Algorithm 1)
    its gradient = scale mean(L_IBP) grad mean(L_TAPS) + mean(L_TAPS) grad mean(L_IBP)

with L_IBP the interval loss over the same region. The gradient connector (connector.py) carries gradients to [l, u].

    TAPS(classifier_relus=1, scale=5)
    SABR(ratio=0.4, inner=TAPS())      # STAPS

The paper writes the gradient as 2/(1 + w) times this one, with w = scale: the same direction in another length. Its
ablation (Tables 7 and 12), by w:

    TAPS(scale=w)                            # w = 1, 5, 10, ...; w = 0: mean(L_TAPS) grad mean(L_IBP) alone
    TAPS(scale=2, ibp_gradient=False)        # w = infinity: 2 mean(L_IBP) grad mean(L_TAPS)
    TAPS(product=False)                      # L_TAPS alone

Use it, or STAPS, for the highest certified accuracy. The attack underestimates the loss in the classifier, so its
networks need a tighter verifier than intervals. More ReLUs in the classifier regularise less.

Cost: IBP's passes, and in the classifier, with S steps and R restarts of an attack, R (S + 1) forward passes of K - 1
points per sample and R S gradients; STAPS adds PGD's attack.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ctbench import attacks
from ctbench.attacks import Objective
from ctbench.domains import interval
from ctbench.graph import Graph, place_of_cut, split
from ctbench.methods.base import Batch, Method, RobustLoss, check_shares, check_weights
from ctbench.methods.connector import connect
from ctbench.regions import Box
from ctbench.specification import margin_rows, robust_cross_entropy


@dataclass(frozen=True, kw_only=True)
class TAPS(Method):
    """Intervals through the front of the network, an attack in its back. `correct`: under the attack, so not sound.

    Args:
        classifier_relus: the number of consecutive ReLUs (or other activations) in the classifier. The classifier
            starts at the first node that all branches pass through and that has this many activations after it: the
            output of the ReLU before.
        scale: the weight of the gradient of L_TAPS in the product, w_TAPS in the paper.
        product: multiply by L_IBP; otherwise the loss is L_TAPS alone, without `scale`.
        ibp_gradient: let gradients flow through the factor L_IBP of the product; otherwise it only weights the batch.
        connector: the c of the gradient connector.
        multi_estimator: search a point for each wrong class; otherwise one point with the largest cross-entropy.
        attack: the search in the latent box. The paper does not describe it; steps, restarts and decay are CTBench's.

    Raises:
        ValueError: connector is not in [0, 1], or scale or classifier_relus is negative; when called, if the network
            cannot be cut there.
    """

    name: ClassVar[str] = "taps"
    classifier_relus: int = 1
    scale: float = 5.0
    product: bool = True
    ibp_gradient: bool = True
    connector: float = 0.5
    multi_estimator: bool = True
    attack: attacks.Attack = field(
        default_factory=lambda: attacks.PGD(steps=10, restarts=3, step_size=0.4, decay_at=(0.7,), decay=0.2)
    )

    def __post_init__(self) -> None:
        check_shares(self, "connector")
        check_weights(self, "scale")
        if self.classifier_relus < 0:
            raise ValueError(f"classifier_relus is {self.classifier_relus}: it is a number of layers, at least 0")

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        boxes = interval.boxes(net, batch.region)
        margins = self.margins(net, batch, boxes)
        loss = robust_cross_entropy(margins)
        if self.product:
            spec = margin_rows(batch.y, net.classes, dtype=batch.x.dtype)
            ibp = robust_cross_entropy(interval.lower_bounds(net, batch.region, spec, inner=boxes)).mean()
            loss = gradient_scaled(loss, self.scale) * (ibp if self.ibp_gradient else ibp.detach())
        return RobustLoss(loss, correct=(margins > 0).all(1), boxes=boxes)

    def margins(self, net: Graph, batch: Batch, boxes: list[Box] | None = None) -> Tensor:
        """The margins m_k [B, K-1] of the classifier at the worst points that the attack finds in its input box.

        Args:
            net: a frozen graph.
            batch: the samples, their labels and regions.
            boxes: the interval boxes of all nodes; None computes them.
        """
        at = place_of_cut(net, self.classifier_relus)
        box = (interval.boxes(net, batch.region) if boxes is None else boxes)[at]
        back, spec = split(net, at)[1], margin_rows(batch.y, net.classes, dtype=batch.x.dtype)
        # [B, N, M, K]: N points per sample, and M margins at each point
        rows = spec.unsqueeze(2) if self.multi_estimator else spec.unsqueeze(1)
        samples = torch.arange(len(rows), device=spec.device).repeat_interleave(rows.shape[1])
        latent = Box(box.lower.detach(), box.upper.detach()).take(samples)
        points = self.attack(_loss_at(back.detach(), rows.flatten(0, 1)), latent, latent.center, batch.generator)
        points = connect(points.unflatten(0, rows.shape[:2]), box, self.connector)
        return _margins(back, points.flatten(0, 1), rows.flatten(0, 1)).view(spec.shape[:2])


def gradient_scaled(value: Tensor, scale: float) -> Tensor:
    """The same value with `scale` times its gradient."""
    return value.detach() + scale * (value - value.detach())


def _margins(net: Graph, points: Tensor, rows: Tensor) -> Tensor:
    """The values [N, M] of M linear forms of the output, [N, M, K], at N points, [N, *shape]."""
    return (net(points).unsqueeze(1) * rows).sum(2)


def _loss_at(net: Graph, rows: Tensor) -> Objective:
    """log sum exp(-m) over the margins of each point: points [R, N, *shape] to [R, N].

    It grows with the cross-entropy, and is -m for one margin; neither its values nor its gradients vanish for large m.
    """

    def objective(points: Tensor) -> Tensor:
        margins = _margins(net, points.flatten(0, 1), rows.repeat(len(points), 1, 1))
        return (-margins).logsumexp(dim=1).view(points.shape[:2])

    return objective

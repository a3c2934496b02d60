"""COAP training: Wong & Kolter 2018, "Provable defenses against adversarial examples via the convex outer adversarial
polytope"; with random projections Wong et al. 2018, "Scaling provable adversarial defenses".

    loss = log(1 + sum_k exp(-m_k)),   m_k = the dual bound J of z_y - z_k over the region (domains/coap.py)

For l-infinity and l2 balls, and for the segments of "How robust accuracy suffers from certified training with convex
relaxations" (App. A.2) and "Certified defences can hurt generalisation" (Theorem 4.1): the loss depends on the region
only through its support function.

Use it against l2 balls and at small radii, where it is the best of the relaxations in those papers. At larger radii its
relaxation costs more accuracy than intervals.

Cost: a backward pass for every hidden neuron, K - 1 for the margins, and their gradient; with r projections, r forward
passes of a sketch instead of the backward passes of the neurons.

    COAP()                     # exact
    COAP(projections=50)       # an estimate of the same loss; not a proof during training
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ctbench.domains import coap
from ctbench.graph import Graph
from ctbench.methods.base import Batch, Method, RobustLoss
from ctbench.specification import margin_rows, robust_cross_entropy


@dataclass(frozen=True, kw_only=True)
class COAP(Method):
    """The loss of the dual bounds. Without projections, correct samples are certified.

    Args:
        projections: the number of random sums that estimate the radii of the hidden layers; None computes the radii
            exactly. Projections need a box, or an l2 ball without a data range.

    Raises:
        ValueError: projections is below 1; when called, if projections do not support the region.
    """

    name: ClassVar[str] = "coap"
    projections: int | None = None

    def __post_init__(self) -> None:
        if self.projections is not None and self.projections < 1:
            raise ValueError(f"projections is {self.projections}: give at least 1, or None for exact bounds")

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        domain = coap.COAP(projections=self.projections, generator=batch.generator)
        boxes = domain.boxes(net, batch.region)
        spec = margin_rows(batch.y, net.classes, dtype=batch.x.dtype)
        margins = domain.lower_bounds(net, batch.region, spec, inner=boxes)
        sound = boxes if self.projections is None else None
        return RobustLoss(robust_cross_entropy(margins), correct=(margins > 0).all(1), boxes=sound)

"""IBP training: Gowal et al. 2018, "On the effectiveness of interval bound propagation for training verifiably robust
models"; recipes add the initialisation and the regulariser of Shi et al. 2021.

    loss = log(1 + sum_k exp(-m_k)),   m_k = interval lower bound of z_y - z_k over the region

Use it first: it is the cheapest certified method, and intervals alone certify its networks in seconds. At large radii
it is about as good as any other method. At small radii it loses natural accuracy that others keep.

Cost: the clean forward pass, and one forward and one backward pass each for the centres and the radii of the boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ctbench.domains import interval
from ctbench.graph import Graph
from ctbench.methods.base import Batch, Method, RobustLoss
from ctbench.specification import margin_rows, robust_cross_entropy


@dataclass(frozen=True, kw_only=True)
class IBP(Method):
    """Interval bound propagation: the loss of the interval bounds over the region."""

    name: ClassVar[str] = "ibp"

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        boxes = interval.boxes(net, batch.region)
        spec = margin_rows(batch.y, net.classes, dtype=batch.x.dtype)
        margins = interval.lower_bounds(net, batch.region, spec, inner=boxes)
        return RobustLoss(robust_cross_entropy(margins), correct=(margins > 0).all(1), boxes=boxes)

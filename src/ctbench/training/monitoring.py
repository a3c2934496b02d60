"""What a run tells of itself: weighted means, and what the boxes of a step say about the network.

ibp_accuracy      the share of samples whose margins are positive by interval bounds over the whole region: a sound
                  certificate (but for rounding), unlike the method's own estimate
active_relus      the share of ReLUs with l > 0, over samples and neurons
dead_relus        the share with u <= 0;  unstable_relus: that of all others
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ctbench.domains import interval
from ctbench.graph import Graph
from ctbench.graph.ops import ReLU
from ctbench.methods.base import Batch, RobustLoss
from ctbench.regions import Box
from ctbench.specification import margin_rows


class Means:
    """Weighted means of named quantities, each over the times that it was given."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.weights: dict[str, float] = {}

    def add(self, weight: float, quantities: Mapping[str, Tensor]) -> None:
        for name, value in quantities.items():
            self.totals[name] = self.totals.get(name, 0.0) + weight * value.detach().double()
            self.weights[name] = self.weights.get(name, 0.0) + weight

    def values(self) -> dict[str, Tensor]:
        return {name: total / self.weights[name] for name, total in self.totals.items()}

    def read(self) -> dict[str, float]:
        """The means as numbers, for which Python waits once."""
        return dict(zip(self.totals, torch.stack(list(self.values().values())).tolist(), strict=True))


class Finite:
    """Whether all losses and gradients of some steps were finite. Only to ask `first` waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self.steps: list[Tensor] = []  # [2] each
        self.broken = torch.zeros((), device=device)  # 1 from the first step on that is not finite

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Note the loss of a step and the norm of its gradient, of no dimension each."""
        self.steps.append(torch.stack([loss.double(), norm.double()]))
        self.broken = torch.maximum(self.broken, (~torch.isfinite(self.steps[-1])).any().to(self.broken))

    def first(self) -> tuple[int, float, float] | None:
        """The number of the first step that was not finite, counted from 0, with its loss and its norm."""
        found = torch.stack(self.steps).tolist() if self.steps else []
        return next(
            ((number, loss, norm) for number, (loss, norm) in enumerate(found) if not math.isfinite(loss + norm)), None
        )


@torch.no_grad()
def bound_statistics(net: Graph, batch: Batch, robust: RobustLoss) -> dict[str, Tensor]:
    """What there is to say about a batch from the boxes that the method has computed; nothing without boxes.

    The accuracy is left out where the boxes are those of a part of the region, as SABR's: it would not be sound. Boxes
    that begin with the region's own hull are not looked at, as that would wait for the device.
    """
    boxes = robust.boxes
    if boxes is None:
        return {}
    found = _relus([boxes[node.inputs[0]] for node in net.nodes if isinstance(node.op, ReLU)])
    if robust.whole and _covers(boxes[0], batch.region.hull):
        spec = margin_rows(batch.y, net.classes, dtype=batch.x.dtype)
        margins = interval.lower_bounds(net, batch.region, spec, inner=boxes)
        found["ibp_accuracy"] = (margins > 0).all(1).double().mean()
    return found


def _relus(boxes: list[Box]) -> dict[str, Tensor]:
    if not boxes:
        return {}
    count = sum(box.lower.numel() for box in boxes)
    active = torch.stack([_positive(box.lower) for box in boxes]).sum() / count
    dead = 1 - torch.stack([_positive(box.upper) for box in boxes]).sum() / count
    return {"active_relus": active, "dead_relus": dead, "unstable_relus": 1 - active - dead}


def _positive(values: Tensor) -> Tensor:
    """The number of positive values. On a CPU, floats are summed faster than truth values."""
    return torch.gt(values, 0, out=torch.empty_like(values)).sum()


def _covers(box: Box, region: Box) -> bool:
    return box is region or bool((box.lower <= region.lower).all() & (box.upper >= region.upper).all())

"""The metrics of a run: weighted means, and statistics of the boxes of a step.

ibp_accuracy      the share of samples with positive interval bounds of all margins over the whole region: a sound
                  certificate (except for rounding), unlike the estimate of the method
active_relus, dead_relus, unstable_relus
                  the shares of ReLUs in these states, over samples and neurons (domains/relu_states.py)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ctbench.domains import interval
from ctbench.domains.relu_states import relu_inputs, relu_shares
from ctbench.graph import Graph
from ctbench.methods.base import Batch, RobustLoss
from ctbench.regions import Box
from ctbench.specification import margin_rows


class Means:
    """Weighted means of named quantities. The mean of a quantity is over the calls of `add` that include it."""

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
        """The means as numbers. Python waits for the device once."""
        return dict(zip(self.totals, torch.stack(list(self.values().values())).tolist(), strict=True))


class Finite:
    """Whether all losses and gradients of some steps were finite. Only `first` waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self.steps: list[Tensor] = []  # [2] each
        self.broken = torch.zeros((), device=device)  # 1 after the first step that is not finite

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Add the loss of a step and the norm of its gradient, both scalar tensors."""
        self.steps.append(torch.stack([loss.double(), norm.double()]))
        self.broken = torch.maximum(self.broken, (~torch.isfinite(self.steps[-1])).any().to(self.broken))

    def first(self) -> tuple[int, float, float] | None:
        """The number of the first step that was not finite, counted from 0, with its loss and its norm."""
        steps = torch.stack(self.steps).tolist() if self.steps else []
        return next(
            ((number, loss, norm) for number, (loss, norm) in enumerate(steps) if not math.isfinite(loss + norm)), None
        )


@torch.no_grad()
def bound_statistics(net: Graph, batch: Batch, robust: RobustLoss) -> dict[str, Tensor]:
    """Statistics of the boxes that the method has computed for a batch; empty without boxes.

    There is no accuracy if the boxes are for a part of the region (e.g. in SABR), because it would not be sound. If the
    first box is the hull of the region itself, its values are not compared, because that would wait for the device.
    """
    boxes = robust.boxes
    if boxes is None:
        return {}
    statistics = _relus(relu_inputs(net, boxes))
    if robust.whole and _covers(boxes[0], batch.region.hull):
        spec = margin_rows(batch.y, net.classes, dtype=batch.x.dtype)
        margins = interval.lower_bounds(net, batch.region, spec, inner=boxes)
        statistics["ibp_accuracy"] = (margins > 0).all(1).double().mean()
    return statistics


def _relus(inputs: list[Box]) -> dict[str, Tensor]:
    return {f"{state}_relus": share for state, share in relu_shares(inputs)._asdict().items()} if inputs else {}


def _covers(box: Box, region: Box) -> bool:
    return box is region or bool((box.lower <= region.lower).all() & (box.upper >= region.upper).all())

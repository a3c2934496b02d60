"""Standard training: the cross-entropy of the clean inputs.

    loss = CE(z(x), y)

Use it as the reference for natural accuracy. Its networks withstand no attack, and nothing can be certified for them.

Cost: one forward and one backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from ctbench.graph import Graph
from ctbench.methods.base import Batch, Method, RobustLoss


@dataclass(frozen=True, kw_only=True)
class Standard(Method):
    """No robustness: the cross-entropy of the clean inputs."""

    name: ClassVar[str] = "standard"

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        loss = F.cross_entropy(batch.logits, batch.y, reduction="none")
        return RobustLoss(loss, correct=batch.logits.argmax(1) == batch.y)

"""Gaussian loss smoothing: Balauca et al. 2024, "Gaussian loss smoothing enables certified training with tight convex
relaxations".

    loss = 1/N sum_i L(w + std n_i),   n_i ~ N(0, I) for i = 1..N

estimates the expectation of L(w + std n), a smooth function of w, without bias; and its gradient without bias where L
has no jumps, which are not seen (their randomised gradient smoothing). L is the loss of another method and w what the
frozen network is made of: weights and biases, and for each batch norm the scale and the shift that it makes of its
statistics, which are those of the clean pass at w.

Use it around a method with bounds tighter than intervals, whose loss is not smooth in the weights.

Cost: the method's for each draw, once more forward for the network itself, and a clean forward pass a draw.

    WeightSmoothing(inner=CrownIBP(every_layer=True), std=0.01, samples=4)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.graph import Graph
from ctbench.methods.base import Batch, Method, RobustLoss, check_weights
from ctbench.methods.ibp import IBP
from ctbench.methods.sam import moved, weights


@dataclass(frozen=True, kw_only=True)
class WeightSmoothing(Method):
    """Another method, in the mean over random weights nearby.

    A draw's boxes bound a network that nobody trains or uses. So `correct` and the boxes are those of the network
    itself, for which the inner method is evaluated once more; this gives no gradient but that of a regulariser on the
    boxes. Each evaluation has random draws of its own. Without gradients (as in a validation) it is the inner method.

    Args:
        inner: the method whose loss is smoothed.
        std: of the noise on each weight. The default is no paper's.
        samples: draws N a step, all of which are in memory until the gradient is taken. The default is no paper's.

    Raises:
        ValueError: std is not a number >= 0, or samples is below 1.
    """

    name: ClassVar[str] = "weight-smoothing"
    inner: Method = field(default_factory=IBP)
    std: float = 1e-3
    samples: int = 2

    def __post_init__(self) -> None:
        check_weights(self, "std")
        if self.samples < 1:
            raise ValueError(f"samples is {self.samples}: a mean takes at least 1 draw")

    def prelude(self, net: Graph, batch: Batch) -> Tensor | None:
        return self.inner.prelude(net, batch)

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        here = self.inner(net, batch)
        if not torch.is_grad_enabled():
            return here
        draws = [self.inner(*moved(net, batch, self._noise(net, batch.generator))) for _ in range(self.samples)]
        return replace(here, per_sample=torch.stack([draw.per_sample for draw in draws]).mean(0))

    def _noise(self, net: Graph, generator: torch.Generator | None) -> dict[int, Tensor]:
        """An offset for each of the network's weights."""
        return {
            key: self.std * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype, device=tensor.device)
            for key, tensor in weights(net).items()
        }

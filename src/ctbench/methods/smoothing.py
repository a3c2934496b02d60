"""Gaussian loss smoothing: Balauca et al. 2024, "Gaussian loss smoothing enables certified training with tight convex
relaxations".

    loss = 1/N sum_i L(w + std n_i),   n_i ~ N(0, I) for i = 1..N

is an unbiased estimate of the expectation of L(w + std n), a smooth function of w. Its gradient is also unbiased if L
has no jumps, which a gradient does not see (randomised gradient smoothing in the paper). L is the loss of another
method, and w are the tensors of the frozen network: weights and biases, and for each batch norm the scale and the shift
computed from its statistics. The statistics are those of the clean pass at w.

Use it around a method with bounds tighter than intervals, because their loss is not smooth in the weights.

Cost: for each draw, the cost of the method and a clean forward pass; and one more forward pass of the method for the
network itself.

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
from ctbench.methods.reweighted import reweighted, weights


@dataclass(frozen=True, kw_only=True)
class WeightSmoothing(Method):
    """Another method, averaged over random weights near the current ones.

    The boxes of a draw bound a network that is not trained or used. So `correct` and the boxes are those of the network
    itself: the inner method is evaluated on it once more, and only a regulariser on the boxes takes a gradient there.
    Each evaluation has its own random draws. Without gradients (e.g. in validation) it is the inner method.

    Args:
        inner: the method that computes the loss L.
        std: the standard deviation of the noise on each weight. The default is ours, not from a paper.
        samples: the number of draws N per step, all in memory until the gradient is computed. The default is ours, not
            from a paper.

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
        draws = [self.inner(*reweighted(net, batch, self._noise(net, batch.generator))) for _ in range(self.samples)]
        return replace(here, per_sample=torch.stack([draw.per_sample for draw in draws]).mean(0))

    def _noise(self, net: Graph, generator: torch.Generator | None) -> dict[int, Tensor]:
        """An offset for each weight of the network."""
        return {
            key: self.std * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype, device=tensor.device)
            for key, tensor in weights(net).items()
        }

"""SAM: Foret et al. 2021, "Sharpness-aware minimization for efficiently improving generalization", Eq. (2) and (3).

With L the loss of another method and w the tensors of the frozen network:

    e    = rho g / ||g||_2,   g the gradient of mean(L(w)) in w, the norm over all of w
    loss = L(w + e),          the gradient is taken at w + e with e as a constant

w are weights and biases, and for each batch norm the scale and the shift computed from its statistics. The statistics
are those of the clean pass at w, also at w + e.

Use it around another method to find flat minima, which may generalise better.

Cost: twice the cost of the method, and two clean forward passes. If the method has boxes, also twice its memory: a
regulariser may need the gradient through the boxes of the first evaluation.

    SAM()                          # sharpness-aware adversarial training
    SAM(inner=IBP(), rho=0.01)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from ctbench.graph import Graph
from ctbench.methods.base import Batch, Method, RobustLoss, check_weights
from ctbench.methods.pgd import PGD
from ctbench.methods.reweighted import reweighted, weights


@dataclass(frozen=True, kw_only=True)
class SAM(Method):
    """Another method, evaluated at the nearby weights with the largest loss, to first order.

    `correct` and the boxes are those of the network itself, from the first evaluation. If the batch has a generator,
    both evaluations see the same random draws: so e is the ascent of the same function of w, and rho = 0 is the inner
    method. Without gradients (e.g. in validation) it is also the inner method. Other terms of the training loss (clean
    cross-entropy, regularisers) are evaluated at w and do not affect e. If a batch is computed in parts, each part has
    its own e.

    Args:
        inner: the method that computes the loss L.
        rho: the distance by which the weights are moved, in the l2 norm; the paper uses 0.05.

    Raises:
        ValueError: rho is not a number >= 0.
    """

    name: ClassVar[str] = "sam"
    inner: Method = field(default_factory=PGD)
    rho: float = 0.05

    def __post_init__(self) -> None:
        check_weights(self, "rho")

    def prelude(self, net: Graph, batch: Batch) -> Tensor | None:
        return self.inner.prelude(net, batch)

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        own = weights(net)
        if not (own and torch.is_grad_enabled()):
            return self.inner(net, batch)
        twin = None if batch.generator is None else batch.generator.clone_state()
        nowhere = {key: torch.zeros_like(tensor, requires_grad=True) for key, tensor in own.items()}
        here = self.inner(*reweighted(net, replace(batch, generator=twin), nowhere))
        gradients = torch.autograd.grad(
            here.per_sample.mean(),
            list(nowhere.values()),
            retain_graph=here.boxes is not None,  # a regulariser may need the gradient through the boxes
            materialize_grads=True,
        )
        ahead = dict(zip(own, ascent(gradients, self.rho), strict=True))
        return replace(here, per_sample=self.inner(*reweighted(net, batch, ahead)).per_sample)


def ascent(gradients: tuple[Tensor, ...], rho: float) -> list[Tensor]:
    """The step of length rho along the gradient, over all tensors together; 0 if the gradient is 0."""
    norm = nn.utils.get_total_norm(gradients)
    share = torch.where(norm > 0, rho / norm, 0.0)
    return [share * gradient for gradient in gradients]

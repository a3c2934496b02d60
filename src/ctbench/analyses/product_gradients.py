"""Does TAPS's product of means have a smaller variance in its gradient than the mean of products? Theorem 1 of TAPS.

    L_1 = mean(f) mean(g),    L_2 = mean(f g)        f = L_TAPS and g = L_IBP of the samples of a batch

The theorem assumes that values and gradients are independent. Then both gradients have the same mean over batches, and
that of L_1 has the smaller variance. Here both are measured, without that assumption, over batches that are drawn from
the inputs with replacement. A variance is the sum over all parameters of the network.

Mao et al. 2023, "Connecting certified and adversarial training", appendix A.

    result = product_gradients(model, x, y, eps=0.1)
    result.mean("ratio")                # var L_1 / var L_2: the theorem says that it is at most 1
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from ctbench.analyses.base import Analysis, Part, Where, measurement
from ctbench.methods.base import Method
from ctbench.methods.ibp import IBP
from ctbench.methods.taps import TAPS
from ctbench.results import Measurement, Measurements


@dataclass(frozen=True, kw_only=True)
class ProductGradients(Analysis):
    """Means and variances of the gradients of a product of mean losses, and of the mean of their products.

    Args:
        first, second: the methods whose losses are multiplied.
        batches: the number of batches, at least 2.
        batch_size: the number of samples of a batch.

    Raises:
        ValueError: a number is too small.
    """

    name: ClassVar[str] = "product-gradients"
    size: ClassVar[int | None] = None
    first: Method = field(default_factory=lambda: TAPS(product=False))
    second: Method = field(default_factory=IBP)
    batches: int = 32
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.batches < 2 or self.batch_size < 1:
            raise ValueError(
                f"there are {self.batches} batches of {self.batch_size} samples: give at least 2, of at least 1"
            )

    def measure(self, part: Part) -> list[Measurement]:
        generator = part.generator()
        pairs = [self._gradients(self._draw(part, generator)) for _ in range(self.batches)]
        product, mean = (torch.stack(gradients) for gradients in zip(*pairs, strict=True))
        variances = [float(gradients.var(0).sum()) for gradients in (product, mean)]
        apart, size = (product.mean(0) - mean.mean(0)).norm(), mean.mean(0).norm()
        quantities = {
            "variance, product of means": variances[0],
            "variance, mean of products": variances[1],
            "ratio": variances[0] / variances[1] if variances[1] else 1.0,
            "difference of means": float(apart / size) if size else 0.0,
        }
        return [measurement(quantities)]

    def _draw(self, part: Part, generator: torch.Generator) -> Part:
        """Samples of a batch, drawn with replacement."""
        places = torch.randint(len(part.x), (self.batch_size,), generator=generator, device=part.x.device)
        return replace(part, x=part.x[places], y=part.y[places])

    def _gradients(self, part: Part) -> tuple[Tensor, Tensor]:
        """The gradients of both losses of a batch in all parameters, flat and in double precision."""
        with torch.enable_grad():
            net = part.with_gradients()
            batch = part.batch(net)
            first, second = self.first(net, batch).per_sample, self.second(net, batch).per_sample
            losses = first.mean() * second.mean(), (first * second).mean()
            parameters = [parameter for parameter in part.model.parameters() if parameter.requires_grad]
            flat = []
            for loss in losses:
                gradients = torch.autograd.grad(
                    loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                flat.append(torch.cat([gradient.flatten().double() for gradient in gradients]))
        return flat[0], flat[1]


def product_gradients(
    model: nn.Module, x: Tensor, y: Tensor, *, batches: int = 32, batch_size: int = 16, **where: Unpack[Where]
) -> Measurements:
    """The variances of both gradients, their "ratio", and the relative "difference of means", for TAPS and IBP.

    x is [N, *shape], y [N], `where` as for `Analysis`. Raises ValueError as `ProductGradients` does.
    """
    return ProductGradients(batches=batches, batch_size=batch_size)(model, x, y, **where)

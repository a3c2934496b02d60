"""Do the gradients of a certified loss point where accuracy improves? Cosines of gradients in the weights.

    Std = cos(grad of mean L, grad of mean CE(z(x), y)),     Adv = cos(grad of mean L, grad of mean CE(z(x'), y))

L is the loss of a training method and x' the point that PGD finds. Gradients are those in all parameters of the network
together, over batches of 128 test inputs. Weight decay and regularisers do not count. Müller et al. 2023, "Certified
training: small boxes are all you need", appendix C, Table 6: .5586 and .8047 for IBP, .8071 and .9062 for SABR.

    gradient_alignment(model, SABR(ratio=0.05), x, y, eps=0.1).mean("standard")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench import attacks
from ctbench.analyses.base import Analysis, Part, Where, measurement
from ctbench.methods.adversary import worst_point
from ctbench.methods.base import Method
from ctbench.methods.sabr import SABR
from ctbench.results import Layout, Measurement, Measurements


@dataclass(frozen=True, kw_only=True)
class GradientAlignment(Analysis):
    """Cosines between the gradient of a method's loss and those of the clean and the adversarial cross-entropy.

    All three see the same random draws, so SABR with ratio 0 has the gradient of the adversarial cross-entropy.

    Args:
        method: the training method; None is that of the run, for `ctbench analyse`.
        attack: the search for x'; by default SABR's, PGD with 8 steps.

    Raises:
        ValueError: when called, if there is no method.
    """

    name: ClassVar[str] = "gradient-alignment"
    layout: ClassVar[Layout] = Layout(kind="bars", quantities=("standard", "adversarial"), label="cosine")
    size: ClassVar[int | None] = 128
    method: Method | None = None
    attack: attacks.Attack = field(default_factory=lambda: SABR().attack)

    def measure(self, part: Part) -> list[Measurement]:
        if not isinstance(self.method, Method):
            raise ValueError(f"method is {self.method!r}: give a training method, e.g. GradientAlignment(method=IBP())")
        with torch.enable_grad():  # a graph of its own for each gradient: its norms are made of parameters
            net = part.with_gradients()
            robust = _gradients(part, self.method(net, part.batch(net)).per_sample.mean())
            worst = worst_point(self.attack, part.net, part.batch(part.net))
            others = {
                name: _gradients(part, F.cross_entropy(part.with_gradients()(x), part.y))
                for name, x in (("standard", part.x), ("adversarial", worst))
            }
        cosines = {name: cosine(torch.cat(robust), torch.cat(other)) for name, other in others.items()}
        names = [path for path, _ in _parameters(part.model)]
        for name, other in others.items():
            pairs = zip(names, robust, other, strict=True)
            cosines |= {f"layer {path}: {name}": cosine(mine, its) for path, mine, its in pairs}
        return [measurement({name: value for name, value in cosines.items() if value == value})]


def cosine(first: Tensor, second: Tensor) -> float:
    """The cosine of the angle between two vectors, [n]; NaN if one is 0."""
    first, second = first.double(), second.double()
    return float(first @ second / (first.norm() * second.norm()))


def _parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(path, parameter) for path, parameter in model.named_parameters() if parameter.requires_grad]


def _gradients(part: Part, loss: Tensor) -> list[Tensor]:
    """The gradient of a loss in each parameter, flat; 0 in those that it does not depend on."""
    parameters = [parameter for _, parameter in _parameters(part.model)]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return [gradient.flatten() for gradient in gradients]


def gradient_alignment(model: nn.Module, method: Method, x: Tensor, y: Tensor, **where: Unpack[Where]) -> Measurements:
    """The quantities "standard" and "adversarial": mean cosines over batches of inputs [N, *shape] with labels [N].

    `where` as for `Analysis`. Raises ValueError as `GradientAlignment` does.
    """
    return GradientAlignment(method=method)(model, x, y, **where)

"""Initial weights, a function of the seed.

    shi       N(0, (sqrt(2 pi) / fan_in)^2) on all weights except those of the last layer: the expectation of interval
              widths neither grows nor shrinks (Shi et al. 2021, section 3.2)
    kaiming   uniform with gain sqrt(2) over the fan-in (He et al. 2015)

`ctbench.networks.weights` says which parameters are weights. Biases, the last layer under `shi`, batch norms and
everything else keep the initial values of torch, or those of a module of your own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from ctbench.networks import Weight, weights


def shi_normal(layers: list[Weight]) -> None:
    """Draw the weights of all layers except the last one: Shi et al. 2021, section 3.2."""
    for weight in layers[:-1]:
        nn.init.normal_(weight.values, std=math.sqrt(2 * math.pi) / weight.fan_in)


def kaiming_uniform(layers: list[Weight]) -> None:
    """Draw the weights of all layers: He et al. 2015."""
    for weight in layers:
        bound = math.sqrt(3.0) * (nn.init.calculate_gain("relu") / math.sqrt(weight.fan_in))
        nn.init.uniform_(weight.values, -bound, bound)


INITIALIZATIONS: dict[str, Callable[[list[Weight]], None]] = {
    "shi": shi_normal,
    "kaiming": kaiming_uniform,
}


def initialize(model: nn.Module, name: str = "shi") -> None:
    """Draw the weights of a module of your own, in place, from torch's generator: seed it with `torch.manual_seed`.

    Args:
        model: its weights are the parameters of `ctbench.networks.weights`, in their order; biases stay.
        name: "shi" (Shi et al. 2021, section 3.2: for training with interval bounds) or "kaiming" (He et al. 2015).

    Raises:
        ValueError: there is no initialisation of this name.
    """
    if name not in INITIALIZATIONS:
        raise ValueError(f"there is no initialisation {name!r}: choose from {', '.join(INITIALIZATIONS)}")
    with torch.no_grad():
        INITIALIZATIONS[name](weights(model))


def build(make: Callable[[], nn.Module], *, initialization: str, seed: int) -> nn.Module:
    """A new network with weights drawn from the seed. The global random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        INITIALIZATIONS[initialization](weights(model))
    return model

"""Initial weights, a function of the seed.

    shi       N(0, (sqrt(2 pi) / fan_in)^2) on all weights except those of the last layer: the expectation of interval
              widths neither grows nor shrinks (Shi et al. 2021, section 3.2)
    kaiming   uniform with gain sqrt(2) over the fan-in (He et al. 2015)

Biases, the last layer under `shi`, and batch norms keep the initial values of torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn


def shi_normal(layers: list[nn.Conv2d | nn.Linear]) -> None:
    """Draw the weights of all layers except the last one: Shi et al. 2021, section 3.2."""
    for layer in layers[:-1]:
        nn.init.normal_(layer.weight, std=math.sqrt(2 * math.pi) / layer.weight[0].numel())


def kaiming_uniform(layers: list[nn.Conv2d | nn.Linear]) -> None:
    """Draw the weights of all layers: He et al. 2015."""
    for layer in layers:
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")


INITIALIZATIONS: dict[str, Callable[[list[nn.Conv2d | nn.Linear]], None]] = {
    "shi": shi_normal,
    "kaiming": kaiming_uniform,
}


def build(make: Callable[[], nn.Module], *, initialization: str, seed: int) -> nn.Module:
    """A new network with weights drawn from the seed. The global random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        INITIALIZATIONS[initialization]([m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)])
    return model

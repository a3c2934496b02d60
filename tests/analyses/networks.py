"""Small networks of several kinds for analyses, in double precision, and inputs for them."""

import torch
from tests.contracts.conftest import SHAPE, Clipped, Dense, Residual, Sorted, cnn, mlp, pooled
from torch import nn

from ctbench.analyses import NetworkOnInputs, Part
from ctbench.regions import Linf, Threat


class Leaky(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(72, 9), nn.LeakyReLU(0.1), nn.Linear(9, 7), nn.ReLU6(), nn.Linear(7, 4)
        )


class Pooled(nn.Sequential):
    """A network with a max pooling."""

    def __init__(self) -> None:
        layers = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 6), nn.ReLU()
        super().__init__(*layers, nn.Linear(6, 4))


NETWORKS = {
    "mlp": mlp,
    "cnn": cnn,
    "pooled": pooled,
    "max-pooled": Pooled,
    "residual": Residual,
    "dense": Dense,
    "leaky": Leaky,
    "clipped": Clipped,
}
WITH_MAXIMA = {"sorted": Sorted}


def network(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = {**NETWORKS, **WITH_MAXIMA}[name]().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.3, 1.5)
    return model


def inputs(count: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(count: int = 6) -> torch.Tensor:
    return torch.arange(count) % 4


def part(model: nn.Module, x: torch.Tensor, y: torch.Tensor | None = None, *, threat: Threat | None = None) -> Part:
    return NetworkOnInputs.of(model, x, y).part(0, len(x), threat or Linf(eps=0.1))

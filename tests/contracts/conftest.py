"""The small networks that every domain, attack and method must work on."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from ctbench.graph import Graph, freeze, trace
from ctbench.networks import Normalize
from ctbench.regions import Linf

SHAPE, CLASSES, BATCH = (2, 6, 6), 4, 3


class Residual(nn.Module):
    """A stem, a block with an identity shortcut and one with a convolution as its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.conv1, self.bn1 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4)
        self.shortcut = nn.Sequential(nn.Conv2d(3, 4, 1, stride=2, bias=False), nn.BatchNorm2d(4))
        self.linear = nn.Linear(36, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(self.bn1(self.conv1(x)) + x)
        x = torch.relu(self.bn2(self.conv2(x)) + self.shortcut(x))
        return self.linear(x.flatten(1))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(72, 16),
        nn.ReLU(),
        nn.Linear(16, 12),
        nn.ReLU(),
        nn.Linear(12, CLASSES),
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, CLASSES),
    )


def pooled() -> nn.Module:
    return nn.Sequential(
        Normalize([0.4, 0.5], [0.3, 0.2]),
        nn.Conv2d(2, 4, 3),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.ReLU(),
        nn.Linear(8, CLASSES),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "residual": Residual,
    "pooled": pooled,
}


@dataclass(frozen=True)
class Case:
    model: nn.Module
    x: Tensor
    y: Tensor

    @property
    def graph(self) -> Graph:
        """Frozen with the running statistics."""
        return freeze(trace(self.model, SHAPE), self.x)[0]

    def region(self, eps: float):
        return Linf(eps=eps).region(self.x)


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Callable[..., Case]:
    """Each of the networks in turn, in a precision of choice, with a batch of inputs and labels."""

    def build(dtype: torch.dtype = torch.float64) -> Case:
        torch.manual_seed(7)
        model = NETWORKS[request.param]().double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 1.5)
                nn.init.normal_(module.weight)  # negative factors turn intervals around
                nn.init.uniform_(module.bias, 0, 1)
        x = torch.rand(BATCH, *SHAPE, dtype=torch.float64)
        return Case(model.to(dtype), x.to(dtype), torch.tensor([1, 3, 0]))

    return build

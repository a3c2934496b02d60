"""Small networks with weights at random or by hand, and inputs for them."""

import copy
from dataclasses import replace

import torch
from torch import nn

from ctbench.networks import MLP
from ctbench.results import Certification, SampleRecord
from ctbench.specification import margins


def small(seed: int, *, batch_norm: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    model = MLP(hidden=(12, 8), batch_norm=batch_norm).build((4,), 3).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 1.5)
    return model


def inputs(model: nn.Module, count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs whose labels are the model's own answers, except for every seventh."""
    x = torch.rand(count, 4, generator=torch.Generator().manual_seed(5))
    y = model(x).argmax(1).detach()
    y[::7] = (y[::7] + 1) % 3
    return x, y


def right(model: nn.Module, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs that the network classifies correctly."""
    x, _ = inputs(model, count)
    return x, model(x).argmax(1).detach()


def linear(weight: list[list[float]], bias: list[float]) -> nn.Sequential:
    layer = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return nn.Sequential(layer)


def conv() -> nn.Module:
    """A network of two convolutions, for inputs (2, 6, 6)."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4),
    )  # fmt: skip


def timeless(found: Certification) -> list[SampleRecord]:
    return [replace(record, seconds=0.0, stage_seconds={}) for record in found]


def double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double().eval()


def least_margin(model: nn.Module, points: torch.Tensor, label: int) -> float:
    """The least margin at any of the points, in double precision."""
    labels = torch.full((len(points),), label)
    with torch.no_grad():
        return margins(double(model)(points.double()), labels).min().item()

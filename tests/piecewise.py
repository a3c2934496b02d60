"""Small networks of piecewise linear layers with random weights, and the least values of their forms."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph import Graph, freeze, trace
from ctbench.regions import Box

CLASSES = 3


class Residual(nn.Module):
    """Two convolutions with batch norm, and a way past them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3, padding=1)
        self.block = nn.Sequential(
            nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()
        )
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(F.relu(x + self.block(x)).flatten(1))


class Branches(nn.Module):
    """Branches that are joined, and their greatest entries: a ReLU of the input itself, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.maximum(self.first(x), F.relu(self.second(x)))
        return self.head(torch.cat([joined, F.relu(x - 0.5)], dim=1))


NETWORKS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "affine": ((4,), lambda: nn.Linear(4, CLASSES)),
    "mlp": (
        (4,),
        lambda: nn.Sequential(
            nn.Linear(4, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, CLASSES)
        ),
    ),
    "pieces": (
        (4,),
        lambda: nn.Sequential(
            nn.Linear(4, 6), nn.Hardtanh(), nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 6), nn.ReLU6(),
            nn.Linear(6, CLASSES),
        ),
    ),
    "convolution": (
        (1, 6, 6),
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, CLASSES)
        ),
    ),
    "max pooling": (
        (1, 6, 6),
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.MaxPool2d(3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8, CLASSES)
        ),
    ),
    "residual": ((1, 4, 4), Residual),
    "branches": ((4,), Branches),
}  # fmt: skip


def network(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A network with large random weights in double precision, and an input of it, [1, *shape]."""
    shape, build = NETWORKS[name]
    torch.manual_seed(seed)
    model = build().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 1.5)
        for parameter in module.parameters(recurse=False):
            nn.init.normal_(parameter, std=0.7)
    return model, torch.rand(1, *shape, dtype=torch.float64)


def frozen(model: nn.Module, x: Tensor) -> Graph:
    with torch.no_grad():
        return freeze(trace(model, tuple(x.shape[1:])), x)[0].detach()


def moving(x: Tensor, places: tuple[int, ...], radius: float = 0.6) -> Box:
    """A box around x in which only these entries move."""
    move = torch.zeros_like(x).flatten()
    move[list(places)] = radius
    return Box(x - move.view_as(x), x + move.view_as(x))


def least(value: Callable[[Tensor], Tensor], box: Box, places: tuple[int, int], *, count: int = 121) -> float:
    """The least value on a plane of inputs: a grid, then finer ones around its 20 best points, and so on."""
    start = torch.stack([box.center.flatten()[list(places)]])
    radius = box.radius.flatten()[places[0]]
    low, high = (end.flatten()[list(places)] for end in (box.lower, box.upper))
    best = math.inf
    for _ in range(12):
        side = torch.linspace(-1, 1, count, dtype=torch.float64) * radius
        plane = (start.unsqueeze(1) + torch.cartesian_prod(side, side)).flatten(0, 1).clamp(low, high)
        points = box.center.flatten().repeat(len(plane), 1)
        points[:, list(places)] = plane
        values = value(points.view(-1, *box.lower.shape[1:]))
        best = min(best, values.min().item())
        start, radius, count = plane[values.topk(20, largest=False).indices], 3 * radius / (count - 1), 21
    return best


def at_point(graph: Graph, c: Tensor, point: Tensor) -> float:
    return (graph(point.unsqueeze(0))[0] @ c).item()

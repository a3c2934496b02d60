"""Networks with one narrow counterexample, planted where no gradient leads.

A spike is added to an output of a network that is right on the whole region. With orthogonal directions d_1 ... d_n, at
the input p + sum_i t_i w d_i,

    spike = height relu(sum_i hat(t_i) - (n - depth)),   hat(t) = relu(1 - |t|) = relu(t + 1) - 2 relu(t) + relu(t - 1)

which is height * depth at p, and 0, as its gradient is, wherever sum_i min(|t_i|, 1) >= depth. Or a network is fitted
to margins that fall away from p, toward the opposite corner of the region, and are negative at p alone.
"""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.domains import crown
from ctbench.graph import freeze, trace
from ctbench.regions import Linf
from ctbench.specification import margin_rows, margins

CLASSES = 3  # of the networks with a spike
KINDS = ("mlp", "convolution", "branches")
WIDTH = 1 / 8  # of the hats, as a share of eps
DEPTH = 0.5
VIOLATION = 1.0  # minus the margin at p
EPS = 0.25  # at most

Layers = list[tuple[Tensor, Tensor]]  # weights and biases, of three


class Planted(NamedTuple):
    """A network in double precision; its numbers, and those of the points, are numbers of single precision."""

    model: nn.Module
    x: Tensor  # [1, *shape]
    y: Tensor  # [1]: what x is classified as
    eps: float
    point: Tensor  # [1, *shape]: p, within eps of x, and classified otherwise
    base: nn.Module | None = None  # what a spike was added to

    def to(self, dtype: torch.dtype) -> "Planted":
        """The same network in another precision."""
        model = copy.deepcopy(self.model).to(dtype)
        return self._replace(model=model, x=self.x.to(dtype), point=self.point.to(dtype))


class Sum(nn.Module):
    """The sum of two networks."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)


@torch.no_grad()
def spiked(kind: str, seed: int, *, side: int = 2, rotated: bool = False) -> Planted:
    """A random network with a spike.

    Args:
        kind: "mlp" has linear layers, "convolution" the same as convolutions; "branches" is the sum of a convolutional
            network and the spike.
        seed: of all that is random.
        side: the height of the inputs, [1, side, 2].
        rotated: the directions are random, not those of the coordinates.
    """
    torch.manual_seed(seed)
    shape, inputs = (1, side, 2), 2 * side
    layers = [(torch.randn(n, m) / 2, torch.randn(n) / 2) for m, n in ((inputs, 8), (8, 6), (6, CLASSES))]
    base = assembled(layers, shape)
    if kind == "branches":
        head = nn.Linear(9 * side + 9, CLASSES)
        base = nn.Sequential(nn.Conv2d(1, 3, 2, padding=1), nn.ReLU(), nn.Flatten(), head).double()
    x = single(0.25 + torch.rand(1, *shape) / 2)
    y = base(x).argmax(1)
    eps = robust_radius(base, x, y)
    point = single(x + eps * (1.2 * torch.rand(1, *shape) - 0.6))
    directions = torch.linalg.qr(torch.randn(inputs, inputs)).Q if rotated else torch.eye(inputs)
    spike = spike_layers(point, directions.double() / (WIDTH * eps), margins(base(point), y)[0], int(y))
    if kind == "branches":
        return Planted(Sum(base, assembled(spike, shape)), x, y, eps, point, base)
    model = assembled(side_by_side(layers, spike), shape, convolutional=kind == "convolution")
    return Planted(model, x, y, eps, point, base)


def single(x: Tensor) -> Tensor:
    """Numbers of single precision, in double precision."""
    return x.float().double()


def assembled(layers: Layers, shape: tuple[int, ...], *, convolutional: bool = False) -> nn.Sequential:
    """A network of three linear layers, with ReLUs between them."""
    (n, inputs), (m, _), (k, _) = (weight.shape for weight, _ in layers)
    first: tuple[nn.Module, ...] = (nn.Flatten(), nn.Linear(inputs, n), nn.ReLU(), nn.Linear(n, m), nn.ReLU())
    if convolutional:
        first = (nn.Conv2d(1, n, shape[1:]), nn.ReLU(), nn.Conv2d(n, m, 1), nn.ReLU(), nn.Flatten())
    model = nn.Sequential(*first, nn.Linear(m, k)).double()
    ours = [value for layer in layers for value in layer]
    for parameter, value in zip(model.parameters(), ours, strict=True):
        parameter.copy_(single(value).view_as(parameter))
    return model


def robust_radius(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The greatest EPS / 2^k at which CROWN certifies a network."""
    graph, eps = freeze(trace(model, tuple(x.shape[1:])), x)[0].detach(), EPS
    rows = margin_rows(y, CLASSES, x.dtype)
    while not bool((crown.lower_bounds(graph, Linf(eps=eps).region(x), rows) > 0).all()):
        eps /= 2
    return eps


def spike_layers(point: Tensor, rows: Tensor, margin: Tensor, y: int) -> Layers:
    """What lowers the least of the margins ([K-1], of label y) to -VIOLATION at the point; rows are d_i / w."""
    inputs = len(rows)
    shifts = torch.tensor([1.0, 0.0, -1.0]).repeat_interleave(inputs) - (rows @ point.flatten()).repeat(3)
    hats = torch.tensor([[1.0, -2.0, 1.0]]).repeat_interleave(inputs, dim=1)
    wrong, head = int(margin.argmin()), torch.zeros(CLASSES, 1)
    head[wrong + (wrong >= y)] = (margin[wrong] + VIOLATION) / DEPTH
    return [(rows.repeat(3, 1), shifts), (hats, torch.tensor([DEPTH - inputs])), (head, torch.zeros(CLASSES))]


def side_by_side(first: Layers, second: Layers) -> Layers:
    """The layers of the sum of two networks."""
    (a1, a2, a3), (b1, b2, b3) = first, second
    return [
        (torch.cat([a1[0], b1[0]]), torch.cat([a1[1], b1[1]])),
        (torch.block_diag(a2[0], b2[0]), torch.cat([a2[1], b2[1]])),
        (torch.cat([a3[0], b3[0]], dim=1), a3[1] + b3[1]),
    ]


def fitted(seed: int, *, inputs: int = 3, hidden: int = 16, gap: float = 0.3, steps: int = 2000) -> Planted:
    """A network that was trained to be wrong at one point, and right at all of many others.

    Args:
        seed: of all that is random.
        inputs: of the network, around the centre of [0, 1].
        hidden: the width of its two hidden layers.
        gap: the distance from the point, as a share of eps, from which on all is right.
        steps: of Adam, at most.
    """
    torch.manual_seed(seed)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * inputs)
    point = (0.3 + 0.3 * torch.rand(1, inputs)) * corners[seed % len(corners)]
    around = torch.cat([2 * torch.rand(400, inputs) - 1, corners, torch.zeros(1, inputs)])
    around = around[(around - point).norm(dim=1) > gap]
    data = torch.cat([point, point + gap * F.normalize(torch.randn(100, inputs), dim=1), around])
    targets = 2 + 1.5 * (data * point.sign()).mean(1)
    weights = torch.ones_like(targets)
    targets[0], weights[0] = -VIOLATION, 100.0
    first = nn.Linear(inputs, hidden)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        least = margins(model(data), torch.zeros(len(data), dtype=torch.long))[:, 0]
        if least[0] < -VIOLATION / 3 and bool((least[1:] > 0).all()):
            break
        optimizer.zero_grad()
        (weights * (least - targets) ** 2).mean().backward()
        optimizer.step()
    with torch.no_grad():  # of inputs in [-1, 1] until here
        first.weight /= EPS
        first.bias -= first.weight.sum(1) / 2
    x = torch.full((1, inputs), 0.5).double()
    return Planted(model.double(), x, torch.tensor([0]), EPS, single(x + EPS * point))

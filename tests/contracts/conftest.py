"""Small networks, regions and points: every domain, attack and method must work on them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from ctbench.attacks import PGD
from ctbench.graph import Graph, freeze, trace
from ctbench.networks import Normalize
from ctbench.regions import L1, L2, Box, FirstCoordinate, Linf, Polytope, Region, Segments, linf_box

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


class Dense(nn.Module):
    """Two layers that also pass on their input, like in a densely connected network."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(5, 2, 3, padding=1)
        self.last, self.linear = nn.Conv2d(7, 3, 3, stride=2), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, torch.relu(self.first(x))], dim=1)
        x = torch.cat([torch.relu(self.second(x)), x], dim=1)
        return self.linear(torch.relu(self.last(x)).flatten(1))


class Sorted(nn.Module):
    """Pairs of channels, the greater before the smaller (MaxMin: Anil et al. 2019), of images and of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Conv2d(4, 2, 2)
        self.third, self.linear = nn.Linear(8, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.sort(self.first(x)))
        return self.linear(self.sort(self.third(x.flatten(1))))

    @staticmethod
    def sort(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.cat([torch.maximum(first, second), torch.minimum(first, second)], dim=1)


class Moves(nn.Module):
    """Slices, padding, permutations and arithmetic with numbers and parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 3, 3)
        self.factor, self.bias = nn.Parameter(torch.rand(4, 1, 1)), nn.Parameter(torch.rand(6, 6))
        self.pad, self.linear = nn.ReflectionPad2d(1), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.factor * self.first(2 * x - 0.7) + self.bias - 0.6)
        x = x[:, :2] - x[:, 2:].flip(3) / 4
        x = torch.relu(0.2 - self.second(self.pad(x[:, :, 1:, ::2]))) + 0.125
        return self.linear(x.permute(0, 2, 3, 1)[:, :, 1:].flatten(1).roll(5, 1)[:, :24])


class Means(nn.Module):
    """Adaptive pooling to uneven parts, and a mean over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool = nn.Conv2d(2, 5, 3, padding=1), nn.AdaptiveAvgPool2d((4, 5))
        self.second, self.linear = nn.Conv2d(5, 6, 2), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.first(x)))
        return self.linear(torch.relu(self.second(x)).mean((2, 3)))


class Clipped(nn.Module):
    """The absolute value, and values that are cut off at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 2, stride=2)
        self.third, self.linear = nn.Linear(16, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardtanh(self.second(self.first(x).abs()), -0.3, 0.5)
        return self.linear(nn.functional.relu6(self.third(x.flatten(1))))


class Gated(nn.Module):
    """Products of two values, a square, and a sine."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, stride=2), nn.Linear(8, 8)
        self.linear = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.first(x).chunk(2, dim=1)
        x = self.second((x * gate.sigmoid()).flatten(1))
        return self.linear(torch.cat([x[:, :4] * x[:, 4:], x[:, :2].square(), x[:, 2:4].sin()], dim=1))


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


def leaky() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(3, 4, 3, stride=2, dilation=2, padding=1),
        nn.LeakyReLU(-0.1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


def sigmoids() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(12, 8),
        nn.Tanh(),
        nn.Linear(8, CLASSES),
    )


def dipping() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(12, 8),
        nn.SiLU(),
        nn.Linear(8, CLASSES),
    )


def maxpool() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(3, 4, 2),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(4, CLASSES),
    )


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(2),
        nn.Conv1d(2, 4, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv1d(4, 2, 3, dilation=2, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(28, CLASSES),
    )


def transposed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(2, 2, 3, stride=3),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "residual": Residual,
    "pooled": pooled,
    "leaky": leaky,
    "sigmoids": sigmoids,
    "dipping": dipping,
    "clipped": Clipped,
    "maxpool": maxpool,
    "dense": Dense,
    "conv1d": conv1d,
    "transposed": transposed,
    "sorted": Sorted,
    "means": Means,
    "moves": Moves,
    "gated": Gated,
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


def build(name: str, dtype: torch.dtype = torch.float64) -> Case:
    """A network in a precision, with a batch of inputs and labels."""
    torch.manual_seed(7)
    model = NETWORKS[name]().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 1.5)
            nn.init.normal_(module.weight)  # negative factors turn intervals around
            nn.init.uniform_(module.bias, 0, 1)
    x = torch.rand(BATCH, *SHAPE, dtype=torch.float64)
    return Case(model.to(dtype), x.to(dtype), torch.tensor([1, 3, 0]))


@pytest.fixture(params=NETWORKS, scope="module")
def case(request: pytest.FixtureRequest) -> Callable[..., Case]:
    """Each of the networks in turn, in a chosen precision."""
    return partial(build, request.param)


def radii(x: Tensor) -> Tensor:
    """A number from 0 to 2 for each feature, [*shape]; 0 for about a third of them."""
    features = torch.arange(x[0].numel(), dtype=x.dtype)
    return ((features * 7) % 11 - 3).clamp(min=0).view(x.shape[1:]) * (2 / 7)


def segments(x: Tensor, eps: float) -> Region:
    directions = torch.randn(5, *x.shape[1:], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return Segments(eps=eps, directions=directions).region(x)


def polytope(x: Tensor, eps: float) -> Region:
    """A box that two rows cut; x is inside, and the only point at radius 0."""
    rows = torch.randn(2, x[0].numel(), generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(x)
    offsets = -(x.flatten(1) @ rows.T) - 0.05 * eps * rows.abs().sum(1)
    return Polytope(linf_box(x, eps), rows.expand(len(x), -1, -1), offsets)


REGIONS: dict[str, Callable[[Tensor, float], Region]] = {
    "linf": lambda x, eps: Linf(eps=eps).region(x),
    "linf of each feature": lambda x, eps: linf_box(x, eps * radii(x)),
    "box": lambda x, eps: Box.checked(x - eps * radii(x), x + 1.5 * eps * radii(x).flip(0)),
    "l2": lambda x, eps: L2(eps=5 * eps).region(x),
    "l2 unclipped": lambda x, eps: L2(eps=5 * eps, clip=None).region(x),
    "l1": lambda x, eps: L1(eps=15 * eps).region(x),
    "segments": segments,
    "first coordinate": lambda x, eps: FirstCoordinate(eps=8 * eps).region(x),
    "polytope": polytope,
}


FEW = {"dipping": ("linf", "l2"), "gated": ("linf", "l2", "segments")}  # regions of networks that are slow to bound
PLACES = [(name, region) for name in NETWORKS for region in FEW.get(name, REGIONS)]


@pytest.fixture(params=PLACES, ids="-".join)
def place(request: pytest.FixtureRequest) -> tuple[Callable[..., Case], Callable[[Tensor, float], Region]]:
    """Each of the networks with each kind of region, by radius; radius 0 is the input itself."""
    name, region = request.param
    return partial(build, name), REGIONS[region]


@pytest.fixture(scope="session")
def regions() -> dict[str, Callable[[Tensor, float], Region]]:
    """Every kind of region by its name."""
    return REGIONS


@pytest.fixture(scope="session")
def hard_points() -> Callable[..., Tensor]:
    """Points of a region that are the most likely to violate bounds, [N, B, *shape]."""

    def find(graph: Graph, region: Region, x: Tensor, spec: Tensor, *, count: int = 20, steps: int = 8) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        sampled, hull = region.sample(2 * count, generator), region.hull
        corners = region.project(torch.where(sampled > hull.center, hull.upper, hull.lower))
        samples = torch.arange(len(x)).repeat(spec.shape[1])  # an attack on each form
        rows = spec.transpose(0, 1).flatten(0, 1)

        def objective(points: Tensor) -> Tensor:
            return -(graph(points.flatten(0, 1)).unflatten(0, points.shape[:2]) * rows).sum(-1)

        worst = PGD(steps=steps, clean_start=True)(objective, region.take(samples), x[samples], generator)
        attacked = worst.unflatten(0, (spec.shape[1], len(x)))
        points = torch.cat([sampled[:count], corners, region.project(x)[None], attacked])
        # projections on a polytope leave it by small errors: a step towards x, which lies inside, takes them back
        return x + (1 - 1e-5) * (points - x) if isinstance(region, Polytope) else points

    return find

"""Small networks of random layers of every kind: no point of a region violates a bound of any domain."""

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kinds import ours
from torch import Tensor, nn

from ctbench.domains import Crown, coap, crown, domain, domains, zonotope
from ctbench.domains.relaxations import one, parallel, zero
from ctbench.graph import freeze, trace, walk_forward

LARGEST = 60  # entries of a value; more makes the searches slow
Shape = tuple[int, ...]
Layer = Callable[[Random, Shape], nn.Module]  # of an input shape; one that does not fit it is not used
IMAGES: dict[str, Layer] = {}  # layers of [C, H, W]
ROWS: dict[str, Layer] = {}  # of [C, L]
VECTORS: dict[str, Layer] = {}  # of [n]
OF_RANK = {3: IMAGES, 2: ROWS, 1: VECTORS}


class Apply(nn.Module):
    """A function of the outputs of some layers for one input."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers or [nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        return self.function(*(layer(x) for layer in self.layers))


class Times(nn.Module):
    """x * factor + bias, of parameters that broadcast."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.factor, self.bias = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(shape) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.bias


def of(kind: dict[str, Layer], name: str) -> Callable[[Layer], Layer]:
    return lambda layer: kind.setdefault(name, layer)


RELU: dict[str, Layer] = {"relu": lambda draw, shape: nn.ReLU()}  # as often as all others
ACTIVATIONS: dict[str, Layer] = {
    "leaky relu": lambda draw, shape: nn.LeakyReLU(draw.choice([0.0, 0.1, 0.9, 1.0, -0.3, 1.5])),
    "abs": lambda draw, shape: Apply(torch.abs),
    "hardtanh": lambda draw, shape: nn.Hardtanh(draw.choice([-1.0, -0.1]), draw.choice([0.05, 1.0])),
    "clamp": lambda draw, shape: Apply(lambda x: x.clamp(max=0.3)),
    "relu6": lambda draw, shape: nn.ReLU6(),
    "sigmoid": lambda draw, shape: nn.Sigmoid(),
    "tanh": lambda draw, shape: nn.Tanh(),
    "gelu or silu": lambda draw, shape: draw.choice([nn.GELU(), nn.SiLU()]),
}
OTHERS: dict[str, Layer] = {
    "dropout": lambda draw, shape: nn.Dropout(0.5),
    "number": lambda draw, shape: Apply(draw.choice([lambda x: 0.5 - 2 * x, lambda x: (x + 1) / 3])),
    "parameters": lambda draw, shape: Times(tuple(draw.choice([1, size]) for size in shape)),
    "flip": lambda draw, shape: Apply(lambda x: x.flip(-1).roll(1, 1)),
    "slice": lambda draw, shape: Apply(lambda x: x[..., (shape[-1] > 2) :]),
    "off the mean": lambda draw, shape: Apply(lambda x: x - x.mean(-1, keepdim=True).expand(-1, *shape)),
}


@of(IMAGES, "convolution")
def _(draw: Random, shape: Shape) -> nn.Module:
    groups, channels = draw.choice([1, shape[0]]), draw.randint(1, 2)
    kernel, stride = [draw.randint(1, 3) for _ in "yx"], [draw.randint(1, 2) for _ in "yx"]
    padding, dilation = [draw.randint(0, 3) for _ in "yx"], [draw.randint(1, 2) for _ in "yx"]
    return nn.Conv2d(shape[0], groups * channels, kernel, stride, padding, dilation, groups, draw.random() < 0.7)


@of(IMAGES, "convolution that pads")
def _(draw: Random, shape: Shape) -> nn.Module:
    mode = draw.choice(["zeros", "replicate", "reflect", "circular"])
    return nn.Conv2d(shape[0], 2, 2, padding="same", padding_mode=mode)


@of(IMAGES, "transposed convolution")
def _(draw: Random, shape: Shape) -> nn.Module:
    stride, groups, dilation = draw.randint(1, 2), draw.choice([1, shape[0]]), draw.randint(1, 2)
    kernel, padding, over = draw.randint(2, 3), draw.randint(0, 1), draw.randint(0, stride - 1)
    return nn.ConvTranspose2d(shape[0], groups, kernel, stride, padding, over, groups, draw.random() < 0.7, dilation)


@of(IMAGES, "batch norm")
def _(draw: Random, shape: Shape) -> nn.Module:
    return nn.BatchNorm2d(shape[0], affine=draw.random() < 0.7)


@of(IMAGES, "mean pooling")
def _(draw: Random, shape: Shape) -> nn.Module:
    return nn.AvgPool2d(draw.randint(1, 3), draw.randint(1, 2), draw.randint(0, 1))


@of(IMAGES, "greatest value")
def _(draw: Random, shape: Shape) -> nn.Module:
    return nn.MaxPool2d(draw.randint(1, 3), draw.randint(1, 2), draw.randint(0, 1), ceil_mode=draw.random() < 0.5)


@of(IMAGES, "adaptive pooling")
def _(draw: Random, shape: Shape) -> nn.Module:
    return nn.AdaptiveAvgPool2d((draw.randint(1, 4), draw.choice([None, 1, 2])))


@of(IMAGES, "padding")
def _(draw: Random, shape: Shape) -> nn.Module:
    kinds = [nn.ReflectionPad2d(1), nn.ReplicationPad2d((1, 0, 0, 1)), nn.ConstantPad2d((1, 0, 2, -1), 0.4)]
    return draw.choice(kinds)


@of(IMAGES, "pixels and channels")
def _(draw: Random, shape: Shape) -> nn.Module:
    return draw.choice([nn.PixelUnshuffle(2), nn.PixelShuffle(2), nn.ChannelShuffle(2)])


@of(IMAGES, "permutation")
def _(draw: Random, shape: Shape) -> nn.Module:
    order = draw.sample([1, 2, 3], 3)
    return Apply(lambda x: x.permute(0, *order))


@of(IMAGES, "row of pixels")
def _(draw: Random, shape: Shape) -> nn.Module:
    return nn.Flatten(2)


@of(IMAGES, "mean of all pixels")
def _(draw: Random, shape: Shape) -> nn.Module:
    return Apply(lambda x: x.mean((2, 3)))


@of(IMAGES, "linear layer of every row")
def _(draw: Random, shape: Shape) -> nn.Module:
    return nn.Linear(shape[-1], draw.randint(1, 3), draw.random() < 0.7)


@of(ROWS, "convolution in one dimension")
def _(draw: Random, shape: Shape) -> nn.Module:
    kernel, stride, padding = draw.randint(1, 3), draw.randint(1, 2), draw.randint(0, 2)
    return nn.Conv1d(shape[0], draw.randint(1, 3), kernel, stride, padding, bias=draw.random() < 0.7)


@of(ROWS, "batch norm of rows")
def _(draw: Random, shape: Shape) -> nn.Module:
    return nn.BatchNorm1d(shape[0])


@of(ROWS, "image of one row")
def _(draw: Random, shape: Shape) -> nn.Module:
    return Apply(lambda x: x.unsqueeze(2))


@of(VECTORS, "linear layer")
def _(draw: Random, shape: Shape) -> nn.Module:
    return nn.Linear(shape[0], draw.randint(1, 8), draw.random() < 0.7)


@of(VECTORS, "batch norm of vectors")
def _(draw: Random, shape: Shape) -> nn.Module:
    return nn.BatchNorm1d(shape[0], affine=draw.random() < 0.7)


@of(VECTORS, "image of vectors")
def _(draw: Random, shape: Shape) -> nn.Module:
    return nn.Unflatten(1, (1, 1, shape[0]))


def branches(draw: Random, shape: Shape) -> nn.Module:
    """One or two layers, joined with their input, or with another tensor of the shape of their output."""
    layers, after = chain(draw, shape, draw.randint(1, 2), branching=False)
    first, second = nn.Sequential(*layers), nn.Identity()
    if after != shape:
        second = nn.Sequential(first, Times(after), Apply(lambda x: x.flip(-1)))
    join = draw.choice([
        torch.add, torch.sub, torch.maximum, torch.minimum, lambda a, b: a + b / 2, lambda a, b: torch.cat([a, b], 1),
        lambda a, b: torch.stack([a, b, b - a], 1).amax(1),
    ])  # fmt: skip
    return Apply(join, first, second)


def chain(draw: Random, shape: Shape, count: int, *, branching: bool) -> tuple[list[nn.Module], Shape]:
    """Random layers, one after another, and their output shape."""
    layers: list[nn.Module] = []
    groups = [RELU, ACTIVATIONS, OTHERS, *([{"branches": branches}] if branching else [])]
    while len(layers) < count:
        kinds = draw.choice([OF_RANK[len(shape)], *groups])
        layer = draw.choice(list(kinds.values()))(draw, shape)
        after = shape_of(layer, shape)
        if after and 0 < torch.Size(after).numel() <= LARGEST:
            layers, shape = [*layers, layer], after
    return layers, shape


def shape_of(layer: nn.Module, shape: Shape) -> Shape | None:
    """The output shape of a layer; None if the layer does not fit."""
    try:
        return tuple(layer.eval()(torch.zeros(2, *shape))[0].shape)
    except (RuntimeError, ValueError):
        return None


def network(seed: int) -> tuple[nn.Module, Shape]:
    """A network of two to five random layers with three outputs, and its input shape."""
    draw = Random(seed)
    torch.manual_seed(seed)
    shape = draw.choice([(1, 4, 5), (2, 3, 3), (2, 4, 4), (3, 6), (7,)])
    layers, after = chain(draw, shape, draw.randint(2, 5), branching=True)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(torch.Size(after).numel(), 3)).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 1.5)
        elif getattr(module, "weight", None) is not None:
            module.weight.data *= 1.5  # so that fewer activations are stable
    return model, shape


SETTINGS: list[tuple[str, dict[str, object]]] = [
    *((name, {"steps": 2} if name == "alpha-crown" else {}) for name in sorted(ours(domains()))),
    ("alpha-crown", {"steps": 1, "intermediate": True}),
    ("crown-ibp", {"slope": zero}),
    ("crown-ibp", {"slope": one}),
    ("crown-ibp", {"slope": parallel}),
    ("zonotope", {"fold": 5}),
]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_no_point_violates_a_bound_of_a_random_network(regions, hard_points):
    seen: Counter[str] = Counter()

    @settings(deadline=None, derandomize=True, max_examples=100)
    @given(st.integers(0, 10**6), st.sampled_from(sorted(regions)), st.sampled_from([0.02, 0.1, 0.5]))
    def check(seed: int, kind: str, eps: float) -> None:
        model, shape = network(seed)
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
        graph, region = freeze(trace(model, shape), x)[0].detach(), regions[kind](x, eps)
        spec = torch.cat([torch.eye(3), -torch.eye(3), torch.randn(2, 3, generator=generator)]).double()
        spec = spec.expand(2, -1, -1)
        points = hard_points(graph, region, x, spec, count=30, steps=5)
        reached = walk_forward(graph, lambda node, *inputs: node.op(*inputs), points.flatten(0, 1))
        values = [value.unflatten(0, points.shape[:2]) for value in reached]
        lowest = torch.einsum("nbk,bsk->nbs", values[-1], spec).amin(0)
        inner = {"crown": crown.boxes(graph, region), "pure": Crown(pure=True).boxes(graph, region)}
        for name, options in SETTINGS:
            boxes = inner["crown"] if name in ("crown", "alpha-crown") else None
            bound = domain(name, **options).lower_bounds(graph, region, spec, inner=boxes)
            assert (bound <= lowest + 1e-9 * (1 + lowest.abs())).all(), (name, options, model)
        for enclosure in (*inner.values(), zonotope.boxes(graph, region), coap.boxes(graph, region)):
            for node, box, value in zip(graph.nodes, enclosure, values, strict=True):
                slack = 1e-9 * (1 + value.abs().amax(0))
                assert (box.lower <= value.amin(0) + slack).all(), (node.name, model)
                assert (box.upper >= value.amax(0) - slack).all(), (node.name, model)
        seen.update({type(node.op).__name__ for node in graph.nodes} | {kind})

    check()
    assert len({name for name in seen if name[0].isupper()}) >= 20  # kinds of ops
    assert set(regions) <= set(seen)

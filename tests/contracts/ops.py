"""An example of every op, which test_ops asks for, and the layers that they come from."""

import math

import torch
from torch import Tensor, nn

from ctbench.graph import Affine, Op, lower
from ctbench.graph.ops import (
    GELU,
    Abs,
    Absolute,
    Clamp,
    Conv2d,
    LeakyReLU,
    Mean,
    ReLU,
    Scale,
    ScaledConv2d,
    Shape,
    Shift,
    Sigmoid,
    SiLU,
    Tanh,
)
from ctbench.networks import Normalize


def batch_norm(channels: int) -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(channels)
    module.running_mean.copy_(torch.linspace(-1, 1, channels))
    module.running_var.copy_(torch.linspace(0.5, 2, channels))
    with torch.no_grad():
        module.weight.copy_(torch.linspace(-2, 1, channels))  # negative factors turn intervals around
        module.bias.copy_(torch.linspace(1, -1, channels))
    return module


def rand(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


# name: a layer and the shape of its input
LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), (5,)),
    "linear without bias": (lambda: nn.Linear(5, 3, bias=False), (5,)),
    "linear on rows": (lambda: nn.Linear(5, 3), (2, 5)),
    "linear on images": (lambda: nn.Linear(5, 3), (2, 3, 5)),
    "conv": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 4, 5)),
    "conv without bias": (lambda: nn.Conv2d(2, 3, 3, bias=False), (2, 4, 5)),
    "conv with rows left over": (lambda: nn.Conv2d(2, 3, 2, stride=3), (2, 7, 10)),
    "conv with padding left over": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 6, 7)),
    "conv as a shortcut": (lambda: nn.Conv2d(2, 3, 1, stride=2), (2, 4, 5)),
    "conv with dilation": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=2, dilation=2), (2, 6, 7)),
    "conv with groups": (lambda: nn.Conv2d(4, 6, 3, stride=2, groups=2), (4, 6, 5)),
    "conv by channel": (lambda: nn.Conv2d(3, 3, 2, dilation=3, stride=4, groups=3), (3, 7, 10)),
    "conv of unequal sides": (lambda: nn.Conv2d(2, 3, (1, 4), (3, 2), (0, 2), (1, 1)), (2, 5, 5)),
    "conv with valid padding": (lambda: nn.Conv2d(2, 3, 3, padding="valid"), (2, 4, 5)),
    "conv with same padding": (lambda: nn.Conv2d(2, 3, 3, padding="same", dilation=2), (2, 4, 5)),
    "conv with unequal padding": (lambda: nn.Conv2d(2, 3, (2, 4), padding="same"), (2, 4, 5)),
    "conv with reflection": (lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"), (2, 4, 5)),
    "conv with replication": (lambda: nn.Conv2d(2, 3, 3, 2, padding=2, padding_mode="replicate"), (2, 4, 5)),
    "conv in a circle": (lambda: nn.Conv2d(2, 3, 3, padding="same", padding_mode="circular"), (2, 4, 5)),
    "conv of sequences": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1, bias=False), (2, 8)),
    "conv of sequences with options": (lambda: nn.Conv1d(4, 6, 2, dilation=3, groups=2), (4, 7)),
    "transposed conv": (lambda: nn.ConvTranspose2d(2, 3, 3), (2, 4, 5)),
    "transposed conv without bias": (lambda: nn.ConvTranspose2d(2, 3, 2, stride=2, bias=False), (2, 4, 5)),
    "transposed conv with padding": (lambda: nn.ConvTranspose2d(2, 3, 3, 2, padding=1), (2, 3, 4)),
    "transposed conv with groups": (lambda: nn.ConvTranspose2d(4, 6, 3, (2, 1), (1, 0), groups=2), (4, 3, 4)),
    "transposed conv with more rows": (lambda: nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1), (2, 3, 4)),
    "transposed conv with dilation": (lambda: nn.ConvTranspose2d(2, 3, 3, 3, 1, (2, 1), dilation=2), (2, 3, 4)),
    "transposed conv with more rows than its stride": (
        lambda: nn.ConvTranspose2d(2, 3, 3, 1, 1, output_padding=(2, 1), dilation=3),
        (2, 3, 4),
    ),
    "average pooling": (lambda: nn.AvgPool2d(2), (2, 5, 4)),
    "average pooling that overlaps": (lambda: nn.AvgPool2d(3, stride=2, padding=1), (2, 6, 7)),
    "average pooling with gaps": (lambda: nn.AvgPool2d((1, 2), stride=3), (2, 6, 7)),
    "adaptive pooling": (lambda: nn.AdaptiveAvgPool2d(1), (2, 6, 7)),
    "adaptive pooling of uneven parts": (lambda: nn.AdaptiveAvgPool2d([4, 3]), (2, 6, 7)),
    "adaptive pooling of repeated parts": (lambda: nn.AdaptiveAvgPool2d((None, 9)), (2, 3, 4)),
    "normalise": (lambda: Normalize([0.1, 0.7], [0.5, 0.2]), (2, 3, 2)),
    "normalise vectors": (lambda: Normalize([0.1, 0.7], [0.5, 0.2], spatial=0), (2,)),
    "batch norm": (lambda: batch_norm(3), (3, 2, 2)),
    "dropout": (lambda: nn.Dropout(0.5), (3, 2)),
    "dropout of channels": (lambda: nn.Dropout2d(0.5), (3, 2, 2)),
    "flatten": (lambda: nn.Flatten(), (2, 3, 2)),
    "flatten the end": (lambda: nn.Flatten(2), (2, 3, 2)),
    "flatten the middle": (lambda: nn.Flatten(1, 2), (2, 3, 2)),
    "unflatten": (lambda: nn.Unflatten(1, (2, 3)), (6, 2)),
    "identity": (lambda: nn.Identity(), (2, 3)),
    "zeros around": (lambda: nn.ZeroPad2d((1, 2, 0, 1)), (2, 3, 2)),
    "zeros around, and a cut": (lambda: nn.ZeroPad2d((-1, 2, 0, 1)), (2, 3, 3)),
    "a constant around": (lambda: nn.ConstantPad2d((1, 0, 2, 0), -0.7), (2, 3, 2)),
    "a constant at the ends": (lambda: nn.ConstantPad1d(2, 0.3), (2, 3)),
    "reflection": (lambda: nn.ReflectionPad2d((1, 0, 2, 1)), (2, 3, 2)),
    "replication": (lambda: nn.ReplicationPad2d((1, 0, 2, 1)), (2, 3, 2)),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), (8, 2, 3)),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), (2, 4, 6)),
    "channel shuffle": (lambda: nn.ChannelShuffle(3), (6, 2, 2)),
}
# ops that come from functions or from other ops, which tests/graph compares with torch
CONV = Conv2d(rand(3, 2, 3, 3), rand(3), (2, 1), (1, 0), (1, 1), 1, (2, 5, 4))
FUNCTIONS = {
    "scaled conv": (ScaledConv2d.of(CONV, Scale(rand(3, 1, 1), rand(3, 1, 1))), (2, 5, 4)),
    "mean": (Mean((0, 2), (2, 3, 4)), (2, 3, 4)),
    "mean of all": (Mean((0,), (5,)), (5,)),
    "shift": (Shift(torch.linspace(-1, 2, 3).double().view(3, 1)), (3, 2)),
    "one shift for all": (Shift(torch.tensor(0.5).double()), (3, 2)),
}


def build(name: str) -> tuple[nn.Module, list[Op], Shape]:
    """A layer, and its frozen ops in order."""
    torch.manual_seed(3)
    make, shape = LAYERS[name]
    layer = make().double().eval()
    lowered = lower(layer, shape)
    ops, x = [], torch.zeros(2, *shape, dtype=torch.float64)
    for op in lowered if isinstance(lowered, tuple) else (lowered,):
        ops.append(op.freeze(x, training=False))
        x = ops[-1](x)
    return layer, ops, shape


def affine() -> dict[str, tuple[Affine, Shape]]:
    """Every affine op of the examples, with the shape of its input."""
    functions = dict(FUNCTIONS)
    for name in LAYERS:
        _, ops, shape = build(name)
        for op in ops:
            functions[name if len(ops) == 1 else f"{name}: {type(op).__name__.lower()} of {shape}"] = (op, shape)
            shape = op.shape(shape)
    return functions


AFFINE = affine()


ELEMENTWISE = {
    "relu": (ReLU(), nn.ReLU()),
    "leaky relu": (LeakyReLU(0.1), nn.LeakyReLU(0.1)),
    "steep relu": (LeakyReLU(2.0), nn.LeakyReLU(2.0)),
    "falling relu": (LeakyReLU(-0.5), nn.LeakyReLU(-0.5)),
    "abs": (Abs(), Absolute()),
    "hardtanh": (Clamp(-1.0, 1.0), nn.Hardtanh()),
    "relu6": (Clamp(0.0, 6.0), nn.ReLU6()),
    "cut above": (Clamp(-math.inf, 0.5), nn.Hardtanh(-math.inf, 0.5)),
    "cut below": (Clamp(0.5, math.inf), nn.Hardtanh(0.5, math.inf)),
    "uncut": (Clamp(-math.inf, math.inf), nn.Hardtanh(-math.inf, math.inf)),
    "sigmoid": (Sigmoid(), nn.Sigmoid()),
    "tanh": (Tanh(), nn.Tanh()),
    "gelu": (GELU(), nn.GELU()),
    "silu": (SiLU(), nn.SiLU()),
}

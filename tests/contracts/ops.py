"""An example of every op, which test_ops asks for, and the layers that they come from."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mpmath
import torch
from torch import Tensor, nn

from ctbench.graph import Affine, Elementwise, Op, lower
from ctbench.graph.ops import (
    ELU,
    GELU,
    Abs,
    Absolute,
    AlongAxis,
    Atan,
    CappedExp,
    Clamp,
    ClampEach,
    Conv2d,
    Cos,
    Erf,
    Exp,
    Floor,
    Given,
    Hardswish,
    Heaviside,
    LeakyReLU,
    Log,
    Mean,
    Mish,
    Power,
    PReLU,
    ReLU,
    Round,
    Scale,
    ScaledConv2d,
    Shape,
    Shift,
    Sigmoid,
    Sign,
    SiLU,
    Sin,
    Softplus,
    Softshrink,
    Softsign,
    Tan,
    Tanh,
    TanhGELU,
    Trunc,
    along,
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


def volume_norm(channels: int) -> nn.BatchNorm3d:
    module = nn.BatchNorm3d(channels)
    module.load_state_dict(batch_norm(channels).state_dict())
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
    "conv of sequences with same padding": (lambda: nn.Conv1d(2, 3, 4, padding="same"), (2, 6)),
    "conv of sequences with reflection": (
        lambda: nn.Conv1d(2, 3, 3, 2, padding=2, padding_mode="reflect"),
        (2, 6),
    ),
    "conv of volumes in a circle": (
        lambda: nn.Conv3d(1, 2, 2, padding=(1, 0, 1), padding_mode="circular"),
        (1, 3, 2, 2),
    ),
    "batch norm of volumes": (lambda: volume_norm(3), (3, 2, 1, 2)),
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
    "reflection of sequences": (lambda: nn.ReflectionPad1d((2, 1)), (2, 5)),
    "replication of volumes": (lambda: nn.ReplicationPad3d(1), (1, 2, 2, 2)),
    "circle": (lambda: nn.CircularPad2d((1, 0, 2, 1)), (2, 3, 2)),
    "unfold": (lambda: nn.Unfold(2), (2, 3, 3)),
    "nearest": (lambda: nn.Upsample(scale_factor=2), (2, 3, 2)),
    "nearest of another size": (lambda: nn.Upsample((4, 3)), (2, 3, 2)),
    "linear interpolation": (lambda: nn.Upsample(scale_factor=1.5, mode="linear"), (2, 5)),
    "bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (2, 3, 2)),
    "bilinear with corners": (lambda: nn.Upsample((5, 4), mode="bilinear", align_corners=True), (2, 3, 2)),
    "bilinear, smaller": (lambda: nn.Upsample((2, 3), mode="bilinear"), (2, 5, 4)),
    "bicubic": (lambda: nn.Upsample(scale_factor=1.5, mode="bicubic"), (2, 3, 5)),
    "bicubic with corners": (lambda: nn.Upsample((2, 7), mode="bicubic", align_corners=True), (2, 5, 4)),
    "trilinear": (lambda: nn.Upsample(scale_factor=2, mode="trilinear"), (1, 2, 3, 2)),
    "average of windows rounded up": (lambda: nn.AvgPool2d(3, 2, ceil_mode=True), (2, 6, 6)),
    "average without padding": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 6, 5)),
    "average rounded up with padding": (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), (2, 6, 4)),
    "average with a divisor": (lambda: nn.AvgPool2d(2, divisor_override=3), (2, 4, 4)),
    "average of sequences": (lambda: nn.AvgPool1d(3, 2, 1), (2, 7)),
    "average of volumes": (lambda: nn.AvgPool3d(2, 1), (1, 3, 3, 2)),
    "adaptive pooling of sequences": (lambda: nn.AdaptiveAvgPool1d(3), (2, 7)),
    "adaptive pooling of volumes": (lambda: nn.AdaptiveAvgPool3d((2, 1, 3)), (1, 3, 2, 4)),
    "transposed conv of sequences": (lambda: nn.ConvTranspose1d(2, 3, 3, 2, 1, 1), (2, 4)),
    "conv of volumes": (lambda: nn.Conv3d(2, 3, 2, (1, 2, 1), (1, 0, 0)), (2, 3, 5, 4)),
    "transposed conv of volumes": (lambda: nn.ConvTranspose3d(2, 3, (2, 1, 3), (2, 1, 1), (1, 0, 0)), (2, 2, 3, 2)),
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
    "matrix along an axis": (AlongAxis(rand(4, 3), 1), (2, 3, 2)),
    "sums along an axis": (AlongAxis.of(along.cumulative(4), 4, 0), (4, 2)),
    "differences": (AlongAxis.of(along.differences(3), 3, 1), (2, 3)),
    "centred": (AlongAxis.of(along.centred(3), 3, 0), (3,)),
    "a constant": (Given(rand(2, 3), (4,)), (4,)),
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


# functions with numbers of their own for each entry
EACH = {
    "prelu": PReLU(torch.tensor([0.25], dtype=torch.float64)),
    "steep prelu": PReLU(torch.tensor([-1.5], dtype=torch.float64)),
    "clamp of each entry": ClampEach(torch.tensor([-0.5]).double(), torch.tensor([1.0]).double()),
    "clamp from below": ClampEach(torch.tensor([0.5]).double(), torch.tensor([math.inf]).double()),
    "clamp from above": ClampEach(torch.tensor([-math.inf]).double(), torch.tensor([0.5]).double()),
    "clamp of crossed ends": ClampEach(torch.tensor([1.0]).double(), torch.tensor([0.5]).double()),
}
OPS = {name: op for name, (op, _) in ELEMENTWISE.items()} | EACH


@dataclass(frozen=True)
class CurveExample:
    """A function of one variable, with the same function in mpmath, and the numbers for which it is tested."""

    op: Elementwise
    exact: Callable[[Any], Any]
    range: tuple[float, float]
    places: tuple[float, ...] = ()  # where its slope changes direction, or jumps
    slack: dict[torch.dtype, float] = field(default_factory=lambda: {torch.float64: 1e-10, torch.float32: 1e-5})


def _elu(z: Any) -> Any:
    return z if z > 0 else mpmath.mpf(1.5) * (mpmath.exp(z) - 1)


def _softplus(z: Any) -> Any:
    return mpmath.log(1 + mpmath.exp(z))


def _tanh_gelu(z: Any) -> Any:
    inner = mpmath.sqrt(2 / mpmath.pi) * (z + mpmath.mpf("0.044715") * z**3)
    return z / 2 * (1 + mpmath.tanh(inner))


CURVES = {
    "exp": CurveExample(Exp(), mpmath.exp, (-30, 20)),
    "capped exp": CurveExample(CappedExp(5.0), lambda z: mpmath.exp(min(z, 5)), (-9, 9), (5,)),
    "log": CurveExample(Log(), mpmath.log, (1e-4, 50)),
    "square": CurveExample(Power(2.0), lambda z: z**2, (-8, 9), (0,)),
    "cube": CurveExample(Power(3.0), lambda z: z**3, (-8, 9), (0,)),
    "fifth power": CurveExample(Power(5.0), lambda z: z**5, (-3, 4), (0,)),
    "square root": CurveExample(Power(0.5), mpmath.sqrt, (0, 30)),
    "reciprocal": CurveExample(Power(-1.0), lambda z: 1 / z, (0.01, 30)),
    "negative reciprocal": CurveExample(Power(-1.0), lambda z: 1 / z, (-30, -0.01)),
    "inverse square": CurveExample(Power(-2.0), lambda z: 1 / z**2, (-30, -0.1)),
    "reciprocal root": CurveExample(Power(-0.5), lambda z: 1 / mpmath.sqrt(z), (1e-3, 30)),
    "power 1.7": CurveExample(Power(1.7), lambda z: z ** mpmath.mpf(1.7), (0, 9)),
    "sin": CurveExample(Sin(), mpmath.sin, (-9, 20), tuple(k * math.pi / 2 for k in range(-4, 10))),
    "cos": CurveExample(Cos(), mpmath.cos, (-9, 20), tuple(k * math.pi / 2 for k in range(-4, 10))),
    "tan": CurveExample(Tan(), mpmath.tan, (1.7, 4.6), (math.pi,)),
    "atan": CurveExample(Atan(), mpmath.atan, (-20, 20), (0,)),
    "erf": CurveExample(Erf(), mpmath.erf, (-6, 6), (0,)),
    "softplus": CurveExample(Softplus(), _softplus, (-40, 40), (0,)),
    "softsign": CurveExample(Softsign(), lambda z: z / (1 + abs(z)), (-30, 30), (0,)),
    "elu": CurveExample(ELU(1.5), _elu, (-20, 20), (0,)),
    "hardswish": CurveExample(Hardswish(), lambda z: z * min(max(z + 3, 0), 6) / 6, (-8, 8), (-3, 3, -1.5)),
    "mish": CurveExample(Mish(), lambda z: z * mpmath.tanh(_softplus(z)), (-30, 30), (-2.256, 1.49, -1.19)),
    "gelu with tanh": CurveExample(TanhGELU(), _tanh_gelu, (-15, 15), (-1.4185, 1.4185, -0.75)),
    "sign": CurveExample(Sign(), mpmath.sign, (-4, 5), (0,)),
    "heaviside": CurveExample(Heaviside(), lambda z: int(z >= 0), (-4, 5), (0,)),
    "trunc": CurveExample(Trunc(), lambda z: mpmath.sign(z) * mpmath.floor(abs(z)), (-4, 5), (-3, -2, -1, 1, 2, 3, 4)),
    "round": CurveExample(Round(), mpmath.nint, (-4, 5), (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5)),
    "floor": CurveExample(Floor(), mpmath.floor, (-4, 5), (-2, -1, 0, 1, 2)),
    "softshrink": CurveExample(
        Softshrink(0.5), lambda z: z - mpmath.sign(z) * min(abs(z), mpmath.mpf(0.5)), (-4, 4), (-0.5, 0.5)
    ),
}

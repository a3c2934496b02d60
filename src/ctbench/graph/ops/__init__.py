"""The ops of a network, as values: one file per kind, one section per op.

A new op is a dataclass of one of the two families in `base`, and a function that is registered with `lower` for the
layer it comes from.
"""

from ctbench.graph.ops.activations import ELU, Hardswish, Mish, Softplus, Softsign, TanhGELU
from ctbench.graph.ops.along import AlongAxis, Given
from ctbench.graph.ops.averages import AdaptiveAvgPool2d, AvgPool2d, Mean
from ctbench.graph.ops.base import Affine, Elementwise, Input, Lines, Op, Positive, Shape, UnsupportedLayerError, lower
from ctbench.graph.ops.convolutions import Conv2d, Conv3d, Convolution, ConvTranspose, ConvTranspose2d, ConvTranspose3d
from ctbench.graph.ops.curves import Atan, CappedExp, Cos, Curve, Erf, Exp, Log, Power, Sin, Tan
from ctbench.graph.ops.joins import Add, Concat, Max
from ctbench.graph.ops.linear import BatchNorm, Dropout, Linear, Scale, ScaledConv2d
from ctbench.graph.ops.moves import Reshape, Select, Shift, rearrangement
from ctbench.graph.ops.piecewise import (
    Abs,
    Absolute,
    Clamp,
    ClampEach,
    Kinked,
    Known,
    LeakyReLU,
    PiecewiseLinear,
    PReLU,
    ReLU,
    Softshrink,
)
from ctbench.graph.ops.products import Planes, Product
from ctbench.graph.ops.refined import MeanOfRows, Normalised, Refined
from ctbench.graph.ops.resampling import resized
from ctbench.graph.ops.smooth import GELU, Sigmoid, SiLU, Smooth, Tanh
from ctbench.graph.ops.steps import Floor, Heaviside, Round, Sign, Step, Trunc

__all__ = [
    "ELU",
    "GELU",
    "Abs",
    "Absolute",
    "AdaptiveAvgPool2d",
    "Add",
    "Affine",
    "AlongAxis",
    "Atan",
    "AvgPool2d",
    "BatchNorm",
    "CappedExp",
    "Clamp",
    "ClampEach",
    "Concat",
    "Conv2d",
    "Conv3d",
    "ConvTranspose",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Convolution",
    "Cos",
    "Curve",
    "Dropout",
    "Elementwise",
    "Erf",
    "Exp",
    "Floor",
    "Given",
    "Hardswish",
    "Heaviside",
    "Input",
    "Kinked",
    "Known",
    "LeakyReLU",
    "Linear",
    "Lines",
    "Log",
    "Max",
    "Mean",
    "MeanOfRows",
    "Mish",
    "Normalised",
    "Op",
    "PReLU",
    "PiecewiseLinear",
    "Planes",
    "Positive",
    "Power",
    "Product",
    "ReLU",
    "Refined",
    "Reshape",
    "Round",
    "Scale",
    "ScaledConv2d",
    "Select",
    "Shape",
    "Shift",
    "SiLU",
    "Sigmoid",
    "Sign",
    "Sin",
    "Smooth",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Step",
    "Tan",
    "Tanh",
    "TanhGELU",
    "Trunc",
    "UnsupportedLayerError",
    "lower",
    "rearrangement",
    "resized",
]

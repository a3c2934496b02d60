"""The ops of a network, as values: one file per kind, one section per op.

A new op is a dataclass of one of the two families in `base`, and a function that is registered with `lower` for the
layer it comes from.
"""

from ctbench.graph.ops.averages import AdaptiveAvgPool2d, AvgPool2d, Mean
from ctbench.graph.ops.base import Affine, Elementwise, Input, Lines, Op, Positive, Shape, UnsupportedLayerError, lower
from ctbench.graph.ops.joins import Add, Concat, Max
from ctbench.graph.ops.linear import (
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Linear,
    Scale,
    ScaledConv2d,
)
from ctbench.graph.ops.moves import Reshape, Select, Shift, rearrangement
from ctbench.graph.ops.piecewise import Abs, Absolute, Clamp, LeakyReLU, PiecewiseLinear, ReLU
from ctbench.graph.ops.smooth import GELU, Sigmoid, SiLU, Smooth, Tanh

__all__ = [
    "GELU",
    "Abs",
    "Absolute",
    "AdaptiveAvgPool2d",
    "Add",
    "Affine",
    "AvgPool2d",
    "BatchNorm",
    "Clamp",
    "Concat",
    "Conv2d",
    "ConvTranspose2d",
    "Dropout",
    "Elementwise",
    "Input",
    "LeakyReLU",
    "Linear",
    "Lines",
    "Max",
    "Mean",
    "Op",
    "PiecewiseLinear",
    "Positive",
    "ReLU",
    "Reshape",
    "Scale",
    "ScaledConv2d",
    "Select",
    "Shape",
    "Shift",
    "SiLU",
    "Sigmoid",
    "Smooth",
    "Tanh",
    "UnsupportedLayerError",
    "lower",
    "rearrangement",
]

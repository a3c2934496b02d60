"""The translation of ONNX operators that are functions of one variable, softmax, or normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.onnx.building import Operator, TracedValue
from ctbench.onnx.operators import single, weighted
from ctbench.onnx.table import reads

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Atan": torch.atan,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Log": torch.log,
    "Reciprocal": torch.reciprocal,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}
_LAYERS: dict[str, Callable[[Operator], nn.Module]] = {
    "Celu": lambda op: nn.CELU(op.attribute("alpha", 1.0)),
    "Elu": lambda op: nn.ELU(op.attribute("alpha", 1.0)),
    "HardSwish": lambda op: nn.Hardswish(),
    "Mish": lambda op: nn.Mish(),
    "Softplus": lambda op: nn.Softplus(),
    "Softsign": lambda op: nn.Softsign(),
}


@reads(*_FUNCTIONS)
def _function(op: Operator) -> TracedValue:
    return op.call(_FUNCTIONS[op.kind], op.value())


@reads(*_LAYERS)
def _layer(op: Operator) -> TracedValue:
    return op.layer(_LAYERS[op.kind](op), op.value())


@reads("HardSigmoid")
def _hard_sigmoid(op: Operator) -> TracedValue:
    """min(max(alpha x + beta, 0), 1)."""
    alpha, beta = op.attribute("alpha", single(0.2)), op.attribute("beta", 0.5)
    return op.call(torch.clamp, op.call(torch.add, op.call(torch.mul, op.value(), alpha), beta), 0.0, 1.0)


@reads("Selu")
def _selu(op: Operator) -> TracedValue:
    """gamma ELU(x)."""
    alpha = op.attribute("alpha", single(1.6732632423543772848))
    gamma = op.attribute("gamma", single(1.0507009873554804934))
    return op.call(torch.mul, op.layer(nn.ELU(alpha), op.value()), gamma)


@reads("PRelu")
def _prelu(op: Operator) -> TracedValue:
    x, slope = op.value(), op.weight(1)
    channels = (1,) * (len(x.shape) - 2)
    if slope.numel() != 1 and tuple(slope.shape) not in ((x.shape[1], *channels), (1, x.shape[1], *channels)):
        negative, slopes = op.call(F.relu, op.call(torch.neg, x)), op.operands()[1]  # torch has slopes of channels only
        return op.call(torch.sub, op.call(F.relu, x), op.call(torch.mul, negative, slopes))
    layer = nn.PReLU(slope.numel(), device="meta")
    layer.weight = nn.Parameter(slope.flatten())
    return op.layer(layer, x)


@reads("Shrink")
def _shrink(op: Operator) -> TracedValue:
    width = op.attribute("lambd", 0.5)
    if op.attribute("bias", 0.0) != width:
        raise op.error("only a bias equal to lambd is supported, with which the function is continuous")
    return op.call(F.softshrink, op.value(), width)


@reads("Pow")
def _pow(op: Operator) -> TracedValue:
    exponent = op.argument(1)
    if isinstance(exponent, np.ndarray) and exponent.size == 1:
        return op.call(torch.pow, op.value(), float(exponent.reshape(())))
    if all(isinstance(each, TracedValue) for each in op.inputs):
        raise op.error("the power of two values is not supported: write it as Exp(Mul(y, Log(x))), for x > 0")
    return op.call(torch.pow, *op.operands())


# ----------------------------------------------------------------------------------------- softmax, normalisation


@reads("Softmax", "LogSoftmax")
def _softmax(op: Operator) -> TracedValue:
    """Along one axis; before opset 13 it goes over the axis and all later ones, which must have size 1."""
    x = op.value()
    axis = op.axis(op.attribute("axis", op.softmax_axis), len(x.shape))
    if op.building.opset < 13 and math.prod(x.shape[axis + 1 :]) != 1:
        raise op.error(
            f"in opset {op.building.opset} it goes over all axes from {axis} on: export with opset 13 or newer"
        )
    return op.call(torch.softmax if op.kind == "Softmax" else torch.log_softmax, x, axis)


@reads("LRN")
def _local_response_normalization(op: Operator) -> TracedValue:
    x, size = op.value(), op.attribute("size")
    if size % 2 == 0:  # ONNX and torch begin such a window at different channels
        raise op.error(f"size {size} is not supported, nor is it by runtimes: give an odd size")
    alpha, beta, bias = op.attribute("alpha", single(1e-4)), op.attribute("beta", 0.75), op.attribute("bias", 1.0)
    return op.call(F.local_response_norm, x, size, alpha, beta, bias)


@reads("LayerNormalization")
def _layer_normalization(op: Operator) -> TracedValue:
    x = op.value()
    shape = x.shape[op.axis(op.attribute("axis", -1), len(x.shape)) :]
    scale, shift = op.weight(1), None if op.argument(2) is None else op.weight(2)
    layer = nn.LayerNorm(shape, op.attribute("epsilon", single(1e-5)), device="meta")
    shift = None if shift is None else shift.broadcast_to(shape).contiguous()
    return op.layer(weighted(layer, scale.broadcast_to(shape).contiguous(), shift), x)


@reads("InstanceNormalization")
def _instance_normalization(op: Operator) -> TracedValue:
    x, scale, shift = op.value(), op.weight(1), op.weight(2)
    kinds: dict[int, type[nn.Module]] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}
    if len(x.shape) not in kinds:
        raise op.error(f"inputs of {len(x.shape)} axes are not supported: give 3 to 5")
    eps = op.attribute("epsilon", single(1e-5))
    return op.layer(weighted(kinds[len(x.shape)](len(scale), eps, affine=True, device="meta"), scale, shift), x)


@reads("GroupNormalization")
def _group_normalization(op: Operator) -> TracedValue:
    x, scale, shift, groups = op.value(), op.weight(1), op.weight(2), op.attribute("num_groups")
    repeats = x.shape[1] // len(scale)  # before opset 21 there is one number for each group
    scale, shift = scale.repeat_interleave(repeats), shift.repeat_interleave(repeats)
    layer = nn.GroupNorm(groups, x.shape[1], op.attribute("epsilon", single(1e-5)), device="meta")
    return op.layer(weighted(layer, scale, shift), x)

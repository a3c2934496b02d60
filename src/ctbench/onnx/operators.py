"""The translation of ONNX operators to torch: one function per operator. Operators that only move entries: moves.py.

An operator becomes a layer, with weights as its parameters, if torch has such a layer, and otherwise a function. Shapes
include the batch dimension of 1 of a file for one sample, and results keep the batch as the first axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.onnx.building import Array, Operator, Shape, TracedValue
from ctbench.onnx.gemm import Gemm
from ctbench.onnx.table import reads
from ctbench.onnx.windows import Layers, Window


def single(number: float) -> float:
    """The default of an attribute, in single precision like all attributes of ONNX."""
    return float(np.float32(number))


def weighted(module: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """The layer with these weights; it was constructed without weights, on the device "meta"."""
    module.weight = nn.Parameter(weight)
    module.register_parameter("bias", None if bias is None else nn.Parameter(bias))
    return module


# ------------------------------------------------------------------------------------------- dense layers


@reads("Gemm")
def _gemm(op: Operator) -> TracedValue:
    """alpha A B + beta C, with constant B and C."""
    if op.attribute("transA", 0):
        raise op.across("transA=1 acts across the batch: a network must treat each sample on its own")
    weight = op.weight(1) if op.attribute("transB", 0) else op.weight(1).T.contiguous()  # [out, in]
    bias = None if op.argument(2) is None else op.weight(2).broadcast_to(1, len(weight))[0].clone()
    alpha, beta = op.attribute("alpha", 1.0), op.attribute("beta", 1.0)
    if alpha == 1 and (bias is None or beta == 1):
        return op.layer(linear(weight, bias), op.value())
    layer = Gemm(weight.shape[1], len(weight), alpha=alpha, beta=beta, bias=bias is not None, device="meta")
    return op.layer(weighted(layer, weight, bias), op.value())


@reads("MatMul")
def _matmul(op: Operator) -> TracedValue:
    """x W, or W x as (x^T W^T)^T, a matrix times vectors of each sample; or a product of two values."""
    first, second = op.argument(0), op.argument(1)
    if isinstance(first, TracedValue) and isinstance(second, TracedValue):
        rank = max(len(first.shape), len(second.shape))
        if min(len(first.shape), len(second.shape)) < 3:
            raise op.error("a product of two values needs matrices of each sample, so 3 or more axes of both")
        sides = (
            op.call(torch.reshape, x, (-1, *[1] * (rank - len(x.shape)), *x.shape[1:])) if len(x.shape) < rank else x
            for x in (first, second)
        )
        return op.call(torch.matmul, *sides)
    constant = 0 if not isinstance(first, TracedValue) else 1
    x, weight = op.value(1 - constant), op.weight(constant)
    rank = len(x.shape)
    if weight.dim() == 1 and rank > 1:  # a vector: the axis that it is multiplied with goes away
        last = rank - 1
        if constant == 0 and rank > 2:
            x = op.call(torch.transpose, x, rank - 2, last)
        return op.call(torch.squeeze, op.layer(linear(weight.unsqueeze(0), None), x), last)
    if weight.dim() > 2 and math.prod(weight.shape[:-2]) != 1:
        if weight.dim() > rank or (weight.dim() == rank and len(weight) > 1) or rank < 3:
            raise op.across(f"the constant has shape {tuple(weight.shape)}: its matrices differ between samples")
        factor = op.buffer(constant, weight[0] if weight.dim() == rank else weight)
        return op.call(torch.matmul, *((x, factor) if constant == 1 else (factor, x)))
    if weight.dim() > rank or weight.dim() < 2:
        raise op.error(f"the constant must be one matrix, it has shape {tuple(weight.shape)}")
    matrix = weight.flatten(0, -2)  # [rows, columns]
    if constant == 1:
        return op.layer(linear(matrix.T.contiguous(), None), x)
    if rank < 3:
        raise op.across("it acts across the batch (axis 0): a network must treat each sample on its own")
    turned = op.layer(linear(matrix, None), op.call(torch.transpose, x, rank - 2, rank - 1))
    return op.call(torch.transpose, turned, rank - 2, rank - 1)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    out, features = weight.shape
    return weighted(nn.Linear(features, out, bias is not None, device="meta"), weight, bias)


# ----------------------------------------------------------------------------------------------- convolution


_CONV: Layers = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_CONV_TRANSPOSE: Layers = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@reads("Conv")
def _conv(op: Operator) -> TracedValue:
    x, weight, bias = op.value(), op.weight(1), None if op.argument(2) is None else op.weight(2)
    window = Window.of(op, weight.shape[2:], x.shape[2:])
    if not window.even:
        x = op.call(F.pad, x, window.sides)
    groups = op.attribute("group", 1)
    layer = _CONV[len(window.kernel)](
        in_channels=weight.shape[1] * groups,
        out_channels=len(weight),
        kernel_size=window.kernel,
        stride=window.stride,
        padding=window.begin if window.even else 0,
        dilation=window.dilation,
        groups=groups,
        device="meta",
    )
    return op.layer(weighted(layer, weight, bias), x)


@reads("ConvTranspose")
def _conv_transpose(op: Operator) -> TracedValue:
    x, weight, bias = op.value(), op.weight(1), None if op.argument(2) is None else op.weight(2)
    window = Window.of(op, weight.shape[2:], x.shape[2:])
    more = tuple(op.attribute("output_padding", (0,) * len(window.kernel)))
    begin, end = _transposed_pads(op, window, x.shape[2:], more)
    groups = op.attribute("group", 1)
    layer = _CONV_TRANSPOSE[len(window.kernel)](
        in_channels=len(weight),
        out_channels=weight.shape[1] * groups,
        kernel_size=window.kernel,
        stride=window.stride,
        padding=begin if begin == end else 0,
        output_padding=more,
        dilation=window.dilation,
        groups=groups,
        device="meta",
    )
    result = op.layer(weighted(layer, weight, bias), x)
    if begin == end:
        return result
    return op.call(F.pad, result, [-n for pair in zip(begin[::-1], end[::-1], strict=True) for n in pair])


def _transposed_pads(op: Operator, window: Window, sizes: Shape, more: Shape) -> tuple[Shape, Shape]:
    """What a transposed convolution cuts off before and after each axis."""
    wanted, auto = op.attribute("output_shape"), op.attribute("auto_pad", "NOTSET")
    if wanted is None and not auto.startswith("SAME"):
        return window.begin, window.end
    wanted = [n * s for n, s in zip(sizes, window.stride, strict=True)] if wanted is None else wanted[-len(sizes) :]
    columns = zip(sizes, window.stride, window.dilation, window.kernel, more, wanted, strict=True)
    total = [(n - 1) * s + d * (k - 1) + 1 + extra - size for n, s, d, k, extra, size in columns]
    if min(total) < 0:
        raise op.error(f"an output_shape {list(wanted)} beyond what the kernel reaches is not supported: pad after it")
    less, rest = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
    return (less, rest) if auto == "SAME_UPPER" else (rest, less)


# --------------------------------------------------------------------------------- normalisation, activations


@reads("BatchNormalization")
def _batch_normalization(op: Operator) -> TracedValue:
    x = op.value()
    if op.attribute("training_mode", 0) or len(op.proto.output) > 1:
        raise op.error("the node is in training mode: export the network in eval mode")
    if not op.attribute("spatial", 1):
        raise op.error("spatial=0 is not supported: export with one mean and variance per channel")
    rank = len(x.shape)
    if rank not in (2, 3, 4, 5):
        raise op.error(f"inputs of {rank} axes are not supported: give 2 to 5")
    scale, shift, mean, variance = (op.weight(index) for index in range(1, 5))
    kind = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(rank, nn.BatchNorm1d)
    momentum = 1 - op.attribute("momentum", 0.9)  # ONNX weighs the old statistics, torch the new ones
    layer = kind(len(scale), op.attribute("epsilon", single(1e-5)), momentum, device="meta")
    layer.running_mean, layer.running_var = mean, variance
    layer.num_batches_tracked = torch.tensor(0)
    return op.layer(weighted(layer, scale, shift), x)


@reads("Relu")
def _relu(op: Operator) -> TracedValue:
    return op.layer(nn.ReLU(), op.value())


@reads("LeakyRelu")
def _leaky_relu(op: Operator) -> TracedValue:
    return op.layer(nn.LeakyReLU(op.attribute("alpha", single(0.01))), op.value())


@reads("Sigmoid")
def _sigmoid(op: Operator) -> TracedValue:
    return op.layer(nn.Sigmoid(), op.value())


@reads("Tanh")
def _tanh(op: Operator) -> TracedValue:
    return op.layer(nn.Tanh(), op.value())


@reads("Gelu")
def _gelu(op: Operator) -> TracedValue:
    return op.layer(nn.GELU(op.attribute("approximate", "none")), op.value())


@reads("Abs")
def _abs(op: Operator) -> TracedValue:
    return op.call(torch.abs, op.value())


@reads("Neg")
def _neg(op: Operator) -> TracedValue:
    return op.call(torch.neg, op.value())


@reads("Clip")
def _clip(op: Operator) -> TracedValue:
    low, high = op.setting("min", 1), op.setting("max", 2)
    return op.value() if low is None and high is None else op.call(torch.clamp, op.value(), low, high)


# -------------------------------------------------------------------------------------------- arithmetic

_ARITHMETIC: dict[str, Callable[..., Tensor]] = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div}


@reads(*_ARITHMETIC)
def _arithmetic(op: Operator) -> TracedValue:
    """Two values of the network, or one of them with a constant."""
    operands = op.operands()
    if op.kind == "Mul" and (gated := _gated(op)):
        return op.layer(nn.SiLU(), gated)
    return op.call(_ARITHMETIC[op.kind], *operands)


def _gated(op: Operator) -> TracedValue | None:
    """The x of x sigmoid(x), which is one layer in torch."""
    for x, gate in (op.inputs, op.inputs[::-1]):
        if isinstance(x, TracedValue) and isinstance(gate, TracedValue) and gate.node.args == (x.node,):
            layer = op.building.parts.get(str(gate.node.target))
            return x if isinstance(layer, nn.Sigmoid) else None
    return None


@reads("Sum")
def _sum(op: Operator) -> TracedValue:
    total, *others = op.operands()
    for other in others:
        total = op.call(torch.add, total, other)
    return total


# -------------------------------------------------------------------------------------- identities, constants


@reads("Identity", "Dropout")
def _identity(op: Operator) -> TracedValue:
    if len(op.inputs) > 2 and (training := op.constant(2)) is not None and bool(training):
        raise op.error("the node is in training mode: export the network in eval mode")
    return op.value()


@reads("Shape")
def _shape(op: Operator) -> Array:
    return np.array(op.value().shape[op.attribute("start", 0) : op.attribute("end")], dtype=np.int64)

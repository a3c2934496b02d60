"""nn.Module -> ONNX file, through its graph.

    save_onnx(model, "network.onnx", input_shape=(1, 28, 28))

The file contains the network in eval mode, op by op: batch norms are scales computed from their running statistics.
The batch is left open. A new op needs one function here that writes its ONNX nodes:

    @node_of.register
    def _(op: ReLU, writer: NodeWriter) -> str:
        return writer.node("Relu", *writer.inputs)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatch
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor, nn

from ctbench.files import write_whole
from ctbench.graph import Graph, Op, UnsupportedLayerError, freeze, precision, trace
from ctbench.graph import ops as graph_ops
from ctbench.graph.ops import Shape
from ctbench.onnx.building import OnnxError

OPSET = 17
GELU_OPSET = 20  # the first opset with this operator
_IR_VERSION = 9  # the file format of opset 20
_TYPES = {torch.float32: TensorProto.FLOAT, torch.float64: TensorProto.DOUBLE}


def save_onnx(model: nn.Module, path: Path | str, input_shape: Shape, *, dtype: torch.dtype = torch.float32) -> None:
    """Write the network in eval mode to an ONNX file, for inputs [batch, *input_shape] and any batch.

    Layers and weights keep their names. A network in double precision is also written in single precision, which most
    runtimes expect, unless `dtype` is torch.float64. The slope of a leaky ReLU is always in single precision. The file
    is written atomically.

    Raises:
        OnnxError: there is no such folder, or `dtype` is neither float32 nor float64.
        UnsupportedLayerError: a layer has no op, or an op has no ONNX form; the message says what to register.
        ValueError: the network cannot be traced for inputs of this shape (see ctbench.graph.trace).
    """
    path = Path(path)
    if not path.parent.is_dir() or path.is_dir():
        raise OnnxError(f"{path} cannot be written: give a file in a folder that exists")
    if dtype not in _TYPES:
        raise OnnxError(f"dtype is {dtype}: give torch.float32 or torch.float64")
    with torch.no_grad():
        graph = trace(model, input_shape)
        x = torch.zeros(1, *graph.input_shape, dtype=torch.float64)
        frozen, _ = freeze(graph, x.to(precision(model, x)))
    proto = _model(frozen.to(dtype), dtype)
    onnx.checker.check_model(proto, full_check=True)
    write_whole(path, proto.SerializeToString())


@dataclass(frozen=True)
class NodeWriter:
    """The place where the ONNX nodes of one op are written."""

    path: str  # the path of its layer in the module
    inputs: tuple[str, ...]  # the names of its inputs
    shapes: tuple[Shape, ...]  # the shapes of its inputs, without the batch
    opset: int
    dtype: torch.dtype
    nodes: list[onnx.NodeProto] = field(default_factory=list)  # the nodes of the whole file
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return the name of the output."""
        name = _free(self.path, f"/{kind}", [node.name for node in self.nodes])
        self.nodes.append(onnx.helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, value: Tensor | Sequence[int]) -> str:
        """Add a tensor, or a list of integers, and return its name in the file."""
        tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.int64)
        name = _free(self.path, f".{name}", [constant.name for constant in self.constants])
        self.constants.append(onnx.numpy_helper.from_array(tensor.detach().cpu().numpy(), name))
        return name

    def optional(self, name: str, value: Tensor | None) -> tuple[str, ...]:
        """The name of an optional constant; empty for None."""
        return () if value is None else (self.constant(name, value),)


def _free(path: str, end: str, taken: Sequence[str]) -> str:
    """The path with this end, with a number if the name is taken: a layer may be used more than once."""
    names = (f"{path}{number}{end}" for number in ("", *(f"_{count}" for count in range(2, len(taken) + 2))))
    return next(name for name in names if name not in taken)


def _model(graph: Graph, dtype: torch.dtype) -> onnx.ModelProto:
    """A frozen graph as an ONNX model."""
    newest = any(isinstance(node.op, graph_ops.GELU | graph_ops.TanhGELU) for node in graph.nodes)
    opset = GELU_OPSET if newest else OPSET
    writer = NodeWriter("", (), (), opset, dtype)
    names = ["input"]
    for node in graph.nodes[1:]:
        inputs, shapes = zip(*((names[i], graph.nodes[i].shape) for i in node.inputs), strict=True)
        names.append(node_of(node.op, replace(writer, path=node.name, inputs=inputs, shapes=shapes)))
    first, last = (
        onnx.helper.make_tensor_value_info(name, _TYPES[dtype], ["batch", *node.shape])
        for name, node in ((names[0], graph.nodes[0]), (names[-1], graph.nodes[-1]))
    )
    proto = onnx.helper.make_graph(writer.nodes, "network", [first], [last], writer.constants)
    opsets = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_model(proto, producer_name="ctbench", opset_imports=opsets, ir_version=_IR_VERSION)


@singledispatch
def node_of(op: Op, writer: NodeWriter) -> str:
    """Write the nodes of an op, and return the name of its output.

    For a new op, register a function of the op and the writer with `@node_of.register`.
    """
    raise UnsupportedLayerError(
        f"layer '{writer.path}': the op {type(op).__name__} has no ONNX form: register one with "
        f"@ctbench.onnx.node_of.register, a function of the op and the writer to write on"
    )


# ------------------------------------------------------------------------------------------- affine layers


@node_of.register
def _(op: graph_ops.Linear, writer: NodeWriter) -> str:
    if len(writer.shapes[0]) == 1:
        tensors = (writer.constant("weight", op.weight), *writer.optional("bias", op.bias))
        return writer.node("Gemm", *writer.inputs, *tensors, transB=1)
    product = writer.node("MatMul", *writer.inputs, writer.constant("weight", op.weight.T))
    return product if op.bias is None else writer.node("Add", product, writer.constant("bias", op.bias))


@node_of.register
def _(op: graph_ops.Convolution, writer: NodeWriter) -> str:
    tensors = (writer.constant("weight", op.weight), *writer.optional("bias", op.bias))
    return writer.node("Conv", *writer.inputs, *tensors, **_window(op))


@node_of.register
def _(op: graph_ops.ConvTranspose, writer: NodeWriter) -> str:
    tensors = (writer.constant("weight", op.weight), *writer.optional("bias", op.bias))
    return writer.node("ConvTranspose", *writer.inputs, *tensors, **_window(op), output_padding=op.output_padding)


def _window(op: graph_ops.Convolution | graph_ops.ConvTranspose) -> dict[str, Any]:
    return {
        "kernel_shape": tuple(op.weight.shape[2:]),
        "strides": op.stride,
        "pads": op.padding * 2,
        "dilations": op.dilation,
        "group": op.groups,
    }


@node_of.register
def _(op: graph_ops.Scale, writer: NodeWriter) -> str:
    scaled = writer.node("Mul", *writer.inputs, writer.constant("factor", op.weight))
    return writer.node("Add", scaled, writer.constant("shift", op.bias)) if bool(op.bias.any()) else scaled


@node_of.register
def _(op: graph_ops.Shift, writer: NodeWriter) -> str:
    return writer.node("Add", *writer.inputs, writer.constant("shift", op.bias))


@node_of.register
def _(op: graph_ops.AlongAxis, writer: NodeWriter) -> str:
    """A product with the matrix, with its axis as the last one."""
    rank = len(writer.shapes[0]) + 1
    order = [*(axis for axis in range(rank) if axis != op.dim + 1), op.dim + 1]
    back = sorted(range(rank), key=order.__getitem__)
    last = op.dim + 2 == rank
    x = writer.inputs[0] if last else writer.node("Transpose", *writer.inputs, perm=order)
    product = writer.node("MatMul", x, writer.constant("matrix", op.weight.T.contiguous()))
    return product if last else writer.node("Transpose", product, perm=back)


@node_of.register
def _(op: graph_ops.Given, writer: NodeWriter) -> str:
    """0 x + value, so that the value gets the batch of the input."""
    size, count = math.prod(op.input_shape), op.value.numel()
    weight = op.value.new_zeros(size, count)
    flat = writer.node("Flatten", *writer.inputs, axis=1)
    rows = writer.node("Gemm", flat, writer.constant("zeros", weight), writer.constant("value", op.value.flatten()))
    return rows if op.value.dim() == 1 else _reshaped(tuple(op.value.shape), writer, rows)


# ------------------------------------------------------------------------------------------- means and maxima


@node_of.register
def _(op: graph_ops.AvgPool2d, writer: NodeWriter) -> str:
    pads = op.padding * 2
    return writer.node(
        "AveragePool", *writer.inputs, kernel_shape=op.kernel, strides=op.stride, pads=pads, count_include_pad=1
    )


@node_of.register
def _(op: graph_ops.AdaptiveAvgPool2d, writer: NodeWriter) -> str:
    """R X C, with matrices R and C that compute the means of rows and of columns."""
    if op.size == (1, 1):
        return writer.node("GlobalAveragePool", *writer.inputs)
    rows, columns = (
        F.adaptive_avg_pool1d(torch.eye(n, dtype=writer.dtype), m)  # [n, m]: the share of each entry in each mean
        for n, m in zip(op.input_shape[1:], op.size, strict=True)
    )
    product = writer.node("MatMul", writer.constant("rows", rows.T), *writer.inputs)
    return writer.node("MatMul", product, writer.constant("columns", columns))


@node_of.register
def _(op: graph_ops.Mean, writer: NodeWriter) -> str:
    return _reduce("ReduceMean", writer, [dim + 1 for dim in op.dims], keepdims=1)


@node_of.register
def _(op: graph_ops.Max, writer: NodeWriter) -> str:
    return _reduce("ReduceMax", writer, [1], keepdims=0)


def _reduce(kind: str, writer: NodeWriter, axes: list[int], keepdims: int) -> str:
    if writer.opset < 18:  # the first opset in which axes are an input
        return writer.node(kind, *writer.inputs, axes=axes, keepdims=keepdims)
    return writer.node(kind, *writer.inputs, writer.constant("axes", axes), keepdims=keepdims)


# ------------------------------------------------------------------------------------ joins, moves of entries


@node_of.register
def _(op: graph_ops.Add, writer: NodeWriter) -> str:
    return writer.node("Add", *writer.inputs)


@node_of.register
def _(op: graph_ops.Product, writer: NodeWriter) -> str:
    return writer.node("Mul", *writer.inputs)


@node_of.register
def _(op: graph_ops.Concat, writer: NodeWriter) -> str:
    return writer.node("Concat", *writer.inputs, axis=op.dim + 1)


@node_of.register
def _(op: graph_ops.Reshape, writer: NodeWriter) -> str:
    if op.input_shape == op.output_shape:
        return writer.node("Identity", *writer.inputs)
    if len(op.output_shape) == 1:
        return writer.node("Flatten", *writer.inputs, axis=1)
    return _reshaped(op.output_shape, writer, *writer.inputs)


@node_of.register
def _(op: graph_ops.Select, writer: NodeWriter) -> str:
    """Flatten the input, append a zero if one is selected, gather the entries, and reshape them."""
    index = op.index.flatten()
    flat = writer.node("Flatten", *writer.inputs, axis=1)
    if bool((index == math.prod(op.input_shape)).any()):
        flat = writer.node("Pad", flat, writer.constant("pads", [0, 0, 0, 1]))
    chosen = writer.node("Gather", flat, writer.constant("index", index), axis=1)
    return chosen if op.index.dim() == 1 else _reshaped(tuple(op.index.shape), writer, chosen)


def _reshaped(shape: Shape, writer: NodeWriter, name: str) -> str:
    return writer.node("Reshape", name, writer.constant("shape", [-1, *shape]))


# ------------------------------------------------------------------------------------------------ activations


@node_of.register
def _(op: graph_ops.ReLU, writer: NodeWriter) -> str:
    return writer.node("Relu", *writer.inputs)


@node_of.register
def _(op: graph_ops.LeakyReLU, writer: NodeWriter) -> str:
    return writer.node("LeakyRelu", *writer.inputs, alpha=op.negative_slope)


@node_of.register
def _(op: graph_ops.Abs, writer: NodeWriter) -> str:
    return writer.node("Abs", *writer.inputs)


@node_of.register
def _(op: graph_ops.Clamp, writer: NodeWriter) -> str:
    ends = (("min", op.low), ("max", op.high))  # an infinite end is omitted, by an empty name
    names = (
        writer.constant(name, torch.tensor(end, dtype=writer.dtype)) if math.isfinite(end) else "" for name, end in ends
    )
    return writer.node("Clip", *writer.inputs, *names)


@node_of.register
def _(op: graph_ops.Sigmoid, writer: NodeWriter) -> str:
    return writer.node("Sigmoid", *writer.inputs)


@node_of.register
def _(op: graph_ops.Tanh, writer: NodeWriter) -> str:
    return writer.node("Tanh", *writer.inputs)


@node_of.register
def _(op: graph_ops.GELU, writer: NodeWriter) -> str:
    return writer.node("Gelu", *writer.inputs)


@node_of.register
def _(op: graph_ops.SiLU, writer: NodeWriter) -> str:
    return writer.node("Mul", *writer.inputs, writer.node("Sigmoid", *writer.inputs))


@node_of.register
def _(op: graph_ops.Heaviside, writer: NodeWriter) -> str:
    zero = writer.constant("zero", torch.tensor(0.0, dtype=writer.dtype))
    return writer.node("Cast", writer.node("GreaterOrEqual", *writer.inputs, zero), to=_TYPES[writer.dtype])


@node_of.register
def _(op: graph_ops.Trunc, writer: NodeWriter) -> str:
    """The sign of x times the floor of |x|."""
    size = writer.node("Floor", writer.node("Abs", *writer.inputs))
    return writer.node("Mul", writer.node("Sign", *writer.inputs), size)


_SAME_NAME = (
    *(graph_ops.Atan, graph_ops.Cos, graph_ops.Erf, graph_ops.Exp, graph_ops.Floor, graph_ops.Log, graph_ops.Sign),
    *(graph_ops.Round, graph_ops.Sin, graph_ops.Softplus, graph_ops.Softsign, graph_ops.Tan),
)
for _kind in _SAME_NAME:
    node_of.register(_kind, lambda op, writer: writer.node(type(op).__name__, *writer.inputs))


@node_of.register(graph_ops.Known)
@node_of.register(graph_ops.Refined)
def _(op: graph_ops.Known | graph_ops.Refined, writer: NodeWriter) -> str:
    return writer.node("Identity", writer.inputs[0])


@node_of.register
def _(op: graph_ops.CappedExp, writer: NodeWriter) -> str:
    cap = writer.constant("cap", torch.tensor(op.cap, dtype=writer.dtype))
    return writer.node("Exp", writer.node("Clip", *writer.inputs, "", cap))


@node_of.register
def _(op: graph_ops.Power, writer: NodeWriter) -> str:
    kind = {0.5: "Sqrt", -1.0: "Reciprocal"}.get(op.exponent)
    if kind is not None:
        return writer.node(kind, *writer.inputs)
    return writer.node(
        "Pow", *writer.inputs, writer.constant("exponent", torch.tensor(op.exponent, dtype=writer.dtype))
    )


@node_of.register
def _(op: graph_ops.ELU, writer: NodeWriter) -> str:
    if writer.dtype == torch.float32 or float(torch.tensor(op.alpha, dtype=torch.float32)) == op.alpha:
        return writer.node("Elu", *writer.inputs, alpha=op.alpha)
    # an attribute is in single precision: max(x, 0) + alpha (exp(min(x, 0)) - 1)
    zero, one, alpha = (
        writer.constant(name, torch.tensor(value, dtype=writer.dtype))
        for name, value in (("zero", 0.0), ("one", 1.0), ("alpha", op.alpha))
    )
    below = writer.node("Sub", writer.node("Exp", writer.node("Min", *writer.inputs, zero)), one)
    return writer.node("Add", writer.node("Relu", *writer.inputs), writer.node("Mul", below, alpha))


@node_of.register
def _(op: graph_ops.Hardswish, writer: NodeWriter) -> str:
    return writer.node("HardSwish", *writer.inputs)


@node_of.register
def _(op: graph_ops.Mish, writer: NodeWriter) -> str:
    return writer.node("Mul", *writer.inputs, writer.node("Tanh", writer.node("Softplus", *writer.inputs)))


@node_of.register
def _(op: graph_ops.TanhGELU, writer: NodeWriter) -> str:
    return writer.node("Gelu", *writer.inputs, approximate="tanh")


@node_of.register
def _(op: graph_ops.PReLU, writer: NodeWriter) -> str:
    return writer.node("PRelu", *writer.inputs, writer.constant("weight", op.weight))


@node_of.register
def _(op: graph_ops.ClampEach, writer: NodeWriter) -> str:
    """The maximum and the minimum with constants; infinite ones have no effect."""
    name = writer.inputs[0]
    for kind, end in (("Max", op.low), ("Min", op.high)):
        if bool(end.isfinite().any()):
            most = torch.finfo(writer.dtype).max
            name = writer.node(kind, name, writer.constant(kind.lower(), end.clamp(-most, most)))
    return name


@node_of.register
def _(op: graph_ops.Softshrink, writer: NodeWriter) -> str:
    return writer.node("Shrink", *writer.inputs, bias=op.width, lambd=op.width)

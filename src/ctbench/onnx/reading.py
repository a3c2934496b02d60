"""ONNX file -> nn.Module.

    model = load_onnx("network.onnx")
    model(x)                                                 # x [B, *model.input_shape], any B
    bounds(model, x, ...);  trace(model, model.input_shape)

The network applies the computation of the file for one sample to each sample of a batch: files with a fixed batch of 1
give the same result as files with an open batch, and operators that act across the batch are rejected. Constants, such
as shapes that are computed from shapes, are evaluated while reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from ctbench.onnx import curves, moves, operators  # noqa: F401  they fill the table
from ctbench.onnx.building import Array, Building, OnnxError, OnnxNetwork, Operator, Shape, TracedValue
from ctbench.onnx.table import OPERATORS

OLDEST_OPSET = 7  # the first opset in which shapes broadcast like in numpy
_DTYPES: dict[int, torch.dtype] = {TensorProto.FLOAT: torch.float32, TensorProto.DOUBLE: torch.float64}

# Operators that are evaluated while reading if all their inputs are constant.
_FOLDED = {
    *("Abs", "Add", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Flatten"),
    *("Floor", "Gather", "Identity", "Mul", "Neg", "Range", "ReduceProd", "Reshape", "Shape", "Size", "Slice", "Split"),
    *("Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
    *("Cos", "Exp", "Log", "Max", "Min", "Not", "Pow", "Reciprocal", "ReduceMean", "ReduceSum", "Sin", "Tile"),
}


def load_onnx(path: Path | str) -> OnnxNetwork:
    """The network of an ONNX file as a torch module in eval mode, in the precision of the file.

    It takes inputs [B, *model.input_shape] and returns [B, *model.output_shape]. Weights are parameters of plain
    torch layers, with the names of the file; layers that share weights in the file get copies. Other constants, such as
    one that is added to a MatMul, are buffers and are not trained. Dropout is the identity.

    Raises:
        OnnxError: the file is missing, damaged or not an ONNX file; an operator or one of its settings is not supported
            (the message names the node); the network has more than one input or output, open sizes besides the batch,
            acts across the batch, or has weights that are not finite float32 or float64 numbers.
    """
    path = Path(path)
    try:
        return _build(_read(path))
    except OnnxError as error:
        raise OnnxError(f"{path}: {error}") from None


def _read(path: Path) -> onnx.ModelProto:
    """A valid ONNX model, with the weights that are stored in files next to it."""
    if not path.is_file():
        raise OnnxError("this is a directory, give a file" if path.is_dir() else "there is no such file")
    if path.stat().st_size == 0:
        raise OnnxError("the file is empty")
    try:
        model = onnx.load(path, format="protobuf")
        newest = onnx.defs.onnx_opset_version()
        for opset in model.opset_import:
            if opset.domain in ("", "ai.onnx") and not OLDEST_OPSET <= opset.version <= newest:
                raise OnnxError(
                    f"opset {opset.version} is not supported: export the network with {OLDEST_OPSET} to {newest}"
                )
        onnx.checker.check_model(model)
    except DecodeError:
        raise OnnxError("not an ONNX file, or a damaged one: it cannot be decoded") from None
    except (onnx.checker.ValidationError, OSError) as error:
        raise OnnxError(f"the file breaks the rules of ONNX: {' '.join(str(error).split())}") from None
    return model


@torch.no_grad()
def _build(model: onnx.ModelProto) -> OnnxNetwork:
    proto = model.graph
    if proto.sparse_initializer:
        raise OnnxError("sparse weights are not supported: export them dense")
    values: dict[str, TracedValue | Array | None] = {"": None}
    values |= {weight.name: onnx.numpy_helper.to_array(weight) for weight in proto.initializer}
    inputs = [info for info in proto.input if info.name not in values]
    for kind, infos in (("input", inputs), ("output", proto.output)):
        if len(infos) != 1:
            names = ", ".join(repr(info.name) for info in infos[:4])
            raise OnnxError(f"a network must have one {kind}, this one has {len(infos)} ({names})")
    building = Building()
    x = building.input(*_input(inputs[0]))
    values[inputs[0].name] = x
    for node in proto.node:
        unread = [name for name in node.input if name not in values]
        if unread:
            raise OnnxError(f"node '{node.name}' ({node.op_type}): '{unread[0]}' is an output that is not supported")
        op = Operator(node, [values[name] for name in node.input], building)
        values.update(zip(node.output, _results(op, model), strict=False))
    output = values.get(proto.output[0].name)
    if not isinstance(output, TracedValue):
        raise OnnxError("the output does not depend on the input")
    _check_output(proto.output[0], output.shape)
    return building.finish(x, output)


def _results(op: Operator, model: onnx.ModelProto) -> Sequence[TracedValue | Array]:
    """The outputs of one operator."""
    if op.proto.domain not in ("", "ai.onnx"):
        raise op.error(
            f"operators of the domain '{op.proto.domain}' are not supported: export with standard ONNX operators only"
        )
    try:
        if op.kind in _FOLDED and not any(isinstance(operand, TracedValue) for operand in op.inputs):
            return _fold(op, model)
        if op.kind not in OPERATORS:
            raise op.error(f"not supported: write the network with {', '.join(sorted(OPERATORS))}")
        result = OPERATORS[op.kind](op)
    except OnnxError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # errors of torch and numpy
        raise op.error(f"it cannot be computed: {' '.join(str(error).split())}") from error
    return result if isinstance(result, list) else [result]


def _fold(op: Operator, model: onnx.ModelProto) -> list[Array]:
    """The outputs of an operator with only constant inputs."""
    inputs, outputs = (
        [onnx.helper.make_empty_tensor_value_info(name) for name in names if name]
        for names in (op.proto.input, op.proto.output)
    )
    graph = onnx.helper.make_graph([op.proto], "constants", inputs, outputs)
    evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=model.opset_import))
    arrays = evaluator.run(None, {name: x for name, x in zip(op.proto.input, op.inputs, strict=True) if name})
    return [np.asarray(array) for array in arrays]


def _sizes(info: onnx.ValueInfoProto) -> list[int | str]:
    """The sizes of a tensor; an open size is its name, or "?"."""
    return [
        size.dim_value if size.HasField("dim_value") and size.dim_value >= 0 else size.dim_param or "?"
        for size in info.type.tensor_type.shape.dim
    ]


def _input(info: onnx.ValueInfoProto) -> tuple[Shape, torch.dtype]:
    """The shape, without the batch, and the type of the network's input."""
    tensor = info.type.tensor_type
    if tensor.elem_type not in _DTYPES:
        kind = TensorProto.DataType.Name(tensor.elem_type) if info.type.HasField("tensor_type") else "not a tensor"
        raise OnnxError(f"the input '{info.name}' is {kind}: convert the network to float32")
    batch, *rest = _sizes(info) or [0]
    if not rest or (isinstance(batch, int) and batch != 1):
        raise OnnxError(
            f"the input '{info.name}' has shape {_sizes(info)}, but the first size must be the batch: 1, or left open"
        )
    shape = tuple(size for size in rest if isinstance(size, int) and size > 0)
    if len(shape) < len(rest):
        raise OnnxError(f"the input '{info.name}' has shape {_sizes(info)}: only the batch may be left open")
    return shape, _DTYPES[tensor.elem_type]


def _check_output(info: onnx.ValueInfoProto, shape: Shape) -> None:
    """Raise OnnxError if the shape of the output is not the one that the file declares."""
    sizes = _sizes(info)
    agree = len(sizes) == len(shape) and all(
        size == n for size, n in zip(sizes[1:], shape[1:], strict=True) if isinstance(size, int)
    )
    if not agree:
        raise OnnxError(f"the output '{info.name}' has shape {list(shape)} for one sample, the file says {sizes}")

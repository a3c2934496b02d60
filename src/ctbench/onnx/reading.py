"""ONNX file -> nn.Module.

    model = load_onnx("network.onnx")
    model(x)                                                 # x [B, *model.input_shape], any B
    bounds(model, x, ...);  trace(model, model.input_shape)

The network is what the file computes for one sample, applied to each sample of a batch: files whose batch is fixed to 1
give the same as files that leave it open, and whatever acts across the batch is refused. Constants, such as shapes that
are computed of shapes, are worked out while reading.
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

from ctbench.onnx.building import Array, Building, OnnxError, OnnxNetwork, Operator, Shape, Value
from ctbench.onnx.operators import OPERATORS, REFUSED

OLDEST_OPSET = 7  # the first in which shapes broadcast as in numpy
_DTYPES: dict[int, torch.dtype] = {TensorProto.FLOAT: torch.float32, TensorProto.DOUBLE: torch.float64}

# Operators that are worked out while reading, where all that they are given is constant.
_FOLDED = {
    *("Abs", "Add", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Flatten"),
    *("Floor", "Gather", "Identity", "Mul", "Neg", "Range", "ReduceProd", "Reshape", "Shape", "Size", "Slice", "Split"),
    *("Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
}


def load_onnx(path: Path | str) -> OnnxNetwork:
    """The network of an ONNX file as a torch module in eval mode, in the precision of the file.

    It takes inputs [B, *model.input_shape] and returns [B, *model.output_shape]. Weights are parameters of plain
    torch layers (each layer has its own, also where the file shares them), named as in the file. Other constants, as
    one that is added to a MatMul, are buffers and do not train. Dropout is the identity.

    Raises:
        OnnxError: the file is missing, damaged or no ONNX file; an operator or one of its settings is not supported
            (names the node); the network has more than one input or output, other open sizes than the batch, acts
            across the batch, or holds weights that are no finite float32 or float64 numbers.
    """
    path = Path(path)
    try:
        return _build(_read(path))
    except OnnxError as error:
        raise OnnxError(f"{path}: {error}") from None


def _read(path: Path) -> onnx.ModelProto:
    """A model that keeps the rules of ONNX, with the weights that lie in files beside it."""
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
    known: dict[str, Value | Array | None] = {"": None}
    known |= {weight.name: onnx.numpy_helper.to_array(weight) for weight in proto.initializer}
    inputs = [given for given in proto.input if given.name not in known]
    for kind, found in (("input", inputs), ("output", proto.output)):
        if len(found) != 1:
            names = ", ".join(repr(one.name) for one in found[:4])
            raise OnnxError(f"a network must have one {kind}, this one has {len(found)} ({names})")
    building = Building()
    x = building.input(*_input(inputs[0]))
    known[inputs[0].name] = x
    for node in proto.node:
        unread = [name for name in node.input if name not in known]
        if unread:
            raise OnnxError(f"node '{node.name}' ({node.op_type}): '{unread[0]}' is an output that is not supported")
        op = Operator(node, [known[name] for name in node.input], building)
        known.update(zip(node.output, _results(op, model), strict=False))
    output = known.get(proto.output[0].name)
    if not isinstance(output, Value):
        raise OnnxError("the output does not depend on the input")
    _check_output(proto.output[0], output.shape)
    return building.finish(x, output)


def _results(op: Operator, model: onnx.ModelProto) -> Sequence[Value | Array]:
    """What comes out of one operator."""
    if op.proto.domain not in ("", "ai.onnx"):
        raise op.error(
            f"operators of the domain '{op.proto.domain}' are not supported: export with those of ONNX alone"
        )
    try:
        if op.kind in _FOLDED and not any(isinstance(given, Value) for given in op.inputs):
            return _fold(op, model)
        if op.kind not in OPERATORS:
            supported = ", ".join(sorted(OPERATORS))
            raise op.error(REFUSED.get(op.kind, f"not supported: write the network with {supported}"))
        result = OPERATORS[op.kind](op)
    except OnnxError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # what torch and numpy refuse
        raise op.error(f"it cannot be computed: {' '.join(str(error).split())}") from error
    return result if isinstance(result, list) else [result]


def _fold(op: Operator, model: onnx.ModelProto) -> list[Array]:
    """The outputs of an operator that is given constants alone."""
    inputs, outputs = (
        [onnx.helper.make_empty_tensor_value_info(name) for name in names if name]
        for names in (op.proto.input, op.proto.output)
    )
    alone = onnx.helper.make_graph([op.proto], "constants", inputs, outputs)
    evaluator = ReferenceEvaluator(onnx.helper.make_model(alone, opset_imports=model.opset_import))
    found = evaluator.run(None, {name: x for name, x in zip(op.proto.input, op.inputs, strict=True) if name})
    return [np.asarray(one) for one in found]


def _sizes(info: onnx.ValueInfoProto) -> list[int | str]:
    """The sizes of a tensor; those left open are named, or "?"."""
    return [
        size.dim_value if size.HasField("dim_value") and size.dim_value >= 0 else size.dim_param or "?"
        for size in info.type.tensor_type.shape.dim
    ]


def _input(info: onnx.ValueInfoProto) -> tuple[Shape, torch.dtype]:
    """The shape without the batch and the type of the network's input."""
    tensor = info.type.tensor_type
    if tensor.elem_type not in _DTYPES:
        kind = TensorProto.DataType.Name(tensor.elem_type) if info.type.HasField("tensor_type") else "no tensor"
        raise OnnxError(f"the input '{info.name}' is {kind}: convert the network to float32")
    batch, *rest = _sizes(info) or [0]
    if not rest or (isinstance(batch, int) and batch != 1):
        raise OnnxError(
            f"the input '{info.name}' has shape {_sizes(info)}, of which the first must be the batch: 1, or left open"
        )
    shape = tuple(size for size in rest if isinstance(size, int) and size > 0)
    if len(shape) < len(rest):
        raise OnnxError(f"the input '{info.name}' has shape {_sizes(info)}: only the batch may be left open")
    return shape, _DTYPES[tensor.elem_type]


def _check_output(info: onnx.ValueInfoProto, shape: Shape) -> None:
    """Refuse an output that is not what the file says it is."""
    sizes = _sizes(info)
    agree = len(sizes) == len(shape) and all(
        size == n for size, n in zip(sizes[1:], shape[1:], strict=True) if isinstance(size, int)
    )
    if not agree:
        raise OnnxError(f"the output '{info.name}' has shape {list(shape)} for one sample, the file says {sizes}")

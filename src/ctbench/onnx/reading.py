"""ONNX file -> nn.Module.

    model = load_onnx("network.onnx")
    model(x)                                                 # x [B, *model.input_shape], any B
    bounds(model, x, ...);  trace(model, model.input_shape)

The network applies the computation of the file for one sample to each sample of a batch: files with a fixed batch of 1
give the same result as files with an open batch, and an operator that acts across the batch acts on that one sample.
Constants, such as shapes that are computed from shapes, are evaluated while reading.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from ctbench.onnx import (  # noqa: F401  they fill the table
    batchless,
    comparisons,
    curves,
    moves,
    operators,
    recurrent,
    reductions,
    resizing,
    windows,
)
from ctbench.onnx.building import (
    Array,
    BatchError,
    Building,
    OnnxError,
    OnnxNetwork,
    Operator,
    Shape,
    TracedValue,
)
from ctbench.onnx.files import counted, read_model
from ctbench.onnx.table import OPERATORS

_PRECISIONS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
}
_NOT_CONSTANT = {"RandomNormal", "RandomUniform"}  # operators without inputs whose outputs differ from run to run

Values = dict[str, TracedValue | Array | None]


def load_onnx(
    path: Path | str,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> OnnxNetwork:
    """The network of an ONNX file as a torch module in eval mode, in the precision of the file.

    It takes inputs [B, *model.input_shape] and returns [B, *model.output_shape]. If there are several inputs, the
    module takes one vector for each sample: the inputs one after the other, each in C order. The same holds for
    outputs. An axis of size 1 at the front, or one that is left open, is the batch; an input without it is one sample.

    Weights are parameters of plain torch layers, with the names of the file; layers that share weights in the file get
    copies. Other constants, such as one that is added to a MatMul, are buffers and are not trained. Dropout is the
    identity, and so are casts between floating point types. The precision is double if the input or a constant needs
    it, and single otherwise; numbers in half precision become single ones.

    Args:
        path: the file, which is unpacked if its name ends in .gz. External data lie next to it.
        inputs: the names of the inputs, in the order in which the module takes them; by default all, in that of the
            file.
        outputs: the names of the outputs that count, likewise.
        given: inputs that are constants, by their names, in the shape of the file.

    Raises:
        OnnxError: the file is missing, damaged or not an ONNX file; operators or settings are not supported (the
            message names the node, or all operators that are missing); a name is not that of an input or an output;
            sizes besides the batch are open; or weights are not finite floating point numbers.
    """
    path = Path(path)
    try:
        return _build(read_model(path), inputs, outputs, given or {})
    except OnnxError as error:
        raise OnnxError(f"{path}: {error}") from None


@torch.no_grad()
def _build(
    model: onnx.ModelProto,
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
    given: Mapping[str, Tensor],
) -> OnnxNetwork:
    proto = model.graph
    if proto.sparse_initializer:
        raise OnnxError("sparse weights are not supported: export them dense")
    values: Values = {"": None}
    values |= {weight.name: onnx.numpy_helper.to_array(weight) for weight in proto.initializer}
    free = {info.name: info for info in proto.input if info.name not in values}
    values |= _constants(free, given)
    taken = _chosen("input", {name: info for name, info in free.items() if name not in given}, inputs)
    returned = _chosen("output", {info.name: info for info in proto.output}, outputs)
    _check_operators(model, {info.name for info in taken})
    building = Building(dtype=_precision(taken, values), opset=_opset(model))
    x, parts = _inputs(building, taken)
    values |= parts
    for node in proto.node:
        unread = [name for name in node.input if name not in values]
        if unread:
            raise OnnxError(f"node '{node.name}' ({node.op_type}): '{unread[0]}' is an output that is not supported")
        op = Operator(node, [values[name] for name in node.input], building)
        results = zip(node.output, _results(op, model), strict=False)
        values.update((name, result) for name, result in results if name)  # "" stands for no output
    return building.finish(x, _output(building, returned, values))


def _opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators in the file."""
    return int(next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx")))


# --------------------------------------------------------------------------------------------- inputs, outputs


def _chosen(
    kind: str, infos: Mapping[str, onnx.ValueInfoProto], names: Sequence[str] | None
) -> list[onnx.ValueInfoProto]:
    """The inputs or outputs of these names, or all."""
    names = list(infos) if names is None else list(names)
    there = f"the file has {', '.join(map(repr, infos)) or 'none'}"
    unknown = [name for name in names if name not in infos]
    if unknown or not names or len(set(names)) < len(names):
        wrong = f"{unknown[0]!r} is not an {kind}" if unknown else f"the names of {kind}s are {names}"
        raise OnnxError(f"{wrong}: {there}")
    missing = [name for name in infos if name not in names]
    if kind == "input" and missing:
        raise OnnxError(
            f"the input {missing[0]!r} has no value: name it in inputs, or give it a value in given ({there})"
        )
    return [infos[name] for name in names]


def _constants(free: Mapping[str, onnx.ValueInfoProto], given: Mapping[str, Tensor]) -> Values:
    """The values that are given to inputs."""
    values: Values = {}
    for name, value in given.items():
        if name not in free:
            raise OnnxError(f"{name!r} is not an input: the file has {', '.join(map(repr, free))}")
        sizes = _sizes(free[name])
        if len(sizes) != value.dim() or any(
            isinstance(size, int) and size != n for size, n in zip(sizes, value.shape, strict=True)
        ):
            raise OnnxError(f"the value of the input {name!r} has shape {list(value.shape)}, the file says {sizes}")
        kind = onnx.helper.tensor_dtype_to_np_dtype(free[name].type.tensor_type.elem_type)
        values[name] = value.detach().cpu().numpy().astype(kind)
    return values


def _precision(taken: Sequence[onnx.ValueInfoProto], values: Values) -> torch.dtype:
    """Double precision if an input or a constant needs it."""
    kinds = [_PRECISIONS.get(info.type.tensor_type.elem_type) for info in taken]
    if "float64" in kinds:
        return torch.float64
    wide = (each for each in values.values() if isinstance(each, np.ndarray) and str(each.dtype) == "float64")
    with np.errstate(over="ignore"):
        return torch.float64 if any((each != each.astype(np.float32)).any() for each in wide) else torch.float32


def _inputs(building: Building, taken: Sequence[onnx.ValueInfoProto]) -> tuple[TracedValue, Values]:
    """The argument of the module, and the inputs of the file."""
    shapes = [_input(info) for info in taken]
    if len(taken) == 1:
        ((shape, batched),) = shapes
        x = building.input(shape)
        return x, {taken[0].name: replace(x, batched=batched)}
    sizes = [int(np.prod(shape, dtype=int)) for shape, _ in shapes]
    x, parts, start = building.input((sum(sizes),)), Values(), 0
    for info, (shape, batched), size in zip(taken, shapes, sizes, strict=True):
        part = building.call(operator.getitem, x, (slice(None), slice(start, start + size)))
        parts[info.name] = replace(building.call(torch.reshape, part, (-1, *shape)), batched=batched)
        start += size
    return x, parts


def _sizes(info: onnx.ValueInfoProto) -> list[int | str]:
    """The sizes of a tensor; an open size is its name, or "?"."""
    return [
        size.dim_value if size.HasField("dim_value") and size.dim_value >= 0 else size.dim_param or "?"
        for size in info.type.tensor_type.shape.dim
    ]


def _input(info: onnx.ValueInfoProto) -> tuple[Shape, bool]:
    """The shape of an input without the batch, and whether it has a batch axis."""
    tensor = info.type.tensor_type
    if tensor.elem_type not in _PRECISIONS:
        kind = TensorProto.DataType.Name(tensor.elem_type) if info.type.HasField("tensor_type") else "not a tensor"
        raise OnnxError(f"the input '{info.name}' is {kind}: convert the network to float32")
    sizes = _sizes(info)
    batched = len(sizes) > 1 and (sizes[0] == 1 or isinstance(sizes[0], str))
    rest = sizes[1:] if batched else sizes
    shape = tuple(size for size in rest if isinstance(size, int) and size > 0)
    if len(shape) < len(rest):
        raise OnnxError(f"the input '{info.name}' has shape {sizes}: only the batch may be left open")
    return shape, batched


def _output(building: Building, returned: Sequence[onnx.ValueInfoProto], values: Values) -> TracedValue:
    """The output of the module."""
    parts = list[TracedValue]()
    for info in returned:
        value = values.get(info.name)
        if not isinstance(value, TracedValue):
            raise OnnxError(f"the output '{info.name}' does not depend on the input")
        _check_output(info, value.shape)
        parts.append(building.floating(value))
    if len(parts) == 1:
        return parts[0]
    flat = [building.call(torch.flatten, part, 1) if part.example.dim() != 2 else part for part in parts]
    return building.call(torch.cat, flat, 1)


def _check_output(info: onnx.ValueInfoProto, shape: Shape) -> None:
    """Raise OnnxError if the shape of an output is not the one that the file declares."""
    if not info.type.tensor_type.HasField("shape"):
        return
    sizes = _sizes(info)
    agree = len(sizes) == len(shape) and all(
        size == n for size, n in zip(sizes[1:], shape[1:], strict=True) if isinstance(size, int)
    )
    if not agree:
        raise OnnxError(f"the output '{info.name}' has shape {list(shape)} for one sample, the file says {sizes}")


# ------------------------------------------------------------------------------------------------- operators


def _check_operators(model: onnx.ModelProto, inputs: set[str]) -> None:
    """Raise OnnxError that lists all operators without a reading, if there are any.

    Operators on constants are evaluated, so only those that depend on the inputs need a reading.
    """
    changing, missing = set(inputs), list[onnx.NodeProto]()
    for node in model.graph.node:
        if not changing.intersection(node.input) and node.op_type not in _NOT_CONSTANT:
            continue
        if node.domain not in ("", "ai.onnx"):
            raise OnnxError(
                f"node '{node.name or node.output[0]}' ({node.op_type}): operators of the domain '{node.domain}' are "
                f"not supported: export with standard ONNX operators only"
            )
        if node.op_type not in OPERATORS:
            missing.append(node)
        if node.op_type not in ("Shape", "Size"):
            changing.update(name for name in node.output if name)
    kinds = [node.op_type for node in missing]
    if not missing:
        return
    first = missing[0]
    supported = f"write the network with {', '.join(sorted(OPERATORS))}"
    if len(set(kinds)) == 1:
        count = f", {len(kinds)} times in the file" if len(kinds) > 1 else ""
        name = first.name or first.output[0]
        raise OnnxError(f"node '{name}' ({first.op_type}{count}): not supported: {supported}")
    name = first.name or first.output[0]
    raise OnnxError(f"operators are not supported: {counted(kinds)}; the first is node '{name}'; {supported}")


def _results(op: Operator, model: onnx.ModelProto) -> Sequence[TracedValue | Array]:
    """The outputs of one operator."""
    traced = [operand for operand in op.inputs if isinstance(operand, TracedValue)]
    try:
        if not traced:
            return _fold(op, model)
        if op.kind not in comparisons.FOR_ANY_KIND and not all(x.example.is_floating_point() for x in traced):
            raise op.error("it takes whole numbers or truth values of the network: cast them to float32 before it")
        if op.kind == "Size":
            return [np.array(int(np.prod(traced[0].shape, dtype=int)), dtype=np.int64)]
        if op.kind == "Shape" or all(value.batched for value in traced):
            try:
                result = OPERATORS[op.kind](op)
                return result if isinstance(result, list) else [result]
            except BatchError as error:
                return _without_batch(op, error)
        return batchless.read(op)
    except OnnxError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # errors of torch and numpy
        raise op.error(f"it cannot be computed: {' '.join(str(error).split())}") from error


def _without_batch(op: Operator, error: BatchError) -> Sequence[TracedValue | Array]:
    """The outputs of an operator on the axis that was the batch: it is of size 1, an ordinary axis."""
    try:
        return batchless.read(op)
    except OnnxError:
        raise error from None


def _fold(op: Operator, model: onnx.ModelProto) -> list[Array]:
    """The outputs of an operator with only constant inputs."""
    inputs, outputs = (
        [onnx.helper.make_empty_tensor_value_info(name) for name in names if name]
        for names in (op.proto.input, op.proto.output)
    )
    graph = onnx.helper.make_graph([op.proto], "constants", inputs, outputs)
    try:
        evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=model.opset_import))
        arrays = evaluator.run(None, {name: x for name, x in zip(op.proto.input, op.inputs, strict=True) if name})
    except Exception as error:  # the evaluator raises any error, and so does an operator that it does not know
        raise op.error(f"it cannot be evaluated on constants: {' '.join(str(error).split())}") from error
    return [np.asarray(array) for array in arrays]

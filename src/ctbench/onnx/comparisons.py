"""The translation of ONNX operators that compare, choose, or make whole numbers and truth values.

The network keeps the kinds of numbers of the file: a truth value is a torch.bool, a whole number a torch.int64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import torch
from torch import Tensor

from ctbench.onnx.building import FLOATS, Array, Operator, TracedValue
from ctbench.onnx.table import reads

# the operators that take whole numbers and truth values; the others are for floating point numbers
FOR_ANY_KIND = {
    *("Abs", "Add", "And", "ArgMax", "ArgMin", "Cast", "CastLike", "Concat", "Equal", "Expand", "Flatten", "Gather"),
    *("Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mul", "Neg", "Not", "OneHot"),
    *("Or", "ReduceMax", "ReduceMin", "ReduceSum", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Sub"),
    *("Sum", "Tile", "Transpose", "Unsqueeze", "Where", "Xor"),
}
_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}


@reads(*_FUNCTIONS)
def _function(op: Operator) -> TracedValue:
    return op.call(_FUNCTIONS[op.kind], *op.operands())


@reads("Where")
def _where(op: Operator) -> TracedValue:
    return op.call(torch.where, *op.operands())


@reads("Round")
def _round(op: Operator) -> TracedValue:
    return op.call(torch.round, op.value())


@reads("ArgMax", "ArgMin")
def _argmax(op: Operator) -> TracedValue:
    """The place of the first greatest entry, or of the last one: counted from the end after a flip."""
    x, function = op.value(), torch.argmax if op.kind == "ArgMax" else torch.argmin
    axis, kept = op.axis(op.attribute("axis", 0), len(x.shape)), bool(op.attribute("keepdims", 1))
    if not op.attribute("select_last_index", 0):
        return op.call(function, x, axis, kept)
    flipped = op.call(function, op.call(torch.flip, x, [axis]), axis, kept)
    return op.call(torch.sub, x.shape[axis] - 1, flipped)


@reads("OneHot")
def _one_hot(op: Operator) -> TracedValue:
    """values[1] at the place that a whole number names, which may be counted from the end, and values[0] elsewhere."""
    x, depth, values = op.value(), op.constant(1), op.constant(2)
    assert depth is not None, "the inputs of OneHot are not optional"
    assert values is not None, "the inputs of OneHot are not optional"
    count, rank = int(depth.reshape(())), len(x.shape) + 1
    axis = op.axis(op.attribute("axis", -1), rank)
    places = torch.arange(count).view([count if at == axis else 1 for at in range(1, rank)])
    rows = op.call(torch.unsqueeze, x if not x.example.is_floating_point() else op.building.method("long", x), axis)
    hot = op.call(torch.eq, rows, op.buffer(1, places))
    if x.node.target not in (torch.argmax, torch.argmin):
        hot = op.call(torch.logical_or, hot, op.call(torch.eq, rows, op.buffer(1, places - count)))
    off, on = values.tolist()
    hot = op.building.floating(hot) if values.dtype.kind == "f" else op.building.method("long", hot)
    return op.call(torch.add, op.call(torch.mul, hot, on - off), off)


@reads("Cast", "CastLike")
def _cast(op: Operator) -> TracedValue | Array:
    """To whole numbers, fractions are cut off. A cast between floating point types changes nothing here."""
    if op.kind == "Cast":
        return _like(op, op.value(), str(onnx.helper.tensor_dtype_to_np_dtype(op.attribute("to"))))
    x, like = op.argument(0), op.argument(1)
    if isinstance(x, np.ndarray) and isinstance(like, TracedValue):
        return x.astype(str(like.example.dtype).removeprefix("torch."))
    if isinstance(like, np.ndarray):
        return _like(op, op.value(), str(like.dtype))
    assert like is not None, "the inputs of CastLike are not optional"
    return _like(op, op.value(), str(like.example.dtype).removeprefix("torch."))


def _like(op: Operator, x: TracedValue, dtype: str) -> TracedValue:
    """A value in another type of numbers, by its name in numpy."""
    if dtype in FLOATS:
        return op.building.floating(x)
    if dtype == "bool":
        return x if x.example.dtype == torch.bool else op.building.method("bool", x)
    narrow = dtype not in ("int32", "int64")
    if "int" not in dtype or (narrow and x.example.dtype != torch.bool):
        raise op.error(f"a cast to {dtype} is not supported: give float32, int64 or bool")
    return x if x.example.dtype == torch.int64 else op.building.method("long", x)

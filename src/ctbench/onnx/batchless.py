"""Operators on values without a batch axis.

A network of torch always has the batch as its first axis, and a file need not have one: its input may be a vector [5],
or an operator may remove the axis of size 1 that was the batch. Such a value is a tensor [B, *shape] of which the file
knows only *shape. Its operator is rewritten for [1, *shape], i.e. all axes move by one, and read like any other. A
value [1, *shape] is one with a batch axis, because the file computes one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
import torch

from ctbench.onnx.building import Array, Operator, TracedValue
from ctbench.onnx.table import OPERATORS

# operators that treat each number on its own, with operands that broadcast
ELEMENTWISE = {
    *("Abs", "Add", "And", "Atan", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout"),
    *("Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish"),
    *("Identity", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "Not"),
    *("Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Softplus"),
    *("Softsign", "Sqrt", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor"),
}
# operators with an attribute "axis", and its default
AXIS = {
    **{"ArgMax": 0, "ArgMin": 0, "Concat": 0, "Gather": 0, "LayerNormalization": -1, "LogSoftmax": -1},
    **{"LpNormalization": -1, "OneHot": -1, "Softmax": -1, "Split": 0, "TopK": -1},
}
# reductions over axes, an attribute or the second input; all axes if there are none
REDUCTIONS = frozenset(
    f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
)

Result = list[TracedValue | Array]


def read(op: Operator) -> Result:
    """The outputs of an operator, of whose inputs at least one is taken without a batch axis.

    Raises:
        OnnxError: the operator is not one of those that this file knows.
    """
    values = [_bare(op, each) if isinstance(each, TracedValue) else each for each in op.inputs]
    bare = replace(op, inputs=values)
    if op.kind in ELEMENTWISE:
        return _flagged(bare, _aligned(bare))
    if op.kind in _REWRITTEN:
        return _flagged(bare, _REWRITTEN[op.kind](bare))
    if op.kind in _RESHAPES:
        (value,) = (each for each in values if isinstance(each, TracedValue))
        return [_reshaped(bare, value, _RESHAPES[op.kind](bare, value.shape))]
    raise op.error("it takes a value without a batch axis: give the input of the network a first axis of size 1")


def _bare(op: Operator, value: TracedValue) -> TracedValue:
    """The value without a batch axis: [1, *shape] becomes an ordinary shape."""
    if not value.batched:
        return value
    return replace(op.call(torch.unsqueeze, value, 1), batched=False)


def _reshaped(op: Operator, value: TracedValue, shape: Sequence[int]) -> TracedValue:
    """The value with another shape in the file."""
    if len(shape) > 1 and shape[0] == 1:
        shape, batched = shape[1:], True
    else:
        batched = False
    if tuple(shape) == tuple(value.example.shape[1:]):
        return replace(value, batched=batched)
    return replace(op.call(torch.reshape, value, (-1, *shape)), batched=batched)


def _flagged(op: Operator, rewritten: Operator) -> Result:
    """The outputs of an operator that was rewritten for values with a batch axis; their own shape has none."""
    result = OPERATORS[op.kind](rewritten)
    results = result if isinstance(result, list) else [result]
    return [_reshaped(op, one, one.shape[1:]) if isinstance(one, TracedValue) else one for one in results]


def _aligned(op: Operator) -> Operator:
    """An elementwise operator, with operands of one rank."""
    rank = max((each.example.dim() - 1 for each in op.inputs if isinstance(each, TracedValue)), default=0)
    rank = max([rank, *(np.ndim(each) for each in op.inputs if each is not None and not isinstance(each, TracedValue))])
    values: list[TracedValue | Array | None] = []
    for each in op.inputs:
        if isinstance(each, TracedValue):
            missing = rank - (each.example.dim() - 1)
            shape = (*(1,) * missing, *each.example.shape[1:])
            each = op.call(torch.reshape, each, (-1, *shape)) if missing else each
            each = replace(each, batched=True)
        values.append(each)
    return replace(op, inputs=values)


def _batched(op: Operator, **attributes: object) -> Operator:
    """The operator with values that have a batch axis again, and with other attributes."""
    proto = onnx.NodeProto()
    proto.CopyFrom(op.proto)
    kept = [attribute for attribute in op.proto.attribute if attribute.name not in attributes]
    del proto.attribute[:]
    proto.attribute.extend(kept)
    proto.attribute.extend(
        onnx.helper.make_attribute(name, value) for name, value in attributes.items() if value is not None
    )
    values = [replace(each, batched=True) if isinstance(each, TracedValue) else each for each in op.inputs]
    return replace(op, proto=proto, inputs=values)


def _rank(op: Operator) -> int:
    return next(each.example.dim() - 1 for each in op.inputs if isinstance(each, TracedValue))


def _moved(op: Operator, axes: Sequence[int]) -> list[int]:
    """Axes of the file, counted with a batch axis before them."""
    rank = _rank(op) + (op.kind == "OneHot")  # whose output has one axis more
    wrong = [axis for axis in axes if not -rank <= axis < rank]
    if wrong:
        raise op.error(f"axis {wrong[0]} does not exist in a tensor of {rank} axes")
    return [axis % rank + 1 for axis in axes]


def _with_axis(op: Operator) -> Operator:
    default = op.softmax_axis if op.kind in ("Softmax", "LogSoftmax") else AXIS[op.kind]
    return _batched(op, axis=_moved(op, [op.attribute("axis", default)])[0])


def _reduction(op: Operator) -> Operator:
    axes = op.setting("axes", 1)
    if not axes and op.attribute("noop_with_empty_axes", 0):
        return _batched(op)
    return _batched(replace(op, inputs=op.inputs[:1]), axes=_moved(op, axes or range(_rank(op))))


def _transposition(op: Operator) -> Operator:
    order = list(op.attribute("perm", range(_rank(op))[::-1]))
    return _batched(op, perm=[0, *(axis + 1 for axis in order)])


def _slicing(op: Operator) -> Operator:
    starts = op.setting("starts", 1)
    axes = _moved(op, op.setting("axes", 3) or range(len(starts)))
    settings = (starts, op.setting("ends", 2), axes, op.setting("steps", 4) or [1] * len(starts))
    return _batched(replace(op, inputs=[op.inputs[0], *(np.array(each, dtype=np.int64) for each in settings)]))


def _padding(op: Operator) -> Operator:
    if op.setting("axes", 3) is not None:
        raise op.error("it takes a value without a batch axis, and axes: leave out the axes")
    pads, rank = op.setting("pads", 1), _rank(op)
    moved = np.array([0, *pads[:rank], 0, *pads[rank:]], dtype=np.int64)
    return _batched(replace(op, inputs=[op.inputs[0], moved, *op.inputs[2:]]), pads=None)


def _product(op: Operator) -> Operator:
    """A product with a vector, or with a matrix of which one side is a vector of the network."""
    first, second = op.inputs
    if isinstance(second, TracedValue) and second.example.dim() == 2 and not isinstance(first, TracedValue):
        assert first is not None, "the inputs of a product are not optional"
        return _batched(replace(op, inputs=[second, np.swapaxes(first, -1, -2) if np.ndim(first) > 1 else first]))
    return _batched(op)


_REWRITTEN: dict[str, Callable[[Operator], Operator]] = {
    **dict.fromkeys(AXIS, _with_axis),
    **dict.fromkeys(REDUCTIONS, _reduction),
    "Transpose": _transposition,
    "Slice": _slicing,
    "Pad": _padding,
    "MatMul": _product,
    **dict.fromkeys(("Gemm", "GRU", "LSTM", "RNN"), _batched),
}


# ------------------------------------------------------------------------------------------ other shapes


def _flatten(op: Operator, shape: Sequence[int]) -> tuple[int, ...]:
    axis = op.attribute("axis", 1)
    front = list(shape)[:axis]
    return int(np.prod(front, dtype=int)), int(np.prod(list(shape)[len(front) :], dtype=int))


def _reshape(op: Operator, shape: Sequence[int]) -> tuple[int, ...]:
    sizes = op.setting("shape", 1)
    if not op.attribute("allowzero", 0):
        sizes = [n if n else shape[axis] for axis, n in enumerate(sizes)]
    return tuple(map(int, np.empty(tuple(shape)).reshape(sizes).shape))


def _squeeze(op: Operator, shape: Sequence[int]) -> tuple[int, ...]:
    axes = op.setting("axes", 1)
    return tuple(map(int, np.empty(tuple(shape)).squeeze(None if axes is None else tuple(axes)).shape))


def _unsqueeze(op: Operator, shape: Sequence[int]) -> tuple[int, ...]:
    axes: tuple[int, ...] = tuple(op.setting("axes", 1))
    return tuple(map(int, np.expand_dims(np.empty(tuple(shape)), axes).shape))


_RESHAPES: dict[str, Callable[[Operator, Sequence[int]], tuple[int, ...]]] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}

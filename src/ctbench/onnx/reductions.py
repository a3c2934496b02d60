"""The translation of ONNX operators that reduce axes or join values: sums, products, norms, greatest entries."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.onnx.building import Operator, TracedValue
from ctbench.onnx.table import reads

_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": torch.amax,
    "ReduceMean": torch.mean,
    "ReduceMin": torch.amin,
    "ReduceSum": torch.sum,
}
_NORMS = {"ReduceL1": 1.0, "ReduceL2": 2.0}


@reads(*_REDUCTIONS, *_NORMS, "ReduceLogSum", "ReduceProd", "ReduceSumSquare")
def _reduce(op: Operator) -> TracedValue:
    x, axes = op.value(), op.setting("axes", 1)
    if not axes and op.attribute("noop_with_empty_axes", 0):
        return x
    axes = [op.axis(axis, len(x.shape)) for axis in axes or range(len(x.shape))]
    kept = bool(op.attribute("keepdims", 1))
    if op.kind in _REDUCTIONS:
        return op.call(_REDUCTIONS[op.kind], x, axes, kept)
    if op.kind in _NORMS:
        return op.call(torch.linalg.vector_norm, x, _NORMS[op.kind], axes, kept)
    if op.kind == "ReduceProd":
        for axis in sorted(axes, reverse=True):
            x = op.call(torch.prod, x, axis, kept)
        return x
    x = op.call(torch.square, x) if op.kind == "ReduceSumSquare" else x
    total = op.call(torch.sum, x, axes, kept)
    return op.call(torch.log, total) if op.kind == "ReduceLogSum" else total


@reads("LpNormalization")
def _lp_normalization(op: Operator) -> TracedValue:
    """x / |x|_p, and 0 where the norm is 0. Undefined where the norms of ONNX Runtime may underflow.

    With h = 1 for norms from the least one t on and otherwise 0, 0 log(h + 1 - sign(|x|_p)) is NaN for norms between 0
    and t, and otherwise 0.
    """
    x, p = op.value(), float(op.attribute("p", 2))
    axis = op.axis(op.attribute("axis", -1), len(x.shape))
    least = 2.0**-126  # the smallest normal number of single precision
    if p == 2:  # squares may lose 2^-149 each, so a larger norm of n entries is exact to a few units
        least = math.sqrt(least * x.shape[axis])
    length = op.call(torch.linalg.vector_norm, x, p, axis, True)
    reached = op.call(torch.where, op.call(torch.ge, length, least), 1.0, 0.0)
    is_defined = op.call(torch.sub, op.call(torch.add, reached, 1.0), op.call(torch.sign, length))
    nan_elsewhere = op.call(torch.mul, op.call(torch.log, is_defined), 0.0)
    return op.call(torch.add, op.call(F.normalize, x, p, axis, least), nan_elsewhere)


@reads("TopK")
def _top_k(op: Operator) -> list[TracedValue]:
    x, count = op.value(), op.setting("k", 1)
    if not op.attribute("sorted", 1):
        raise op.error("sorted=0 leaves the order of the entries open: export with sorted=1")
    axis, largest = op.axis(op.attribute("axis", -1), len(x.shape)), bool(op.attribute("largest", 1))
    entries = op.call(torch.topk, x, int(np.asarray(count).reshape(())), axis, largest)
    return [op.call(operator.getitem, entries, output) for output in range(2)]


@reads("Max", "Min", "Mean")
def _joined(op: Operator) -> TracedValue:
    """Of several values and constants, entry by entry."""
    functions: dict[str, Callable[..., Tensor]] = {"Max": torch.maximum, "Min": torch.minimum, "Mean": torch.add}
    first, *others = op.operands()
    for other in others:
        first = op.call(functions[op.kind], first, other)
    return op.call(torch.div, first, float(len(op.inputs))) if op.kind == "Mean" else first


@reads("CumSum")
def _cumsum(op: Operator) -> TracedValue:
    x = op.value()
    axis = op.axis(int(np.asarray(op.constant(1)).reshape(())), len(x.shape))
    if op.attribute("reverse", 0):
        sums = op.call(torch.flip, op.call(torch.cumsum, op.call(torch.flip, x, [axis]), axis), [axis])
    else:
        sums = op.call(torch.cumsum, x, axis)
    return op.call(torch.sub, sums, x) if op.attribute("exclusive", 0) else sums


@reads("Einsum")
def _einsum(op: Operator) -> TracedValue:
    values = [
        part if isinstance(part, TracedValue) else op.buffer(index, op.weight(index))
        for index, part in enumerate(op.inputs)
    ]
    return op.call(torch.einsum, op.attribute("equation"), *values)

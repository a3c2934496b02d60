"""The translation of the ONNX operators that only move entries: one function per operator.

Every move keeps the batch as the first axis: an operator that would mix samples is refused.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ctbench.onnx.building import Operator, TracedValue
from ctbench.onnx.table import reads

# ------------------------------------------------------------------------------------------------ shapes


def _reshaped(op: Operator, x: TracedValue, shape: Sequence[int]) -> TracedValue:
    if not shape or shape[0] != 1:
        raise op.across(
            f"for one sample it makes shape {list(shape)} of {list(x.shape)}: the first size must stay the batch"
        )
    if tuple(shape) == x.shape:
        return x
    if len(shape) == 2 and len(x.shape) > 1:
        return op.call(torch.flatten, x, 1)
    return op.call(torch.reshape, x, (-1, *shape[1:]))


@reads("Flatten")
def _flatten(op: Operator) -> TracedValue:
    x, axis = op.value(), op.attribute("axis", 1)
    front = x.shape[:axis]  # a negative axis counts from the end, like in Python
    return _reshaped(op, x, (math.prod(front), math.prod(x.shape[len(front) :])))


@reads("Reshape")
def _reshape(op: Operator) -> TracedValue:
    x, sizes = op.value(), op.setting("shape", 1)
    if not op.attribute("allowzero", 0):
        sizes = [n if n else x.shape[axis] for axis, n in enumerate(sizes)]
    return _reshaped(op, x, np.empty(x.shape).reshape(sizes).shape)  # numpy computes the size of -1


@reads("Squeeze")
def _squeeze(op: Operator) -> TracedValue:
    x, axes = op.value(), op.setting("axes", 1)
    if axes is None:
        raise op.across("without axes it would also remove the batch: name the axes")
    dropped = {op.axis(axis, len(x.shape)) for axis in axes}
    if any(x.shape[axis] != 1 for axis in dropped):
        raise op.error(f"axes {axes} of shape {list(x.shape)} are not all of size 1")
    return _reshaped(op, x, [n for axis, n in enumerate(x.shape) if axis not in dropped])


@reads("Unsqueeze")
def _unsqueeze(op: Operator) -> TracedValue:
    x, axes = op.value(), op.setting("axes", 1)
    rank = len(x.shape) + len(axes)
    added, sizes = {op.axis(axis, rank) for axis in axes}, iter(x.shape)
    return _reshaped(op, x, [1 if axis in added else next(sizes) for axis in range(rank)])


@reads("Transpose")
def _transpose(op: Operator) -> TracedValue:
    x = op.value()
    order = list(op.attribute("perm", range(len(x.shape))[::-1]))
    if order[0] != 0:
        raise op.across(f"perm {order} moves the batch: its first entry must be 0")
    return op.call(torch.permute, x, order)


# ------------------------------------------------------------------------------ slices, joins, padding


def _at(op: Operator, x: TracedValue, axis: int, entries: slice | int | list[int]) -> TracedValue:
    return op.call(operator.getitem, x, (slice(None),) * axis + (entries,))


@reads("Slice")
def _slice(op: Operator) -> TracedValue:
    x, starts, ends = op.value(), op.setting("starts", 1), op.setting("ends", 2)
    axes = op.setting("axes", 3) or range(len(starts))
    for axis, start, end, step in zip(axes, starts, ends, op.setting("steps", 4) or [1] * len(starts), strict=True):
        if step < 1:
            raise op.error(f"a step of {step} is not supported: give 1 or more")
        size = x.shape[axis]
        begin, stop, _ = slice(start, end, step).indices(size)
        if axis % len(x.shape) == 0 and (begin, stop) == (0, 1):
            continue  # all of the batch
        x = _at(op, x, op.axis(axis, len(x.shape)), slice(begin, stop, step))
    return x


@reads("Split")
def _split(op: Operator) -> list[TracedValue]:
    x = op.value()
    axis = op.axis(op.attribute("axis", 0), len(x.shape))
    size, count = x.shape[axis], len(op.proto.output)
    whole = -(-size // count)  # the last part may be smaller
    sizes = op.setting("split", 1) or [min(whole, size - whole * part) for part in range(count)]
    ends = np.cumsum(sizes).tolist()
    return [_at(op, x, axis, slice(end - n, end)) for n, end in zip(sizes, ends, strict=True)]


@reads("Gather")
def _gather(op: Operator) -> TracedValue:
    x, entries = op.value(), op.setting("indices", 1)
    axis = op.axis(op.attribute("axis", 0), len(x.shape))
    if isinstance(entries, list) and any(isinstance(entry, list) for entry in entries):
        raise op.error("a matrix of indices is not supported: give a list of indices")
    return _at(op, x, axis, entries)


@reads("Concat")
def _concat(op: Operator) -> TracedValue:
    x = next(value for value in op.inputs if isinstance(value, TracedValue))
    axis = op.axis(op.attribute("axis"), len(x.shape))
    parts = [part if isinstance(part, TracedValue) else _repeated(op, i, x) for i, part in enumerate(op.inputs)]
    return op.call(torch.cat, parts, axis)


def _repeated(op: Operator, index: int, x: TracedValue) -> TracedValue:
    """A constant [1, *shape] as a value of the network, for as many samples as x has: zeros plus the constant."""
    constant = op.weight(index)
    if constant.dim() < 1 or len(constant) != 1:
        raise op.error(f"a constant of shape {tuple(constant.shape)} differs within a batch: its first size must be 1")
    flat = op.call(torch.flatten, x, 1) if len(x.shape) != 2 else x
    zeros = op.call(F.pad, flat, (constant.numel(), -flat.shape[1]))
    shaped = op.call(torch.reshape, zeros, (-1, *constant.shape[1:])) if constant.dim() != 2 else zeros
    return op.call(torch.add, shaped, op.buffer(index, constant[0]))


@reads("Pad")
def _pad(op: Operator) -> TracedValue:
    x, pads, filler = op.value(), op.setting("pads", 1), op.setting("value", 2)
    if op.attribute("mode", "constant") != "constant" or np.any(filler):
        raise op.error("only padding with zeros is supported")
    rank = len(x.shape)
    axes = op.setting("axes", 3) or range(rank)
    sides = [0] * 2 * rank  # in the order of F.pad: the last axis first
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if begin or end:
            at = 2 * (rank - 1 - op.axis(axis, rank))
            sides[at : at + 2] = begin, end
    return op.call(F.pad, x, sides[:-2])

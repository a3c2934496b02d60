"""The translation of the ONNX operators that only move entries: one function per operator.

Every move keeps the batch as the first axis: an operator that would mix samples is refused.
"""

from __future__ import annotations

import math
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


@reads("Slice")
def _slice(op: Operator) -> TracedValue:
    x, starts, ends = op.value(), op.setting("starts", 1), op.setting("ends", 2)
    axes = op.setting("axes", 3) or range(len(starts))
    for axis, start, end, step in zip(axes, starts, ends, op.setting("steps", 4) or [1] * len(starts), strict=True):
        size = x.shape[axis]
        if step < 0:
            entries = list(range(size))[slice(start, None if end < -size else end, step)]
            x = op.at(x, op.axis(axis, len(x.shape)), entries)
            continue
        begin, stop, _ = slice(start, end, step).indices(size)
        if axis % len(x.shape) == 0 and (begin, stop) == (0, 1):
            continue  # all of the batch
        x = op.at(x, op.axis(axis, len(x.shape)), slice(begin, stop, step))
    return x


@reads("Split")
def _split(op: Operator) -> list[TracedValue]:
    x = op.value()
    axis = op.axis(op.attribute("axis", 0), len(x.shape))
    size, count = x.shape[axis], len(op.proto.output)
    whole = -(-size // count)  # the last part may be smaller
    sizes = op.setting("split", 1) or [min(whole, size - whole * part) for part in range(count)]
    ends = np.cumsum(sizes).tolist()
    return [op.at(x, axis, slice(end - n, end)) for n, end in zip(sizes, ends, strict=True)]


@reads("Gather")
def _gather(op: Operator) -> TracedValue:
    x, entries = op.value(), op.setting("indices", 1)
    axis = op.axis(op.attribute("axis", 0), len(x.shape))
    table = np.array(entries)
    if table.ndim < 2:
        return op.at(x, axis, entries)
    shape = (*x.shape[:axis], *table.shape, *x.shape[axis + 1 :])
    return _reshaped(op, op.at(x, axis, table.flatten().tolist()), shape)


@reads("GatherElements")
def _gather_elements(op: Operator) -> TracedValue:
    x, entries = op.value(), np.array(op.setting("indices", 1), dtype=np.int64)
    axis = op.axis(op.attribute("axis", 0), len(x.shape))
    shape = (1, *x.shape[1:axis], *entries.shape[axis : axis + 1], *x.shape[axis + 1 :])
    if axis == 0 or entries.shape != shape:
        raise op.across(f"it takes entries along axis {axis} at places of shape {entries.shape}, not {shape}")
    places = torch.tensor(np.where(entries < 0, entries + x.shape[axis], entries))
    return op.call(torch.take_along_dim, x, op.buffer(1, places), axis)


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
    rank, mode = len(x.shape), op.attribute("mode", "constant")
    axes = op.setting("axes", 3) or range(rank)
    ends = {
        op.axis(axis, rank): (begin, end)
        for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True)
        if begin or end
    }
    if mode != "constant":
        for axis, (begin, end) in ends.items():
            if min(begin, end) < 0:
                raise op.error(f"negative pads with mode {mode!r} are not supported: slice first")
            x = op.at(x, axis, np.pad(np.arange(x.shape[axis]), (begin, end), mode).tolist())
        return x
    sides = [n for axis in range(rank - 1, 0, -1) for n in ends.get(axis, (0, 0))]  # the last axis first
    value = 0.0 if filler is None else float(np.asarray(filler).reshape(()))
    return op.call(F.pad, x, sides) if value == 0 else op.call(F.pad, x, sides, "constant", value)


@reads("Expand")
def _expand(op: Operator) -> TracedValue:
    x, sizes = op.value(), op.setting("shape", 1)
    x = _reshaped(op, x, (1,) * (len(sizes) - len(x.shape)) + x.shape)
    shape = np.broadcast_shapes(tuple(x.shape), tuple(sizes))
    if shape[0] != 1:
        raise op.error(f"it makes shape {list(shape)} of one sample: the first size must stay the batch")
    return x if shape == x.shape else op.call(torch.broadcast_to, x, (-1, *shape[1:]))


@reads("Tile")
def _tile(op: Operator) -> TracedValue:
    repeats = op.setting("repeats", 1)
    if repeats[0] != 1:
        raise op.error("it acts across the batch (axis 0): a network must treat each sample on its own")
    return op.call(torch.tile, op.value(), tuple(repeats))


@reads("DepthToSpace", "SpaceToDepth")
def _depth(op: Operator) -> TracedValue:
    x, size = op.value(), op.attribute("blocksize")
    _, channels, height, width = x.shape
    if op.kind == "SpaceToDepth":
        if op.attribute("mode", "DCR") == "CRD":
            return op.call(F.pixel_unshuffle, x, size)
        blocks = op.call(torch.reshape, x, (-1, channels, height // size, size, width // size, size))
        blocks = op.call(torch.permute, blocks, (0, 3, 5, 1, 2, 4))
        return op.call(torch.reshape, blocks, (-1, channels * size**2, height // size, width // size))
    if op.attribute("mode", "DCR") == "CRD":
        return op.call(F.pixel_shuffle, x, size)
    rest = channels // size**2
    blocks = op.call(torch.reshape, x, (-1, size, size, rest, height, width))
    blocks = op.call(torch.permute, blocks, (0, 3, 4, 1, 5, 2))
    return op.call(torch.reshape, blocks, (-1, rest, height * size, width * size))

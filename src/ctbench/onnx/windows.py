"""The translation of ONNX poolings, and the windows of poolings and convolutions.

Poolings become layers of torch where torch has such a layer. Otherwise the entries of each window are put on axes of
their own, and the pooling goes over these axes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ctbench.onnx.building import Operator, Shape, TracedValue
from ctbench.onnx.table import reads

Layers = dict[int, Callable[..., nn.Module]]  # by the number of axes of the kernel
_MAX_POOL: Layers = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE_POOL: Layers = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


@dataclass(frozen=True)
class Window:
    """A sliding window over the axes after the channels, with one number for each axis."""

    kernel: Shape
    stride: Shape
    dilation: Shape
    begin: Shape  # the padding before the first entry
    end: Shape  # the padding after the last entry
    rounds_up: bool = False  # whether a window may reach beyond the padding after the last entry

    @classmethod
    def of(cls, op: Operator, kernel: Sequence[int], sizes: Shape) -> Window:
        count = len(kernel)
        if len(sizes) != count or count not in (1, 2, 3):
            raise op.error(f"a kernel {list(kernel)} for {len(sizes)} axes is not supported: give 1 to 3 axes of each")
        ones = (1,) * count
        stride, dilation = tuple(op.attribute("strides", ones)), tuple(op.attribute("dilations", ones))
        auto = op.attribute("auto_pad", "NOTSET")
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            missing = [
                (-(-n // s) - 1) * s + d * (k - 1) + 1 - n
                for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
            ]
            # ONNX Runtime refuses poolings that skip the last entries, and shifts convolutions that skip three or more
            if min(missing) < {"Conv": -2, "ConvTranspose": -math.inf}.get(op.kind, 0):
                raise op.error(
                    f"auto_pad {auto} with strides {[*stride]} above the kernel {[*kernel]} is not supported, as "
                    f"runtimes read it differently: give pads"
                )
            missing = [max(n, 0) for n in missing]
            less, more = tuple(n // 2 for n in missing), tuple(n - n // 2 for n in missing)
            begin, end = (less, more) if auto == "SAME_UPPER" else (more, less)
        else:
            pads = tuple(op.attribute("pads", (0,) * 2 * count)) if auto == "NOTSET" else (0,) * 2 * count
            begin, end = pads[:count], pads[count:]
        return cls(tuple(kernel), stride, dilation, begin, end, bool(op.attribute("ceil_mode", 0)))

    @property
    def even(self) -> bool:
        return self.begin == self.end

    @property
    def dilated(self) -> bool:
        return any(d != 1 for d in self.dilation)

    @property
    def sides(self) -> list[int]:
        """The paddings in the order of F.pad: the last axis first."""
        return [n for pair in zip(self.begin[::-1], self.end[::-1], strict=True) for n in pair]

    def places(self, sizes: Shape) -> list[list[list[int]]]:
        """For each axis and each place of the window, the places of its entries; those of the padding are outside."""
        axes = list[list[list[int]]]()
        for n, k, s, d, begin, end in zip(
            sizes, self.kernel, self.stride, self.dilation, self.begin, self.end, strict=True
        ):
            room = n + begin + end - d * (k - 1) - 1
            count = (-(-room // s) if self.rounds_up else room // s) + 1
            if self.rounds_up and (count - 1) * s >= n + begin:  # it would begin in the padding after the last entry
                count -= 1
            axes.append([[at * s - begin + d * entry for entry in range(k)] for at in range(count)])
        return axes


def _unfolded(op: Operator, x: TracedValue, places: Sequence[Sequence[Sequence[int]]]) -> TracedValue:
    """The entries of the windows, [1, C, *windows, *kernel], of places inside the axes."""
    sides = len(places)
    for axis, rows in enumerate(places, 2):
        x = op.at(x, axis, [entry for row in rows for entry in row])
    shape = [size for rows in places for size in (len(rows), len(rows[0]))]
    x = op.call(torch.reshape, x, (-1, x.shape[1], *shape))
    order = [0, 1, *range(2, 2 + 2 * sides, 2), *range(3, 3 + 2 * sides, 2)]
    return op.call(torch.permute, x, order)


def _kernel_axes(x: TracedValue) -> list[int]:
    """The axes of the entries of a window."""
    sides = (len(x.shape) - 2) // 2
    return list(range(2 + sides, 2 + 2 * sides))


# ------------------------------------------------------------------------------------------------------- poolings


def _pooling_window(op: Operator, x: TracedValue) -> Window:
    """The window of a pooling. Raises OnnxError for paddings that runtimes refuse, or choose differently."""
    window, auto = Window.of(op, op.attribute("kernel_shape"), x.shape[2:]), op.attribute("auto_pad", "NOTSET")
    if auto.startswith("SAME") and window.dilated:
        raise op.error(f"auto_pad {auto} with dilations is not supported, as runtimes pad it differently: give pads")
    reach = [d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True)]
    if any(max(pads) > most for *pads, most in zip(window.begin, window.end, reach, strict=True)):
        raise op.error(f"a window sees only the padding {[*window.begin, *window.end]}: give smaller pads")
    return window


@reads("MaxPool")
def _max_pool(op: Operator) -> TracedValue:
    x = op.value()
    window = _pooling_window(op, x)
    fits = window.even and all(2 * pad <= size for pad, size in zip(window.begin, window.kernel, strict=True))
    if not fits and (window.dilated or window.rounds_up):  # a layer would keep a last window that sees only padding
        return _greatest(op, x, window)
    if not fits:  # every window that reaches beyond an edge also holds the entry at the edge
        x = _edge_padded(op, x, window.begin, window.end)
    padding = window.begin if fits else 0
    layer = _MAX_POOL[len(window.kernel)](
        window.kernel, window.stride, padding, window.dilation, ceil_mode=window.rounds_up
    )
    return op.layer(layer, x)


def _greatest(op: Operator, x: TracedValue, window: Window) -> TracedValue:
    """The greatest entries of windows: a place outside is replaced by another place of its window, inside."""
    places = list[list[list[int]]]()
    for size, rows in zip(x.shape[2:], window.places(x.shape[2:]), strict=True):
        inside = [[at for at in row if 0 <= at < size] for row in rows]
        if not all(inside):
            raise op.error(f"a window sees only the padding of an axis of {size} entries: give smaller pads")
        places.append([(row * len(whole))[: len(whole)] for row, whole in zip(inside, rows, strict=True)])
    entries = _unfolded(op, x, places)
    return op.call(torch.amax, entries, _kernel_axes(entries))


def _edge_padded(op: Operator, x: TracedValue, begin: Shape, end: Shape) -> TracedValue:
    """The value with its outermost entries repeated along the last axes."""
    for axis, (before, after) in enumerate(zip(begin, end, strict=True), len(x.shape) - len(begin)):
        if before or after:
            entries = np.pad(np.arange(x.shape[axis]), (before, after), "edge").tolist()
            x = op.call(operator.getitem, x, (slice(None),) * axis + (entries,))
    return x


@reads("AveragePool")
def _average_pool(op: Operator) -> TracedValue:
    x = op.value()
    window = _pooling_window(op, x)
    padded, counted = any(window.begin + window.end), bool(op.attribute("count_include_pad", 0))
    if window.dilated or window.rounds_up or not (window.even or counted):
        return _means(op, x, window, counted=counted)
    if not window.even:
        x = op.call(F.pad, x, window.sides)
    layer = _AVERAGE_POOL[len(window.kernel)](
        window.kernel, window.stride, window.begin if window.even else 0, count_include_pad=counted or not padded
    )
    return op.layer(layer, x)


def _means(op: Operator, x: TracedValue, window: Window, *, counted: bool) -> TracedValue:
    """The sums of windows, divided by the numbers of their entries; padding has entries of 0, if it is `counted`."""
    places, sizes = window.places(x.shape[2:]), x.shape[2:]
    begin = [max(0, -min(row[0] for row in rows)) for rows in places]
    end = [max(0, max(row[-1] for row in rows) + 1 - size) for rows, size in zip(places, sizes, strict=True)]
    if any(begin + end):
        x = op.call(F.pad, x, [n for pair in zip(begin[::-1], end[::-1], strict=True) for n in pair])
    shifted = [[[at + first for at in row] for row in rows] for rows, first in zip(places, begin, strict=True)]
    entries = _unfolded(op, x, shifted)
    sums = op.call(torch.sum, entries, _kernel_axes(entries))
    counts = np.ones(())
    for rows, size, before, after in zip(places, sizes, window.begin, window.end, strict=True):
        first, last = (-before, size + after) if counted else (0, size)
        side = np.array([sum(first <= at < last for at in row) for row in rows])
        if not side.all():
            raise op.error(f"a window sees only the padding of an axis of {size} entries: give smaller pads")
        counts = np.multiply.outer(counts, side)
    if len(set(counts.flat)) == 1:
        return op.call(torch.div, sums, float(counts.flat[0]))
    return op.call(
        torch.div, sums, op.building.buffer(f"{op.path}_counts", torch.tensor(counts, dtype=op.building.dtype))
    )


@reads("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(op: Operator) -> TracedValue:
    function = torch.mean if op.kind == "GlobalAveragePool" else torch.amax
    return op.call(function, op.value(), list(range(2, len(op.value().shape))), True)

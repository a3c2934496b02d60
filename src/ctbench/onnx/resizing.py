"""The translation of Resize and Upsample: maps along axes, one after the other.

An entry of the output comes from a place between entries of the input, a fraction. `nearest` takes one entry; `linear`
and `cubic` are weights of two and of four entries, which are computed as fractions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor, nn

from ctbench.graph import Op, lower
from ctbench.graph.ops import AlongAxis, Shape
from ctbench.graph.ops.along import resampled
from ctbench.onnx.building import Operator, TracedValue
from ctbench.onnx.table import reads


class Resampling(nn.Module):
    """y = M x along an axis of batches [B, *shape], for a constant matrix M, whose entries are rounded fractions.

    M is not a buffer: it stays in double precision, so a proof does not start from a matrix in single precision.
    """

    matrix: Tensor  # [out, in], in double precision

    def __init__(self, matrix: Tensor, axis: int) -> None:
        super().__init__()
        self.matrix, self.axis = matrix, axis

    def forward(self, x: Tensor) -> Tensor:
        return (x.movedim(self.axis, -1) @ self.matrix.T.to(x)).movedim(-1, self.axis)

    def extra_repr(self) -> str:
        return f"{list(self.matrix.shape)}, axis={self.axis}"


@lower.register
def _(module: Resampling, shape: Shape) -> Op:
    return AlongAxis(module.matrix, module.axis - 1)


_ROUNDINGS = {
    "round_prefer_floor": lambda place: math.ceil(place - Fraction(1, 2)),
    "round_prefer_ceil": lambda place: math.floor(place + Fraction(1, 2)),
    "floor": math.floor,
    "ceil": math.ceil,
}
_MODES = ("nearest", "linear", "cubic")


@reads("Resize", "Upsample")
def _resize(op: Operator) -> TracedValue:
    x, old = op.value(), op.kind == "Upsample" or len(op.inputs) == 2
    mode, kind = op.attribute("mode", "nearest"), "asymmetric" if old else "half_pixel"
    kind = op.attribute("coordinate_transformation_mode", kind)
    if mode not in _MODES or op.attribute("antialias", 0):
        what = "antialias=1" if mode in _MODES else f"mode {mode!r}"
        raise op.error(f"{what} is not supported: use {', '.join(_MODES)}, without antialias")
    sizes, scales = _sizes(op, x.shape, old)
    for axis, (size, count, scale) in enumerate(zip(x.shape, sizes, scales, strict=True)):
        if size == count and scale == 1:
            continue
        places = _places(kind, size, count, scale)
        if places is None:
            raise op.error(
                f"coordinate_transformation_mode {kind!r} is not supported: use half_pixel, asymmetric or align_corners"
            )
        x = _resampled(op, x, op.axis(axis, len(x.shape)), places, mode, old)
    return x


def _resampled(
    op: Operator, x: TracedValue, axis: int, places: Sequence[Fraction], mode: str, old: bool
) -> TracedValue:
    size = x.shape[axis]
    if mode == "nearest":
        rounding = _ROUNDINGS[op.attribute("nearest_mode", "floor" if old else "round_prefer_floor")]
        return op.at(x, axis, [min(max(rounding(place), 0), size - 1) for place in places])
    cubic = Fraction(op.attribute("cubic_coeff_a", -0.75)) if mode == "cubic" else None
    rows = resampled(places, size, cubic=cubic, inside=bool(op.attribute("exclude_outside", 0)))
    return op.layer(Resampling(AlongAxis.of(rows, size, axis - 1).weight, axis), x)


def _sizes(op: Operator, shape: Shape, old: bool) -> tuple[list[int], list[Fraction]]:
    """The size of each axis of the output, and how much larger each axis becomes."""
    axes = list(op.attribute("axes", range(len(shape))))
    scales, sizes = op.setting("scales", 1 if old else 2), None if old else op.setting("sizes", 3)
    counts, factors = list(shape), [Fraction(1)] * len(shape)
    policy = op.attribute("keep_aspect_ratio_policy", "stretch")
    if sizes and policy != "stretch":
        ratios = [Fraction(size, shape[axis]) for axis, size in zip(axes, sizes, strict=True)]
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        for axis in axes:
            factors[axis], counts[axis] = ratio, math.floor(ratio * shape[axis] + Fraction(1, 2))
        return counts, factors
    for axis, given in zip(axes, sizes or scales, strict=True):
        counts[axis] = given if sizes else math.floor(Fraction(given) * shape[axis])
        factors[axis] = Fraction(given, shape[axis]) if sizes else Fraction(given)
    return counts, factors


def _places(kind: str, size: int, count: int, scale: Fraction) -> list[Fraction] | None:
    """Where the entries of an axis come from; None for a rule that is not supported."""
    half, places = Fraction(1, 2), range(count)
    if kind == "asymmetric":
        return [at / scale for at in places]
    if kind == "half_pixel" or (kind == "pytorch_half_pixel" and count > 1):
        return [(at + half) / scale - half for at in places]
    if kind == "half_pixel_symmetric":
        shift = Fraction(size) / 2 * (1 - Fraction(count) / (scale * size))
        return [shift + (at + half) / scale - half for at in places]
    if kind == "pytorch_half_pixel":
        return [Fraction(0)]
    if kind == "tf_half_pixel_for_nn":
        return [(at + half) / scale for at in places]
    if kind == "align_corners":
        # an output that scales make is not whole counts as longer: its last entry lies beyond
        whole = scale * size
        return [Fraction(at * (size - 1)) / (whole - 1) if whole != 1 else Fraction(0) for at in places]
    return None

"""Other spellings of functions that have a reading: alpha of sums, torch.max of two tensors, in-place forms, casts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from ctbench.graph import arithmetic, comparisons, constants, nonlinear, orders, reductions, scatters  # noqa: F401  they fill the table
from ctbench.graph.builder import Builder, Constant, Masked, Value
from ctbench.graph.functions import READINGS, Reading, described, reads
from ctbench.graph.ops import UnsupportedLayerError
from ctbench.graph.orders import Ordered


def find(target: Any) -> Reading | None:
    """The reading of a function, or of a method by its name; None if there is none.

    A name that ends with _ is the in-place form of the name without it, e.g. torch.relu_, x.add_(y).
    """
    if target in READINGS:
        return READINGS[target]
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    if not name.endswith("_") or name.endswith("__"):
        return None
    base = name.removesuffix("_")
    places = [base] if isinstance(target, str) else [getattr(place, base, None) for place in (F, torch)]
    reading = next((READINGS[place] for place in places if place in READINGS), None)
    return None if reading is None else _in_place(reading)


def _in_place(reading: Reading) -> Reading:
    """The same reading; the result takes the memory of the first operand."""

    def writing(build: Builder, path: str, first: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(first, Value):
            raise UnsupportedLayerError(
                f"'{path}' writes into {described(first)}: compute it before the forward, and store it as a buffer"
            )
        result = reading(build, path, first, *args, **kwargs)
        if isinstance(result, Masked):
            return replace(result, value=build.written(result.value, first))
        return build.written(result, first)

    return writing


def _with_alpha(reading: Reading) -> Reading:
    """A sum or a difference of which the second operand has a factor."""

    def scaled(build: Builder, path: str, first: Any, second: Any, *, alpha: float = 1) -> Any:
        if alpha != 1 and isinstance(second, Constant):
            scaled_by = build.compute(path, "mul", alpha * second.tensor, alpha, second.tensor)
            second = Constant(scaled_by, second.name)
        elif alpha != 1:
            second = (
                second * alpha if isinstance(second, int | float) else READINGS[torch.mul](build, path, second, alpha)
            )
        return reading(build, path, first, second)

    return scaled


for _target in (torch.add, "add", torch.sub, "sub"):
    READINGS[_target] = _with_alpha(READINGS[_target])
READINGS[torch.subtract] = READINGS["subtract"] = READINGS[torch.sub]
READINGS[torch.multiply] = READINGS["multiply"] = READINGS[torch.mul]
READINGS[torch.divide] = READINGS["divide"] = READINGS[torch.true_divide] = READINGS[torch.div]
READINGS[torch.negative] = READINGS["negative"] = READINGS[torch.neg]


def _extreme(pairwise: Reading, sign: float) -> Reading:
    """The extreme of two tensors, or of the entries along a dimension, with its place."""

    def reading(build: Builder, path: str, x: Any, *args: Any, **kwargs: Any) -> Any:
        other = args[0] if args else kwargs.get("other", kwargs.get("dim"))
        if other is None:
            raise UnsupportedLayerError(f"'{path}' takes the extreme of all samples: name the dimension")
        if not isinstance(other, int):
            return pairwise(build, path, x, other)
        keepdim = bool(kwargs.get("keepdim", args[1] if len(args) > 1 else False))
        choice = READINGS[torch.argmax if sign > 0 else torch.argmin]
        values = _extreme_entries(build, path, x, other, keepdim, sign)
        return Ordered(values, lambda: choice(build, path, x, other, keepdim))

    return reading


def _extreme_entries(build: Builder, path: str, x: Value, dim: Any, keepdim: bool, sign: float) -> Value:
    negative = READINGS[torch.neg]
    turned = x if sign > 0 else negative(build, path, x)
    result: Value = READINGS[torch.amax](build, path, turned, dim, keepdim)
    return result if sign > 0 else negative(build, path, result)


@reads(torch.amin, "amin")
def _amin(build: Builder, path: str, x: Value, dim: Any, keepdim: bool = False) -> Value:
    return _extreme_entries(build, path, x, dim, keepdim, -1.0)


reads(torch.max, "max")(_extreme(READINGS[torch.maximum], 1.0))
reads(torch.min, "min")(_extreme(READINGS[torch.minimum], -1.0))


@reads("to", "type_as", "float", "double")
def _cast(build: Builder, path: str, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Another type or device. In exact arithmetic, another floating point type changes nothing."""
    options = (*args, *kwargs.values())
    kinds = [each for each in options if isinstance(each, torch.dtype)]
    if not kinds and any(isinstance(each, torch.device | str) for each in options):
        return x
    if isinstance(x, Constant) and not x.tensor.is_floating_point():
        result = x.tensor.to(kinds[0] if kinds else build.like.dtype)
        if not torch.equal(result.to(x.tensor.dtype), x.tensor):
            build.note_rounding(path, "to", (), {}, result)
        return Constant(result, x.name)
    if not kinds or kinds[0].is_floating_point:
        return x
    if isinstance(x, Constant):
        return Constant(build.following(x.tensor).to(kinds[0]), x.name)
    if kinds[0] not in (torch.bool, torch.int32, torch.int64):
        raise UnsupportedLayerError(f"'{path}' converts values to {kinds[0]}: give torch.int64 or torch.bool")
    return (comparisons.truth if kinds[0] is torch.bool else comparisons.whole)(build, path, x)

"""Other spellings of functions that have a reading: alpha of sums, torch.max of two tensors, in-place forms, casts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from ctbench.graph import arithmetic, comparisons, nonlinear  # noqa: F401  they fill the table
from ctbench.graph.builder import Builder, Constant, Value
from ctbench.graph.functions import READINGS, Reading, reads
from ctbench.graph.ops import UnsupportedLayerError


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
            raise UnsupportedLayerError(f"'{path}' writes into a constant: write a = f(a) for the in-place form")
        return build.written(reading(build, path, first, *args, **kwargs), first)

    return writing


def _with_alpha(reading: Reading) -> Reading:
    """A sum or a difference of which the second operand has a factor."""

    def scaled(build: Builder, path: str, first: Any, second: Any, *, alpha: float = 1) -> Any:
        if alpha != 1 and isinstance(second, Constant):
            if second.tensor.requires_grad:
                raise UnsupportedLayerError(
                    f"'{path}' multiplies {second.name} by alpha: the product would not follow its training, store the "
                    f"parameter with its factor"
                )
            second = Constant(alpha * second.tensor, second.name)
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


def _extreme(pairwise: Reading, reduction: Reading | None, sign: float) -> Reading:
    def reading(build: Builder, path: str, x: Any, *args: Any, **kwargs: Any) -> Any:
        other = args[0] if args else kwargs.get("other", kwargs.get("dim"))
        if isinstance(other, int):  # the values and their places; only the values can be read
            dim, keepdim = other, bool(kwargs.get("keepdim", args[1] if len(args) > 1 else False))
            if reduction is not None:
                return reduction(build, path, x, dim, keepdim), None
            turned = READINGS[torch.amax](build, path, READINGS[torch.neg](build, path, x), dim, keepdim)
            return READINGS[torch.neg](build, path, turned), None
        if other is None:
            raise UnsupportedLayerError(f"'{path}' takes the extreme of all samples: name the dimension")
        return pairwise(build, path, x, other)

    return reading


reads(torch.max, "max")(_extreme(READINGS[torch.maximum], READINGS[torch.amax], 1.0))
reads(torch.min, "min")(_extreme(READINGS[torch.minimum], READINGS.get(torch.amin), -1.0))


@reads("to", "type_as", "float", "double")
def _cast(build: Builder, path: str, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Another type or device. In exact arithmetic, another floating point type changes nothing."""
    kinds = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.dtype)]
    if not kinds or kinds[0].is_floating_point:
        return x
    if kinds[0] not in (torch.bool, torch.int32, torch.int64):
        raise UnsupportedLayerError(f"'{path}' converts values to {kinds[0]}: give torch.int64 or torch.bool")
    return (comparisons.truth if kinds[0] is torch.bool else comparisons.whole)(build, path, x)

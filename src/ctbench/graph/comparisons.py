"""Readings of comparisons, of the place of the greatest entry, of choices, and of roundings to whole numbers.

Truth values are 1 and 0. In a graph all values are real numbers, so a comparison is a step function of a difference:

    a >= b        h(a - b), with h(z) = 1 for z >= 0, otherwise 0
    a == b        max(0, 1 - |a - b|), for whole numbers
    argmax        entry i is the first greatest one if it reaches all later entries and no earlier entry reaches it: of
                  these K - 1 comparisons all are 1, so max(0, their sum - (K - 2)) is 1, otherwise 0

In exact arithmetic two entries may be equal where the bounds of their difference reach 0 from both sides. Then both
outcomes lie within the bounds of h, so a proof does not depend on how ties are broken.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.graph import compositions as compose
from ctbench.graph import masks
from ctbench.graph.builder import Builder, Constant, Masked, Value
from ctbench.graph.functions import READINGS, described, dims_of_sample, reads
from ctbench.graph.ops import (
    Abs,
    Add,
    AlongAxis,
    Clamp,
    Concat,
    Given,
    Heaviside,
    Linear,
    Max,
    Op,
    Product,
    ReLU,
    Reshape,
    Round,
    Scale,
    Select,
    Shift,
    Step,
    Trunc,
    UnsupportedLayerError,
)

MOST_ENTRIES = 300  # that are compared in pairs

# ---------------------------------------------------------------------------------------------- whole numbers

_KEEPING = (Abs, Add, Clamp, Concat, Max, Product, ReLU, Reshape, Select)
_WEIGHTED = (AlongAxis, Linear, Scale, Shift)


def is_whole(build: Builder, value: Value) -> bool:
    """Whether all entries of a value are known to be whole numbers."""
    waiting, seen = [value.index], set[int]()
    while waiting:
        node = build.nodes[waiting.pop()]
        if isinstance(node.op, Step) or (isinstance(node.op, Given) and _has_whole_tensors(node.op)):
            continue
        if isinstance(node.op, Clamp) and not all(end.is_integer() for end in node.op.kinks):
            return False
        if not isinstance(node.op, _KEEPING) and not (isinstance(node.op, _WEIGHTED) and _has_whole_tensors(node.op)):
            return False
        waiting += [source for source in node.inputs if source not in seen]
        seen.update(node.inputs)
    return True


def _has_whole_tensors(op: Op) -> bool:
    tensors = (getattr(op, field.name) for field in fields(op))  # type: ignore[arg-type]
    return all(torch.equal(each, each.round()) for each in tensors if isinstance(each, Tensor))


def whole(build: Builder, path: str, x: Value) -> Value:
    """The value without its fractions."""
    return x if is_whole(build, x) else build.append(path, Trunc(), x)


def truth(build: Builder, path: str, x: Value) -> Value:
    """1 where whole numbers are not 0, otherwise 0."""
    if not is_whole(build, x):
        raise UnsupportedLayerError(f"'{path}' takes numbers as truth values: compare them with a number, e.g. x > 0")
    return build.append(path, Clamp(0.0, 1.0), build.append(path, Abs(), x))


@reads(torch.trunc, torch.fix, "trunc", "fix")
def _trunc(build: Builder, path: str, x: Value) -> Value:
    return build.append(path, Trunc(), x)


@reads(torch.round, "round")
def _round(build: Builder, path: str, x: Value, *, decimals: int = 0) -> Value:
    if decimals:
        raise UnsupportedLayerError(f"'{path}' rounds to {decimals} decimals: only decimals=0 is supported")
    return build.append(path, Round(), x)


@reads("int", "long")
def _long(build: Builder, path: str, x: Value) -> Value:
    return whole(build, path, x)


@reads("bool")
def _bool(build: Builder, path: str, x: Value) -> Value:
    return truth(build, path, x)


# ------------------------------------------------------------------------------------------------- comparisons


def _difference(build: Builder, path: str, first: Any, second: Any) -> Value:
    result: Value = READINGS[torch.sub](build, path, first, second)
    return result


def _not(build: Builder, path: str, x: Value) -> Value:
    """1 - x."""
    return compose.shifted(build, path, READINGS[torch.neg](build, path, x), 1.0)


@reads(torch.ge, operator.ge, "ge", torch.greater_equal, "greater_equal")
def _ge(build: Builder, path: str, first: Any, second: Any) -> Value:
    return build.append(path, Heaviside(), _difference(build, path, first, second))


@reads(torch.le, operator.le, "le", torch.less_equal, "less_equal")
def _le(build: Builder, path: str, first: Any, second: Any) -> Value:
    return build.append(path, Heaviside(), _difference(build, path, second, first))


@reads(torch.gt, operator.gt, "gt", torch.greater, "greater")
def _gt(build: Builder, path: str, first: Any, second: Any) -> Value:
    return _not(build, path, _le(build, path, first, second))


@reads(torch.lt, operator.lt, "lt", torch.less, "less")
def _lt(build: Builder, path: str, first: Any, second: Any) -> Value:
    return _not(build, path, _ge(build, path, first, second))


@reads(torch.eq, operator.eq, "eq")
def _eq(build: Builder, path: str, first: Any, second: Any) -> Value:
    difference = _difference(build, path, first, second)
    if not is_whole(build, difference):
        raise UnsupportedLayerError(
            f"'{path}' asks whether numbers are equal that may not be whole: compare them by >= or <=, or round them"
        )
    return is_zero(build, path, difference)


def is_zero(build: Builder, path: str, x: Value) -> Value:
    """max(0, 1 - |x|)."""
    return build.append(path, ReLU(), _not(build, path, build.append(path, Abs(), x)))


@reads(torch.ne, operator.ne, "ne", torch.not_equal, "not_equal")
def _ne(build: Builder, path: str, first: Any, second: Any) -> Value:
    return _not(build, path, _eq(build, path, first, second))


@reads(F.threshold, torch.threshold)
def _threshold(build: Builder, path: str, x: Value, threshold: float, value: float, inplace: bool = False) -> Value:
    """x where it is above a threshold t, otherwise a value v: max(x, t) + (v - t) h(t - x)."""
    if not math.isfinite(value - threshold):
        raise UnsupportedLayerError(
            f"'{path}' has the threshold {threshold} and the value {value}: give smaller numbers"
        )
    result = build.append(path, Clamp(float(threshold), math.inf), x)
    if value != threshold:
        below = _le(build, path, x, threshold)
        jump = compose.scaled(build, path, below, float(Fraction(value) - Fraction(threshold)))
        result = compose.added(build, path, result, jump)
    return build.written(result, x) if inplace else result


# ------------------------------------------------------------------------------------------------ truth values


@reads(torch.logical_not, "logical_not", torch.bitwise_not, operator.invert, "bitwise_not")
def _logical_not(build: Builder, path: str, x: Value) -> Value:
    return _not(build, path, truth(build, path, x))


def _both(build: Builder, path: str, first: Value, second: Value) -> Value:
    """max(0, x + y - 1)."""
    return build.append(path, ReLU(), compose.shifted(build, path, compose.added(build, path, first, second), -1.0))


@reads(torch.logical_and, "logical_and", torch.bitwise_and, operator.and_, "bitwise_and")
def _and(build: Builder, path: str, first: Any, second: Any) -> Value:
    return _both(build, path, *_truths(build, path, first, second))


@reads(torch.logical_or, "logical_or", torch.bitwise_or, operator.or_, "bitwise_or")
def _or(build: Builder, path: str, first: Any, second: Any) -> Value:
    turned = (_not(build, path, each) for each in _truths(build, path, first, second))
    return _not(build, path, _both(build, path, *turned))


@reads(torch.logical_xor, "logical_xor", torch.bitwise_xor, operator.xor, "bitwise_xor")
def _xor(build: Builder, path: str, first: Any, second: Any) -> Value:
    return _ne(build, path, *_truths(build, path, first, second))


def _truths(build: Builder, path: str, first: Any, second: Any) -> list[Value]:
    like = first if isinstance(first, Value) else second

    def one(x: Any) -> Value:
        if isinstance(x, Value):
            return truth(build, path, x)
        constant = x.tensor.bool() if isinstance(x, Constant) else torch.tensor(bool(x), device=build.like.device)
        return compose.given(build, path, constant.expand(1, *like.shape)[0].to(build.like), like)

    return [one(first), one(second)]


@reads(torch.where, "where")
def _where(build: Builder, path: str, condition: Any, first: Any, second: Any) -> Any:
    """second + condition (first - second)."""
    if _is_minus_infinity(first) and not _is_minus_infinity(second):
        return _masked(build, path, second, condition, keeping=False)
    if _is_minus_infinity(second) and not _is_minus_infinity(first):
        return _masked(build, path, first, condition, keeping=True)
    add, multiply = READINGS[torch.add], READINGS[torch.mul]
    if all(isinstance(each, int | float) for each in (first, second)):
        # torch makes tensors of both numbers, in its default type and not in that of the network
        first, second = (Constant(torch.tensor(each, device=build.like.device), repr(each)) for each in (first, second))
    shares: tuple[Value | Constant, Value | Constant]
    if isinstance(condition, Constant):
        mask = condition.tensor.to(build.like)
        shares = (Constant(mask, condition.name), Constant(1 - mask, condition.name))
    elif isinstance(first, Value) and isinstance(second, Value):
        change = _difference(build, path, first, second)
        result: Value = add(build, path, second, multiply(build, path, condition, change))
        return result
    else:
        shares = (condition, _not(build, path, condition))
    parts = [_times(build, path, share, each) for share, each in zip(shares, (first, second), strict=True)]
    total: Value = add(build, path, *parts)
    return total


@reads(torch.masked_fill, "masked_fill")
def _masked_fill(build: Builder, path: str, x: Any, mask: Any, value: Any) -> Any:
    return _where(build, path, mask, value, x)


def _is_minus_infinity(x: Any) -> bool:
    if isinstance(x, Constant):
        return x.tensor.is_floating_point() and bool((x.tensor == -math.inf).all())
    return isinstance(x, float) and x == -math.inf


def _masked(build: Builder, path: str, x: Any, mask: Any, *, keeping: bool) -> Value | Masked:
    """The value with -inf where a mask is true, or with `keeping` where it is false."""
    if not isinstance(mask, Constant) or not isinstance(x, Value | Masked):
        raise UnsupportedLayerError(
            f"'{path}' fills {described(x)} with -inf where {described(mask)} says: give a mask that does not "
            f"depend on the input, or fill with a finite number such as -1e4"
        )
    keep = mask.tensor.bool()
    return masks.without(build, path, x, Constant(keep if keeping else ~keep, mask.name))


def _times(build: Builder, path: str, share: Any, x: Any) -> Any:
    """A product, of which both factors may be constants."""
    if isinstance(share, Value) or isinstance(x, Value):
        return READINGS[torch.mul](build, path, x, share)
    number = x.tensor if isinstance(x, Constant) else x
    product = build.compute(path, "mul", share.tensor * number, share.tensor, number)
    return Constant(torch.where(share.tensor == 0, 0.0, product), share.name)


# ------------------------------------------------------------------------------------------- the greatest entry


def before_softmax(build: Builder, path: str, x: Value, dim: int) -> Value:
    """Values whose entries along an axis have the same order: those before a softmax along this axis."""
    at, moves = x.index, list[Op]()
    while at not in build.softmaxes:
        node = build.nodes[at]
        if not isinstance(node.op, Reshape | Select):
            return x
        moves.insert(0, node.op)
        (at,) = node.inputs
    source, axis = build.softmaxes[at]
    rows = torch.arange(1.0, 1 + math.prod(source.shape)).view(1, *source.shape)
    rows = rows.narrow(axis + 1, 0, 1).expand(1, *source.shape)  # the number of the softmax that an entry belongs to
    for op in moves:
        rows = op.map(torch.Tensor.cpu)(rows)
    rows = rows.view(1, *x.shape)
    if not bool((rows == rows.narrow(dim + 1, 0, 1)).all()):
        return x
    return replace(build.chain(path, moves, source), shape=x.shape)


def compared_in_pairs(build: Builder, path: str, x: Value, dim: int) -> tuple[list[tuple[int, int]], Value]:
    """Pairs of places along an axis, and for each pair whether its first entry reaches the other one, 1 or 0."""
    size = x.shape[dim]
    if size > MOST_ENTRIES:
        raise UnsupportedLayerError(
            f"'{path}' orders {size} entries, which are compared in pairs: at most {MOST_ENTRIES} are supported; leave "
            f"out the choice, and compare the entries in the property"
        )
    pairs = [(first, later) for later in range(size) for first in range(later)]
    duels = compose.along(build, path, x, [{i: Fraction(1), j: Fraction(-1)} for i, j in pairs], dim)
    return pairs, build.append(path, Heaviside(), duels)


def first_greatest(build: Builder, path: str, x: Value, dim: int) -> Value:
    """1 for the first greatest entry along an axis, and 0 for the others, in the shape of x."""
    x, size = before_softmax(build, path, x, dim), x.shape[dim]
    if size == 1:
        return compose.given(build, path, build.like.new_ones(x.shape), x)
    pairs, won = compared_in_pairs(build, path, x, dim)
    signs = [
        {place: Fraction(1 if i == entry else -1) for place, (i, j) in enumerate(pairs) if entry in (i, j)}
        for entry in range(size)
    ]
    # a later entry wins 1 - won, once for each entry before it
    shape = [size if axis == dim else 1 for axis in range(len(x.shape))]
    more = torch.arange(size, dtype=build.like.dtype, device=build.like.device).view(shape) - (size - 2)
    won = build.append(path, Shift(more), compose.along(build, path, won, signs, dim))
    return won if size == 2 else build.append(path, ReLU(), won)


def _choice(sign: float) -> Callable[..., Value]:
    def reading(build: Builder, path: str, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
        if dim is None:
            raise UnsupportedLayerError(f"'{path}' goes over the batch: name the dimension, starting with 1")
        (place,) = dims_of_sample(path, dim, x.shape)
        chosen = first_greatest(build, path, x if sign > 0 else READINGS[torch.neg](build, path, x), place)
        numbers = [{entry: Fraction(entry) for entry in range(1, x.shape[place])}]
        result = compose.along(build, path, chosen, numbers, place)
        return result if keepdim else compose.squeezed(build, path, result, place)

    return reading


reads(torch.argmax, "argmax")(_choice(1.0))
reads(torch.argmin, "argmin")(_choice(-1.0))


@reads(F.one_hot)
def _one_hot(build: Builder, path: str, x: Value, num_classes: int = -1) -> Value:
    if num_classes < 1:
        raise UnsupportedLayerError(f"'{path}' has no num_classes: give the number of classes")
    if not is_whole(build, x):
        raise UnsupportedLayerError(f"'{path}' takes numbers that may not be whole: give those of argmax")
    rows = build.move(path, lambda t: t.unsqueeze(-1).expand(*t.shape, num_classes), x, copies=True)
    numbers = torch.arange(num_classes, dtype=build.like.dtype, device=build.like.device)
    return is_zero(build, path, build.append(path, Shift(-numbers.view([1] * len(x.shape) + [-1])), rows))

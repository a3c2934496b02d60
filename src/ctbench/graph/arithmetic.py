"""Readings of sums, scales, products, joins and maxima, and of functions whose weights are arguments."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.graph import compositions, masks
from ctbench.graph.builder import REMEDY, Builder, Constant, Masked, Value
from ctbench.graph.functions import Reading, described, dims_of_sample, hardtanh, reads
from ctbench.graph.ops import ClampEach, Concat, Conv2d, Linear, Max, Mean, Scale, Shift, UnsupportedLayerError
from ctbench.graph.ops.along import total
from ctbench.graph.ops.convolutions import pair
from ctbench.graph.ops.moves import broadcasts

# ---------------------------------------------------------------------------------------------- sums and scales


def _in_place(reading: Reading) -> Reading:
    """The same reading for the in-place operator: the result takes the memory of the first operand."""

    def writing(build: Builder, path: str, first: Any, second: Any) -> Value:
        if not isinstance(first, Value):
            raise UnsupportedLayerError(f"'{path}' writes into {described(first)}: write a = a + b for a += b")
        return build.written(reading(build, path, first, second), first)

    return writing


@reads(torch.add, operator.add, "add")
def _add(build: Builder, path: str, first: Any, second: Any) -> Any:
    if isinstance(first, Value) and isinstance(second, Value):
        return compositions.added(build, path, first, second)
    if isinstance(first, Masked) or isinstance(second, Masked) or masks.is_mask(first) or masks.is_mask(second):
        return _masked_sum(build, path, first, second)
    value, constant, _ = told_apart(build, path, first, second)
    return build.append(path, Shift(constant), value)


def _masked_sum(build: Builder, path: str, first: Any, second: Any) -> Any:
    """A sum with operands that have entries of -inf."""
    terms, seen = list[Any](), list[Constant]()
    for term in (first, second):
        if isinstance(term, Masked):
            terms.append(term.value)
            seen.append(Constant(term.keep, "the mask of a value"))
        elif masks.is_mask(term) and isinstance(term, Constant):
            finite, keep = masks.split(build, term)
            terms.append(finite)
            seen.append(keep)
        else:
            terms.append(term)
    result = _add(build, path, *terms)
    for keep in seen:
        result = masks.without(build, path, result, keep)
    return result


@reads(torch.sub, operator.sub, "sub")
def _sub(build: Builder, path: str, first: Any, second: Any) -> Any:
    if isinstance(second, Value):
        return _add(build, path, first, _negative(build, path, second))
    value, constant, _ = told_apart(build, path, first, second)
    return build.append(path, Shift(-build.following(constant)), value)


@reads(torch.mul, operator.mul, "mul")
def _mul(build: Builder, path: str, first: Any, second: Any) -> Any:
    if isinstance(first, Value) and isinstance(second, Value):
        return compositions.product(build, path, first, second)
    if isinstance(first, Masked) or isinstance(second, Masked):
        return _masked_multiple(build, path, _mul, first, second)
    value, constant, _ = told_apart(build, path, first, second)
    return build.append(path, Scale(constant, torch.zeros_like(constant)), value)


def _masked_multiple(build: Builder, path: str, reading: Reading, first: Any, second: Any) -> Masked:
    """The multiple of a value that has entries of -inf."""
    masked, factor = (first, second) if isinstance(first, Masked) else (second, first)
    number = factor.tensor.detach() if isinstance(factor, Constant) else factor
    is_positive = (
        bool((number > 0).all()) if isinstance(number, Tensor) else isinstance(number, int | float) and number > 0
    )
    if not is_positive:
        raise UnsupportedLayerError(
            f"'{path}' multiplies values some of which are -inf by {described(factor)}: give positive numbers, or "
            f"apply the mask later, right before the softmax"
        )
    result = reading(build, path, masked.value, factor)
    return Masked(result, masked.keep.expand(result.shape))


@reads(torch.div, operator.truediv, "div")
def _div(build: Builder, path: str, first: Any, second: Any) -> Any:
    if isinstance(first, Masked):
        return _masked_multiple(build, path, _div, first, second)
    if isinstance(second, Value):
        return _mul(build, path, first, compositions.power(build, path, second, -1.0))
    value, constant, _ = told_apart(build, path, first, second)
    factor = 1 / build.following(constant)
    if not bool(factor.isfinite().all()):
        raise ValueError(f"'{path}' divides by 0, or by a number so small that its inverse is not finite")
    zeros = torch.zeros_like(factor)
    halves = torch.frexp(factor.detach()).mantissa.abs() == 0.5  # a quotient by a power of two is exact
    return build.append(path, Scale(factor, zeros, None if bool(halves.all()) else zeros), value)


@reads(torch.neg, operator.neg, "neg")
def _negative(build: Builder, path: str, x: Value) -> Value:
    result: Value = _mul(build, path, x, -1.0)
    return result


for _operator, _reading in {
    operator.iadd: _add,
    operator.isub: _sub,
    operator.imul: _mul,
    operator.itruediv: _div,
}.items():
    reads(_operator)(_in_place(_reading))


def told_apart(build: Builder, path: str, first: Any, second: Any) -> tuple[Value, Tensor, str]:
    """The operand that is a value; the other operand as a constant with the same number of dimensions; its name."""
    value, other = (first, second) if isinstance(first, Value) else (second, first)
    if not isinstance(value, Value):
        raise UnsupportedLayerError(
            f"'{path}' computes with {described(first)} and {described(second)}, but neither is a value of the "
            f"network: {REMEDY}"
        )
    if isinstance(other, Constant):
        constant = other.tensor.to(build.like)
    elif isinstance(other, int | float) and not isinstance(other, bool):
        constant = build.number(other)
    else:
        raise UnsupportedLayerError(
            f"'{path}' joins {described(first)} with {described(second)}: give numbers, tensors or values"
        )
    rank, name = len(value.shape), described(other)
    if not bool(constant.isfinite().all()):
        raise ValueError(f"'{path}' computes with {name}, which is not finite in {constant.dtype}")
    if constant.dim() == rank + 1 and constant.shape[0] == 1:
        constant = constant[0]
    if constant.dim() > rank:
        raise UnsupportedLayerError(_apart(path, value, name, constant))
    aligned = constant.view((1,) * (rank - constant.dim()) + tuple(constant.shape))
    if not broadcasts(aligned.shape, value.shape):
        try:
            shape = tuple(torch.broadcast_shapes(value.shape, aligned.shape))
        except RuntimeError:
            raise UnsupportedLayerError(_apart(path, value, name, constant)) from None
        value = compositions.expanded(build, path, value, shape)
    return value, torch.atleast_1d(aligned), name


def _apart(path: str, value: Value, name: str, constant: Tensor) -> str:
    return (
        f"'{path}' joins values of shape {value.shape} with {name} of shape {tuple(constant.shape)}: it must broadcast "
        f"to the values, without the batch; expand the values first if they have fewer axes"
    )


# --------------------------------------------------------------------------------------- means, joins, maxima


@reads(torch.mean, "mean")
def _mean(build: Builder, path: str, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    dims = dims_of_sample(path, dim, x.shape)
    value = build.append(path, Mean(dims, x.shape), x)
    return value if keepdim else build.move(path, lambda t: t.squeeze([d + 1 for d in dims]), value)


@reads(torch.sum, "sum")
def _sum(build: Builder, path: str, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    dims = dims_of_sample(path, dim, x.shape)
    for place in dims:
        x = compositions.along(build, path, x, total(x.shape[place]), place)
    return x if keepdim else build.move(path, lambda t: t.squeeze([d + 1 for d in dims]), x)


@reads(torch.cat, torch.concat)
def _cat(build: Builder, path: str, values: Sequence[Any], dim: int = 0) -> Value:
    like = next((value for value in values if isinstance(value, Value)), None)
    if like is None:
        raise UnsupportedLayerError(f"'{path}' joins constants only: join them before the forward")
    values = [_as_value(build, path, value, like) for value in values]
    (place,) = dims_of_sample(path, dim, like.shape)
    return build.append(path, Concat(place, tuple(value.shape[place] for value in values)), *values)


def _as_value(build: Builder, path: str, value: Any, like: Value) -> Value:
    """A value of the network; a constant becomes one, without its batch."""
    if isinstance(value, Value):
        return value
    if not isinstance(value, Constant) or value.tensor.dim() != len(like.shape) + 1 or len(value.tensor) != 1:
        raise UnsupportedLayerError(
            f"'{path}' joins values of shape {like.shape} with {described(value)}: give a tensor with a batch of 1 "
            f"and the same number of axes"
        )
    return compositions.given(build, path, value.tensor[0].to(build.like), like)


@reads(torch.stack)
def _stack(build: Builder, path: str, values: Sequence[Value], dim: int = 0) -> Value:
    place = dim % (len(values[0].shape) + 2)
    return _cat(build, path, [build.move(path, lambda t: t.unsqueeze(place), value) for value in values], place)


@reads(torch.maximum, "maximum")
def _maximum(build: Builder, path: str, first: Any, second: Any) -> Value:
    if not (isinstance(first, Value) and isinstance(second, Value)):
        value, constant, _ = told_apart(build, path, first, second)
        return build.append(path, ClampEach(constant, torch.full_like(constant, math.inf)), value)
    first, second = compositions.broadcast(build, path, first, second)
    return _greatest(build, path, _stack(build, path, [first, second], 1))


def _greatest(build: Builder, path: str, entries: Value) -> Value:
    """The maximum along the first axis of a sample."""
    rest = entries.shape[1:]
    if not rest:  # the maximum of a vector has an axis in the graph
        entries = build.move(path, lambda t: t.unsqueeze(2), entries)
    return replace(build.append(path, Max(), entries), shape=rest)


@reads(torch.clamp, torch.clip, "clamp", "clip")
def _clamp(build: Builder, path: str, x: Value, min: Any = None, max: Any = None) -> Value:  # noqa: A002 - torch's names
    if all(end is None or isinstance(end, int | float) for end in (min, max)):
        low, high = -math.inf if min is None else min, math.inf if max is None else max
        return build.layer(path, hardtanh(low, high), x) if low < high else _unclampable(path, low, high)
    x = x if min is None else _maximum(build, path, x, min)
    return x if max is None else _minimum(build, path, x, max)


def _unclampable(path: str, low: float, high: float) -> Value:
    raise ValueError(f"'{path}': values cannot be clamped to [{low:g}, {high:g}]: give min < max")


@reads(torch.minimum, "minimum")
def _minimum(build: Builder, path: str, first: Any, second: Any) -> Value:
    if isinstance(first, Value) and isinstance(second, Value):
        return _negative(
            build, path, _maximum(build, path, *(_negative(build, path, each) for each in (first, second)))
        )
    value, constant, _ = told_apart(build, path, first, second)
    return build.append(path, ClampEach(torch.full_like(constant, -math.inf), constant), value)


@reads(torch.amax, "amax")
def _amax(build: Builder, path: str, x: Value, dim: Any, keepdim: bool = False) -> Value:
    dims = [place + 1 for place in dims_of_sample(path, dim, x.shape)]
    first = list(range(1, len(dims) + 1))
    value = _greatest(build, path, build.move(path, lambda t: t.movedim(dims, first).flatten(1, len(dims)), x))
    if keepdim:
        shape = [1 if place + 1 in dims else size for place, size in enumerate(x.shape)]
        return build.move(path, lambda t: t.reshape(-1, *shape), value)
    return value


# -------------------------------------------------------------------------- weights as arguments of functions


@reads(F.linear)
def _linear(build: Builder, path: str, x: Value, weight: Constant, bias: Constant | None = None) -> Value:
    return build.append(path, Linear(weight.tensor, None if bias is None else bias.tensor), x)


@reads(torch.matmul, operator.matmul, "matmul", torch.mm, "mm", torch.bmm, "bmm")
def _matmul(build: Builder, path: str, x: Any, weight: Any) -> Value:
    if isinstance(x, Value) and isinstance(weight, Value):
        return compositions.matmul(build, path, x, weight)
    if isinstance(x, Constant) and isinstance(weight, Value) and x.tensor.dim() > 1 and len(weight.shape) > 1:
        turned = compositions.swapped(build, path, weight, -1, -2)
        return compositions.swapped(build, path, _times(build, path, turned, x.tensor), -1, -2)
    if not (isinstance(x, Value) and isinstance(weight, Constant)):
        raise UnsupportedLayerError(
            f"'{path}' is the product of {described(x)} and {described(weight)}, which is not supported: give two "
            f"values, or a value and a constant"
        )
    if weight.tensor.dim() == 1:
        column = build.append(path, Linear(weight.tensor.unsqueeze(0), None), x)
        return compositions.squeezed(build, path, column, len(x.shape) - 1)
    return _times(build, path, x, weight.tensor.mT)


@reads(torch.addmm, "addmm", torch.baddbmm, "baddbmm")
def _added_product(
    build: Builder, path: str, x: Any, first: Any, second: Any, *, beta: float = 1, alpha: float = 1
) -> Any:
    """beta x + alpha (first @ second)."""
    if isinstance(first, Constant) and isinstance(second, Constant):
        product: Any = Constant(build.compute(path, "matmul", first.tensor @ second.tensor), first.name)
    else:
        product = _matmul(build, path, first, second)
    product = product if alpha == 1 else _multiple(build, path, product, alpha)
    if beta == 0:
        return product
    return _add(build, path, x if beta == 1 else _multiple(build, path, x, beta), product)


def _multiple(build: Builder, path: str, x: Any, factor: float) -> Any:
    if isinstance(x, Constant):
        return Constant(build.compute(path, "mul", x.tensor * factor, x.tensor, factor), x.name)
    return _mul(build, path, x, factor)


@reads(torch.lerp, "lerp")
def _lerp(build: Builder, path: str, start: Any, end: Any, weight: Any) -> Any:
    """start + weight (end - start)."""
    change = _mul(build, path, _sub(build, path, end, start), weight)
    return _add(build, path, start, change)


def _times(build: Builder, path: str, x: Value, weight: Tensor) -> Value:
    """x W^T, for a matrix W [..., out, in], or one for each matrix x of a sample."""
    if weight.dim() > len(x.shape) and len(weight) == 1:
        weight = weight[0]
    if weight.dim() == 2:
        return build.append(path, Linear(weight, None), x)
    if weight.dim() > len(x.shape) or len(x.shape) < 2:
        raise UnsupportedLayerError(
            f"'{path}' multiplies values of shape {x.shape} by {tuple(weight.shape)} numbers: matrices must not differ "
            f"between the samples of a batch"
        )
    rank = len(x.shape)
    rows = compositions.unsqueezed(build, path, x, rank - 1)  # [..., m, 1, k]
    shape = (*torch.broadcast_shapes(x.shape[:-2], weight.shape[:-2]), x.shape[-2], weight.shape[-2], x.shape[-1])
    factors = weight.unsqueeze(-3).expand(*weight.shape[:-2], 1, *weight.shape[-2:])
    factors = factors.view((1,) * (len(shape) - factors.dim()) + tuple(factors.shape))
    products = Scale(factors, torch.zeros_like(factors))
    expanded = compositions.expanded(build, path, rows, tuple(shape))
    return compositions.summed(build, path, build.append(path, products, expanded), rank)


@reads(F.conv2d)
def _conv2d(
    build: Builder,
    path: str,
    x: Value,
    weight: Constant,
    bias: Constant | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    if isinstance(padding, str):
        raise UnsupportedLayerError(f"'{path}' has the padding {padding!r}: give numbers")
    shift = None if bias is None else bias.tensor
    op = Conv2d(weight.tensor, shift, pair(stride), pair(padding), pair(dilation), groups, x.shape)
    return build.append(path, op, x)

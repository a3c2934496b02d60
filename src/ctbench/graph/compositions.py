"""What is made of several ops: broadcasts, products of matrices, quotients, softmax, normalisation, attention.

Each function appends nodes to a graph under construction, and returns the value that they compute. Axes are those of a
sample, without the batch.

    softmax       1 / sum_j exp(x_j - x_i), whose differences are exact (Bonaert et al. 2021, "Fast and precise
                  certification of transformers", section 5.4): no entry is bounded by more than 1
    normalised    d_i / sqrt(mean(d^2) + eps), d = x - mean(x): known to be at most sqrt(n - 1) for n entries
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ctbench.graph.builder import Builder, Value
from ctbench.graph.ops import (
    Add,
    Affine,
    AlongAxis,
    CappedExp,
    Exp,
    Given,
    Known,
    Linear,
    Log,
    Mean,
    MeanOfRows,
    Normalised,
    Power,
    Product,
    Scale,
    Shape,
    Shift,
)
from ctbench.graph.ops.along import Weights, centred, differences, total
from ctbench.graph.ops.base import UnsupportedLayerError
from ctbench.graph.ops.curves import CAP
from ctbench.graph.signs import has_no_negative

# ------------------------------------------------------------------------------------------------------- shapes


def expanded(build: Builder, path: str, x: Value, shape: Shape) -> Value:
    """A value with its axes of size 1 repeated, and with further axes before its own ones."""
    if x.shape == shape:
        return x
    more = (1,) * (len(shape) - len(x.shape))
    return build.move(path, lambda t: t.reshape(len(t), *more, *x.shape).expand(len(t), *shape), x, copies=True)


def broadcast(build: Builder, path: str, *values: Value) -> list[Value]:
    """Values of one shape: axes of size 1 are repeated, like in torch."""
    if len({len(value.shape) for value in values}) != 1:
        shapes = " and ".join(str(value.shape) for value in values)
        raise UnsupportedLayerError(
            f"'{path}' joins values of shapes {shapes}, so it would broadcast samples across the batch: give both the "
            f"same number of axes, with unsqueeze"
        )
    try:
        shape = tuple(torch.broadcast_shapes(*(value.shape for value in values)))
    except RuntimeError:
        raise ValueError(f"'{path}' joins values of shapes {' and '.join(str(v.shape) for v in values)}") from None
    return [expanded(build, path, value, shape) for value in values]


def reshaped(build: Builder, path: str, x: Value, shape: Shape) -> Value:
    return x if x.shape == shape else build.move(path, lambda t: t.reshape(len(t), *shape), x)


def squeezed(build: Builder, path: str, x: Value, dim: int) -> Value:
    return build.move(path, lambda t: t.squeeze(dim + 1), x)


def unsqueezed(build: Builder, path: str, x: Value, dim: int) -> Value:
    return build.move(path, lambda t: t.unsqueeze(dim + 1), x)


def swapped(build: Builder, path: str, x: Value, first: int, second: int) -> Value:
    """The value with two of its axes exchanged, which may be counted from the end."""
    rank = len(x.shape)
    return build.move(path, lambda t: t.transpose(first % rank + 1, second % rank + 1), x)


def taken(build: Builder, path: str, x: Value, dim: int, entries: slice | int) -> Value:
    """Some entries along an axis."""
    return build.move(path, lambda t: t[(slice(None),) * (dim + 1) + (entries,)], x)


def given(build: Builder, path: str, value: Tensor, like: Value) -> Value:
    """A constant [*shape] as a value, which depends on no input; `like` is any value."""
    node = build.append(path, Given(torch.atleast_1d(value), build.nodes[like.index].shape), like)
    return reshaped(build, path, node, tuple(value.shape))


# -------------------------------------------------------------------------------------- constants and sums


def scaled(build: Builder, path: str, x: Value, factor: float) -> Value:
    """factor x; the factor may be rounded."""
    weight = build.number(factor).view((1,) * max(1, len(x.shape)))
    zeros = torch.zeros_like(weight)
    return build.append(path, Scale(weight, zeros, zeros), x)


def shifted(build: Builder, path: str, x: Value, offset: float) -> Value:
    return build.append(path, Shift(build.number(offset).view((1,) * max(1, len(x.shape)))), x)


def along(build: Builder, path: str, x: Value, weights: Weights, dim: int) -> Value:
    """A map along an axis."""
    return build.append(path, AlongAxis.of(weights, x.shape[dim], dim), x)


def summed(build: Builder, path: str, x: Value, dim: int) -> Value:
    """The sum over an axis, which is removed."""
    return squeezed(build, path, along(build, path, x, total(x.shape[dim]), dim), dim)


# ------------------------------------------------------------------------------------------ powers and products


def power(build: Builder, path: str, x: Value, exponent: float) -> Value:
    if exponent == 0:
        return given(build, path, torch.ones(x.shape, dtype=build.like.dtype, device=build.like.device), x)
    if exponent == 1:
        return x
    op = Power(float(exponent))
    if not op.whole and not isinstance(build.nodes[x.index].op, Known) and has_no_negative(build, x):
        x = build.append(path, Known(0.0, math.inf), x)
    return build.append(path, op, x)


def product(build: Builder, path: str, first: Value, second: Value) -> Value:
    """The product of two values whose shapes broadcast; of a value with itself, its square."""
    if first.index == second.index and first.shape == second.shape:
        return power(build, path, first, 2.0)
    return build.append(path, Product(), *broadcast(build, path, first, second))


def quotient(build: Builder, path: str, first: Value, second: Value) -> Value:
    return product(build, path, first, power(build, path, second, -1.0))


def matmul(build: Builder, path: str, first: Value, second: Value) -> Value:
    """x y, for values x [..., m, k] and y [..., k, n] with axes before them that broadcast."""
    if min(len(first.shape), len(second.shape)) < 2 or len(first.shape) != len(second.shape):
        raise UnsupportedLayerError(
            f"'{path}' is a product of values of shapes {first.shape} and {second.shape}: give matrices with the same "
            f"number of axes besides the batch, [..., m, k] and [..., k, n]"
        )
    if first.shape[-1] != second.shape[-2]:
        raise ValueError(f"'{path}' is a product of matrices of shapes {first.shape} and {second.shape}")
    rank = len(first.shape)
    rows = unsqueezed(build, path, first, rank - 1)  # [..., m, 1, k]
    columns = unsqueezed(build, path, swapped(build, path, second, -1, -2), rank - 2)  # [..., 1, n, k]
    result = summed(build, path, product(build, path, rows, columns), rank)
    if build.is_weights_of_means(first):
        return build.append(path, MeanOfRows(), result, first, second)
    return result


def times_matrix(build: Builder, path: str, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    """W x + b along the last axis, for constants W [out, in] and b."""
    return build.append(path, Linear(weight, bias), x)


# ------------------------------------------------------------------------------------------------------- softmax


def softmax(build: Builder, path: str, x: Value, dim: int, keep: Tensor | None = None) -> Value:
    """The softmax along an axis; entries where `keep`, which broadcasts to x, is false are left out, and give 0."""
    sums = _sums_of_exponentials(build, path, x, dim, keep)
    result = power(build, path, sums, -1.0)
    result = result if keep is None else masked(build, path, result, keep)
    if dim == len(x.shape) - 1 and (keep is None or bool(keep.any(-1).all())):
        build.weights_of_means.add(result.index)
    return result


def log_softmax(build: Builder, path: str, x: Value, dim: int) -> Value:
    """(x_i - x_0) - log sum_j exp(x_j - x_0): the second term is the same for all entries, and cancels in margins."""
    size = x.shape[dim]
    moved = along(build, path, x, differences(size)[:size], dim)
    sums = along(build, path, build.append(path, Exp(), moved), total(size), dim)
    shift = scaled(build, path, build.append(path, Log(), sums), -1.0)
    return added(build, path, moved, expanded(build, path, shift, x.shape))


def _sums_of_exponentials(build: Builder, path: str, x: Value, dim: int, keep: Tensor | None) -> Value:
    """sum_j exp(x_j - x_i), in the shape of x."""
    size = x.shape[dim]
    pairs = build.append(path, CappedExp(CAP), along(build, path, x, differences(size), dim))
    shape = (*x.shape[:dim], size, size, *x.shape[dim + 1 :])
    terms = reshaped(build, path, pairs, shape)
    if keep is not None:  # the term of x_i itself stays: where it is left out, the result is replaced by 0
        own = torch.eye(size, dtype=torch.bool, device=keep.device).view(size, size, *[1] * (len(x.shape) - dim - 1))
        terms = masked(build, path, terms, keep.expand(x.shape).unsqueeze(dim) | own)
    return build.append(path, Known(1.0, math.inf), summed(build, path, terms, dim + 1))


def masked(build: Builder, path: str, x: Value, keep: Tensor) -> Value:
    """The value with 0 in the entries that are not kept."""
    weight = keep.expand(x.shape).to(build.like)
    return build.append(path, Scale(weight, torch.zeros_like(weight)), x)


def added(build: Builder, path: str, first: Value, second: Value) -> Value:
    return build.append(path, Add(), *broadcast(build, path, first, second))


# -------------------------------------------------------------------------------------------------- normalisation


def mean(build: Builder, path: str, x: Value, dims: Sequence[int]) -> Value:
    """The mean over some axes, which are kept with size 1."""
    return build.append(path, Mean(tuple(dims), x.shape), x)


def variance(build: Builder, path: str, x: Value, dims: Sequence[int], correction: float = 0.0) -> Value:
    """sum (x - mean)^2 / (n - correction) over some axes, which are kept with size 1."""
    dims = sorted(dims)
    count = math.prod(x.shape[dim] for dim in dims)
    if count <= correction:
        raise ValueError(f"'{path}' is a variance of {count} entries with correction {correction:g}")
    rest = [dim for dim in range(len(x.shape)) if dim not in dims]
    order = [0, *(dim + 1 for dim in (*rest, *dims))]
    shape = tuple(x.shape[dim] for dim in rest)
    flat = build.move(path, lambda t: t.permute(order).reshape(len(t), *shape, count), x)
    last = len(shape)
    squares = power(build, path, along(build, path, flat, centred(count), last), 2.0)
    result = mean(build, path, squares, [last])
    result = scaled(build, path, result, count / (count - correction)) if correction else result
    kept = tuple(1 if dim in dims else size for dim, size in enumerate(x.shape))
    return reshaped(build, path, build.append(path, Known(0.0, math.inf), result), kept)


def normalised(build: Builder, path: str, x: Value, eps: float, *, center: bool = True) -> Value:
    """The last axis of a value, divided by its root mean square, and before that centred."""
    size, last = x.shape[-1], len(x.shape) - 1
    moved = along(build, path, x, centred(size), last) if center else x
    squares = shifted(build, path, mean(build, path, power(build, path, moved, 2.0), [last]), eps)
    factor = power(build, path, build.append(path, Known(eps, math.inf), squares), -0.5)
    most = math.sqrt(size - 1 if center else size) * (1 + 2.0**-50)
    result = build.append(path, Known(-most, most), product(build, path, moved, factor))
    return build.append(path, Normalised(eps), result, moved)


def rescaled(build: Builder, path: str, x: Value, weight: Tensor | None, bias: Tensor | None) -> Value:
    """weight x + bias, for constants that broadcast to the value, or None."""
    op: Affine
    if weight is not None:
        op = Scale(weight, torch.zeros_like(weight) if bias is None else bias)
    elif bias is not None:
        op = Shift(bias)
    else:
        return x
    return build.append(path, op, x)


# ----------------------------------------------------------------------------------------------------- attention


def attention(
    build: Builder, path: str, query: Value, key: Value, value: Value, scale: float, keep: Tensor | None = None
) -> tuple[Value, Value]:
    """softmax(scale query key^T) value, and the softmax; queries [..., m, d], keys [..., n, d], values [..., n, e].

    `keep`, which broadcasts to [..., m, n], is false for keys that a query does not see.
    """
    scores = matmul(build, path, scaled(build, path, query, scale), swapped(build, path, key, -1, -2))
    weights = softmax(build, path, scores, len(scores.shape) - 1, keep)
    return matmul(build, path, weights, value), weights


def heads(build: Builder, path: str, x: Value, count: int) -> Value:
    """[n, count d] to [count, n, d]."""
    rows, features = x.shape
    return build.move(path, lambda t: t.reshape(len(t), rows, count, features // count).transpose(1, 2), x)


def merged_heads(build: Builder, path: str, x: Value) -> Value:
    """[count, n, d] to [n, count d]."""
    count, rows, size = x.shape
    return build.move(path, lambda t: t.transpose(1, 2).reshape(len(t), rows, count * size), x)

"""Readings of products and norms along axes, and of normalisations by them.

prod         of the first half of the entries with the second half, and so on: log2(n) products of two values
norm         |x|_1 = sum |x_i|,  |x|_inf = max |x_i|,  otherwise |x|_p = (sum |x_i|^p)^(1/p)
logsumexp    log sum exp(x_i)
local response norm    x_c (k + alpha mean(x_j^2))^-beta, the mean over channels j around c
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F

from ctbench.graph import compositions as compose
from ctbench.graph.builder import Builder, Constant, Value
from ctbench.graph.functions import READINGS, dims_of_sample, reads
from ctbench.graph.ops import Abs, Clamp, Concat, Exp, Known, Log, UnsupportedLayerError
from ctbench.graph.ops.along import total

# ----------------------------------------------------------------------------------------------- the compositions


def multiplied(build: Builder, path: str, x: Value, dim: int) -> Value:
    """The product along an axis, which is kept with size 1."""
    while (size := x.shape[dim]) > 1:
        half = size // 2
        sides = (compose.taken(build, path, x, dim, slice(start, start + half)) for start in (0, half))
        paired = compose.product(build, path, *sides)
        if size % 2:
            rest = compose.taken(build, path, x, dim, slice(size - 1, size))
            paired = build.append(path, Concat(dim, (half, 1)), paired, rest)
        x = paired
    return x


def totalled(build: Builder, path: str, x: Value, dims: Sequence[int]) -> Value:
    """The sum over some axes, which are kept with size 1."""
    for dim in dims:
        x = compose.along(build, path, x, total(x.shape[dim]), dim)
    return x


def norm(build: Builder, path: str, x: Value, dims: Sequence[int], p: float) -> Value:
    """The norm over some axes, which are kept with size 1."""
    if not p > 0:
        raise UnsupportedLayerError(f"'{path}' is a norm with p={p:g}: only p > 0 and p=inf are supported")
    if p == math.inf:
        axes = [dim + 1 for dim in dims]
        result: Value = READINGS[torch.amax](build, path, build.append(path, Abs(), x), axes, True)
        return result
    even = p % 2 == 0
    powers = compose.power(build, path, x if even else build.append(path, Abs(), x), p)
    # rounding outward would make the least value negative, where no root is defined
    sums = build.append(path, Known(0.0, math.inf), totalled(build, path, powers, dims))
    return compose.power(build, path, sums, 1 / p)


def unit_vectors(build: Builder, path: str, x: Value, dim: int, eps: float, p: float = 2.0) -> Value:
    """x / max(|x|_p, eps), with the norm along an axis: its entries lie in [-1, 1]."""
    length = build.append(path, Clamp(eps, math.inf), norm(build, path, x, [dim], p))
    most = 1 + 2.0**-50
    return build.append(path, Known(-most, most), compose.quotient(build, path, x, length))


def log_sum_exp(build: Builder, path: str, x: Value, dims: Sequence[int]) -> Value:
    """log sum exp(x) over some axes, which are kept with size 1."""
    sums = totalled(build, path, build.append(path, Exp(), x), dims)
    return build.append(path, Log(), sums)


def _squeezed(build: Builder, path: str, x: Value, dims: Sequence[int], keepdim: bool) -> Value:
    return x if keepdim else build.move(path, lambda t: t.squeeze([dim + 1 for dim in dims]), x)


# --------------------------------------------------------------------------------------------------- the readings


@reads(torch.prod, "prod")
def _prod(build: Builder, path: str, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    dims = dims_of_sample(path, dim, x.shape)
    return _squeezed(build, path, multiplied(build, path, x, dims[0]), dims, keepdim)


@reads(torch.logsumexp, "logsumexp")
def _logsumexp(build: Builder, path: str, x: Value, dim: Any, keepdim: bool = False) -> Value:
    dims = dims_of_sample(path, dim, x.shape)
    return _squeezed(build, path, log_sum_exp(build, path, x, dims), dims, keepdim)


@reads(torch.linalg.vector_norm)
def _vector_norm(build: Builder, path: str, x: Value, ord: float = 2, dim: Any = None, keepdim: bool = False) -> Value:  # noqa: A002 - torch's name
    dims = dims_of_sample(path, dim, x.shape)
    return _squeezed(build, path, norm(build, path, x, dims, float(ord)), dims, keepdim)


@reads(torch.norm, "norm")
def _norm(
    build: Builder,
    path: str,
    x: Value,
    p: Any = "fro",
    dim: Any = None,
    keepdim: bool = False,
    out: None = None,
    dtype: None = None,
) -> Value:
    if isinstance(p, str) and p != "fro":
        raise UnsupportedLayerError(f"'{path}' is a norm with p={p!r}: give a number, or 'fro'")
    return _vector_norm(build, path, x, 2.0 if p in ("fro", None) else p, dim, keepdim)


@reads(torch.linalg.norm)
def _linalg_norm(build: Builder, path: str, x: Value, ord: Any = None, dim: Any = None, keepdim: bool = False) -> Value:  # noqa: A002 - torch's name
    matrices = isinstance(dim, tuple | list) and len(dim) > 1
    if matrices and ord not in (None, "fro"):
        raise UnsupportedLayerError(
            f"'{path}' is the norm {ord!r} of matrices: use torch.linalg.vector_norm for a norm of their entries"
        )
    return _norm(build, path, x, "fro" if ord is None else ord, dim, keepdim)


@reads(F.normalize)
def _normalize(
    build: Builder, path: str, x: Value, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> Value:
    (place,) = dims_of_sample(path, dim, x.shape)
    return unit_vectors(build, path, x, place, eps, p)


@reads(F.cosine_similarity, torch.cosine_similarity)
def _cosine(build: Builder, path: str, first: Any, second: Any, dim: int = 1, eps: float = 1e-8) -> Value:
    like = first if isinstance(first, Value) else second
    sides = [side if isinstance(side, Value) else _beside(build, path, side, like) for side in (first, second)]
    (place,) = dims_of_sample(path, dim, sides[0].shape)
    units = [unit_vectors(build, path, side, place, eps) for side in sides]
    return compose.summed(build, path, compose.product(build, path, *units), place)


def _beside(build: Builder, path: str, constant: Constant, like: Value) -> Value:
    """A constant as a value with as many axes as another value."""
    tensor, rank = constant.tensor.to(build.like), len(like.shape)
    if tensor.dim() == rank + 1 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.dim() > rank:
        raise UnsupportedLayerError(
            f"'{path}' compares values of shape {like.shape} with {constant.name} of shape {list(tensor.shape)}: give "
            f"a constant that broadcasts to the values, without the batch or with a batch of 1"
        )
    return compose.given(build, path, tensor.view((1,) * (rank - tensor.dim()) + tuple(tensor.shape)), like)


@reads(F.pairwise_distance, torch.pairwise_distance)
def _distance(
    build: Builder, path: str, first: Any, second: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Value:
    """|first - second + eps|_p along the last axis."""
    moved = compose.shifted(build, path, READINGS[torch.sub](build, path, first, second), eps)
    return _vector_norm(build, path, moved, p, -1, keepdim)


@reads(F.local_response_norm)
def _local_response_norm(
    build: Builder, path: str, x: Value, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Value:
    channels = x.shape[0]
    around = [range(max(c - size // 2, 0), min(c + (size + 1) // 2, channels)) for c in range(channels)]
    means = [dict.fromkeys(places, Fraction(1, size)) for places in around]  # channels beyond the ends count as 0
    squares = compose.along(build, path, compose.power(build, path, x, 2.0), means, 0)
    sums = compose.shifted(build, path, compose.scaled(build, path, squares, alpha), k)
    sums = build.append(path, Known(k, math.inf), sums) if alpha >= 0 else sums
    return compose.product(build, path, x, compose.power(build, path, sums, -beta))

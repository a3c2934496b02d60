"""Readings of torch functions that are curves, products, quotients, norms, softmax and attention.

    @reads(torch.exp, "exp")
    def _(build, path, x): ...

They are like the readings in `functions`, and stand in the same table.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph import compositions as compose
from ctbench.graph import masks
from ctbench.graph.arithmetic import told_apart
from ctbench.graph.builder import Builder, Constant, Masked, Value
from ctbench.graph.functions import as_layer, described, dims_of_sample, moved, reads
from ctbench.graph.ops import (
    Atan,
    Concat,
    Cos,
    Elementwise,
    Erf,
    Exp,
    Floor,
    Log,
    PReLU,
    Scale,
    Shape,
    Sign,
    Sin,
    Tan,
    UnsupportedLayerError,
)
from ctbench.graph.ops.along import cumulative

# ---------------------------------------------------------------------------------------- functions of one variable

_CURVES: dict[Elementwise, tuple[Any, ...]] = {
    Exp(): (torch.exp, "exp"),
    Log(): (torch.log, "log"),
    Sin(): (torch.sin, "sin"),
    Cos(): (torch.cos, "cos"),
    Tan(): (torch.tan, "tan"),
    Atan(): (torch.atan, torch.arctan, "atan", "arctan"),
    Erf(): (torch.erf, torch.special.erf, "erf"),
    Sign(): (torch.sign, torch.sgn, "sign", "sgn"),
    Floor(): (torch.floor, "floor"),
}
_POWERS: dict[float, tuple[Any, ...]] = {
    2.0: (torch.square, "square"),
    0.5: (torch.sqrt, "sqrt"),
    -0.5: (torch.rsqrt, "rsqrt"),
    -1.0: (torch.reciprocal, "reciprocal"),
}
_LAYERS: dict[Callable[..., nn.Module], tuple[Any, ...]] = {
    nn.ELU: (F.elu,),
    nn.SELU: (F.selu, torch.selu),
    nn.CELU: (F.celu, torch.celu),
    nn.Softplus: (F.softplus,),
    nn.Mish: (F.mish,),
    nn.Hardswish: (F.hardswish,),
    nn.Hardsigmoid: (F.hardsigmoid,),
    nn.Softsign: (F.softsign,),
    nn.LogSigmoid: (F.logsigmoid,),
    nn.Softshrink: (F.softshrink,),
}


def _as_curve(op: Elementwise) -> Any:
    return lambda build, path, x: build.append(path, op, x)


def _as_power(exponent: float) -> Any:
    return lambda build, path, x: compose.power(build, path, x, exponent)


for _op, _targets in _CURVES.items():
    reads(*_targets)(_as_curve(_op))
for _exponent, _targets in _POWERS.items():
    reads(*_targets)(_as_power(_exponent))
for _layer, _targets in _LAYERS.items():
    reads(*_targets)(as_layer(_layer))


@reads(torch.pow, operator.pow, "pow")
def _pow(build: Builder, path: str, x: Any, exponent: Any) -> Value:
    if isinstance(exponent, Constant) and exponent.tensor.numel() == 1 and not exponent.tensor.requires_grad:
        exponent = exponent.tensor.item()
    if isinstance(x, Value) and isinstance(exponent, int | float):
        return compose.power(build, path, x, exponent)
    if isinstance(x, Value) and isinstance(exponent, Constant) and not exponent.tensor.requires_grad:
        value, exponents, _ = told_apart(build, path, x, exponent)
        return _powers(build, path, value, exponents.expand(value.shape or (1,)))
    if isinstance(exponent, Value) and isinstance(x, Constant | int | float):
        return _exponential(build, path, x, exponent)
    raise UnsupportedLayerError(
        f"'{path}' is a power of {described(x)} with the exponent {described(exponent)}: one of them must be a number "
        f"or a tensor without gradient; write torch.exp(y * torch.log(x)) for x ** y with x > 0"
    )


def _powers(build: Builder, path: str, x: Value, exponents: Tensor) -> Value:
    """Powers with an exponent for each entry, [*shape]: the entries of one exponent at a time, put back in order."""
    flat, numbers = compose.reshaped(build, path, x, (exponents.numel(),)), exponents.flatten().tolist()
    order, parts = list[int](), list[Value]()
    for number in sorted(set(numbers)):
        places = [place for place, each in enumerate(numbers) if each == number]
        entries = build.move(path, lambda t, places=places: t[:, places], flat, copies=True)  # type: ignore[misc]
        parts.append(compose.power(build, path, entries, number))
        order += places
    joined = build.append(path, Concat(0, tuple(part.shape[0] for part in parts)), *parts)
    back = sorted(range(len(order)), key=order.__getitem__)
    return compose.reshaped(build, path, build.move(path, lambda t: t[:, back], joined, copies=True), x.shape)


def _exponential(build: Builder, path: str, base: Constant | float, x: Value) -> Value:
    """b^x = exp(x log b), for constants b > 0."""
    value, constant, name = told_apart(build, path, base, x)
    if not bool((constant > 0).all()):
        raise UnsupportedLayerError(
            f"'{path}' is a power of {name}: give positive numbers; of a parameter b, which may become negative, store "
            f"the logarithm, and write torch.exp(x * log_b)"
        )
    factor = build.following(constant).double().log().to(constant.dtype)
    zeros = torch.zeros_like(factor)  # the factor is rounded
    return build.append(path, Exp(), build.append(path, Scale(factor, zeros, zeros), value))


@reads(torch.ceil, "ceil")
def _ceil(build: Builder, path: str, x: Value) -> Value:
    """-floor(-x)."""
    turned = build.append(path, Floor(), compose.scaled(build, path, x, -1.0))
    return compose.scaled(build, path, turned, -1.0)


@reads(torch.log1p, "log1p")
def _log1p(build: Builder, path: str, x: Value) -> Value:
    return build.append(path, Log(), compose.shifted(build, path, x, 1.0))


@reads(torch.expm1, "expm1")
def _expm1(build: Builder, path: str, x: Value) -> Value:
    return compose.shifted(build, path, build.append(path, Exp(), x), -1.0)


@reads(F.prelu, torch.prelu)
def _prelu(build: Builder, path: str, x: Value, weight: Constant) -> Value:
    if weight.tensor.numel() not in (1, x.shape[0]):
        raise ValueError(f"'{path}' has {weight.tensor.numel()} slopes for values of shape {x.shape}")
    return build.append(path, PReLU(weight.tensor.view(-1, *[1] * (len(x.shape) - 1))), x)


# ---------------------------------------------------------------------------------- sums, products, norms, variances


@reads(torch.cumsum, "cumsum")
def _cumsum(build: Builder, path: str, x: Value, dim: int) -> Value:
    (place,) = dims_of_sample(path, dim, x.shape)
    return compose.along(build, path, x, cumulative(x.shape[place]), place)


def _squeezed(build: Builder, path: str, x: Value, dims: Sequence[int], keepdim: bool) -> Value:
    return x if keepdim else build.move(path, lambda t: t.squeeze([dim + 1 for dim in dims]), x)


@reads(torch.var, "var")
def _var(
    build: Builder,
    path: str,
    x: Value,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Value:
    dims = dims_of_sample(path, dim, x.shape)
    result = compose.variance(build, path, x, dims, float(unbiased) if correction is None else correction)
    return _squeezed(build, path, result, dims, keepdim)


@reads(torch.std, "std")
def _std(build: Builder, path: str, *args: Any, **kwargs: Any) -> Value:
    return compose.power(build, path, _var(build, path, *args, **kwargs), 0.5)


@reads(F.glu)
def _glu(build: Builder, path: str, x: Value, dim: int = -1) -> Value:
    (place,) = dims_of_sample(path, dim, x.shape)
    half = x.shape[place] // 2
    first = compose.taken(build, path, x, place, slice(0, half))
    gate = compose.taken(build, path, x, place, slice(half, None))
    return compose.product(build, path, first, build.layer(path, nn.Sigmoid(), gate))


@reads(torch.einsum)
def _einsum(build: Builder, path: str, equation: str, *operands: Any) -> Value:
    """Products of two operands, entry by entry, and sums over the letters that the result does not have."""
    sides, _, result = equation.replace(" ", "").partition("->")
    letters = sides.split(",")
    repeated = any(len(set(names)) < len(names) for names in letters)
    if len(letters) != 2 or len(operands) != 2 or not result or "." in equation or repeated:
        raise UnsupportedLayerError(
            f"'{path}' is einsum({equation!r}): give two operands and the result, as in 'bij,bjk->bik'"
        )
    batch = result[0]
    summed = sorted(set("".join(letters)) - set(result))
    order = [*result[1:], *summed]
    sizes = dict[str, int]()
    for names, operand in zip(letters, operands, strict=True):
        if isinstance(operand, Value):
            if names[0] != batch:
                raise UnsupportedLayerError(
                    f"'{path}' is einsum({equation!r}): the first letter of each value must be that of the batch"
                )
            sizes |= dict(zip(names[1:], operand.shape, strict=True))
        else:
            sizes |= dict(zip(names, operand.tensor.shape, strict=True))

    def aligned(names: str, begin: int, tensor: Tensor) -> Tensor:
        """The tensor with an axis for each letter, after `begin` axes for the batch."""
        present = [name for name in order if name in names]
        tensor = tensor.permute(*range(begin), *(names.index(name) + begin for name in present))
        return tensor.reshape(*tensor.shape[:begin], *(sizes[name] if name in names else 1 for name in order))

    parts = [
        build.move(path, partial(aligned, names[1:], 1), operand)
        if isinstance(operand, Value)
        else moved(build, operand, partial(aligned, names, 0))
        for names, operand in zip(letters, operands, strict=True)
    ]
    if all(isinstance(part, Value) for part in parts):
        total = compose.product(build, path, *parts)
    else:
        value, constant, _ = told_apart(build, path, *parts)
        total = build.append(path, Scale(constant, torch.zeros_like(constant)), value)
    for _ in summed:
        total = compose.summed(build, path, total, len(total.shape) - 1)
    return total


# ------------------------------------------------------------------------- softmax, normalisation and attention


@reads(torch.softmax, F.softmax, "softmax")
def _softmax(
    build: Builder, path: str, x: Value | Masked, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Value:
    if isinstance(x, Masked):
        place = _one_dim(path, dim, x.value.shape)
        masks.check_rows(path, x.keep, place)
        return compose.softmax(build, path, x.value, place, x.keep)
    place = _one_dim(path, dim, x.shape)
    result = compose.softmax(build, path, x, place)
    build.softmaxes[result.index] = (x, place)
    return result


@reads(F.softmin)
def _softmin(build: Builder, path: str, x: Value, dim: int | None = None, *options: Any, **named: Any) -> Value:
    return _softmax(build, path, compose.scaled(build, path, x, -1.0), dim, *options, **named)


@reads(torch.log_softmax, F.log_softmax, "log_softmax")
def _log_softmax(
    build: Builder, path: str, x: Value, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Value:
    place = _one_dim(path, dim, x.shape)
    result = compose.log_softmax(build, path, x, place)
    build.softmaxes[result.index] = (x, place)
    return result


def _one_dim(path: str, dim: int | None, shape: Shape) -> int:
    if dim is None:
        raise UnsupportedLayerError(f"'{path}' has no dim: name the dimension of the softmax")
    (place,) = dims_of_sample(path, dim, shape)
    return place


def _constant(tensor: Any) -> Tensor | None:
    return tensor.tensor if isinstance(tensor, Constant) else tensor


@reads(F.layer_norm)
def _layer_norm(
    build: Builder, path: str, x: Value, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Value:
    return layer_norm(build, path, x, tuple(normalized_shape), _constant(weight), _constant(bias), eps)


def layer_norm(
    build: Builder,
    path: str,
    x: Value,
    shape: Shape,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    center: bool = True,
) -> Value:
    """Layer norm or, without `center`, RMS norm over the last axes, which have this shape."""
    first = len(x.shape) - len(shape)
    if first < 0 or x.shape[first:] != shape:
        raise ValueError(f"'{path}' normalises values of shape {shape}, but they have shape {x.shape}")
    flat = compose.reshaped(build, path, x, (*x.shape[:first], math.prod(shape)))
    result = compose.normalised(build, path, flat, eps, center=center)
    return compose.rescaled(build, path, compose.reshaped(build, path, result, x.shape), weight, bias)


@reads(F.group_norm)
def _group_norm(
    build: Builder, path: str, x: Value, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Value:
    return group_norm(build, path, x, num_groups, _constant(weight), _constant(bias), eps)


def group_norm(
    build: Builder, path: str, x: Value, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Value:
    """Each group of channels, over all its entries; instance norm has one channel in each group."""
    if x.shape[0] % groups:
        raise ValueError(f"'{path}' splits {x.shape[0]} channels into {groups} groups")
    flat = compose.reshaped(build, path, x, (groups, math.prod(x.shape) // groups))
    result = compose.reshaped(build, path, compose.normalised(build, path, flat, eps), x.shape)
    sides = [1] * (len(x.shape) - 1)
    weight, bias = (None if each is None else each.view(-1, *sides) for each in (weight, bias))
    return compose.rescaled(build, path, result, weight, bias)


@reads(F.instance_norm)
def _instance_norm(
    build: Builder,
    path: str,
    x: Value,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    if not use_input_stats:
        raise UnsupportedLayerError(
            f"'{path}' normalises by running statistics: use a layer such as nn.BatchNorm2d, with these statistics"
        )
    return group_norm(build, path, x, x.shape[0], _constant(weight), _constant(bias), eps)


if hasattr(F, "rms_norm"):

    @reads(F.rms_norm)
    def _rms_norm(
        build: Builder, path: str, x: Value, normalized_shape: Any, weight: Any = None, eps: float | None = None
    ) -> Value:
        return rms_norm(build, path, x, tuple(normalized_shape), _constant(weight), eps)


def rms_norm(build: Builder, path: str, x: Value, shape: Shape, weight: Tensor | None, eps: float | None) -> Value:
    if eps is None:
        raise UnsupportedLayerError(
            f"'{path}' is an RMS norm whose eps depends on the precision: give a number, e.g. "
            f"eps=torch.finfo(torch.float32).eps"
        )
    return layer_norm(build, path, x, shape, weight, None, eps, center=False)


@reads(F.scaled_dot_product_attention)
def _attention(
    build: Builder,
    path: str,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Value:
    if dropout_p:
        raise UnsupportedLayerError(f"'{path}' has dropout, which is random: give dropout_p=0.0 in eval mode")
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    seen = mask(path, attn_mask, is_causal, query.shape[-2], key.shape[-2], build.like)
    return compose.attention(build, path, query, key, value, scale, seen)[0]


def mask(path: str, given: Any, causal: bool, rows: int, columns: int, like: Tensor) -> Tensor | None:
    """The keys that each query sees, from torch's mask; None for all."""
    if causal:
        return torch.ones(rows, columns, dtype=torch.bool, device=like.device).tril()
    if given is None:
        return None
    tensor = _constant(given)
    if not isinstance(tensor, Tensor):
        raise UnsupportedLayerError(f"'{path}' has a mask that depends on the input: give a constant mask")
    if tensor.is_floating_point():
        if not bool(((tensor == 0) | (tensor == -math.inf)).all()):
            raise UnsupportedLayerError(
                f"'{path}' adds numbers to its scores: give 0 and -inf, or write it as "
                f"torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(d) + mask, -1) @ v"
            )
        tensor = tensor == 0
    return tensor[0] if tensor.dim() > 3 and len(tensor) == 1 else tensor

"""Readings of torch functions and methods: as the equivalent layer, as moves of entries, as sums and scales.

    @reads(torch.add, operator.add, "add")
    def _(build, path, first, second): ...

A reading appends the nodes of the function to the graph and returns its value. Methods are registered by name.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph import compositions
from ctbench.graph.builder import REMEDY, BatchSize, Builder, Constant, Turned, Value, located
from ctbench.graph.ops import (
    Absolute,
    ClampEach,
    Concat,
    Conv2d,
    Linear,
    Max,
    Mean,
    Scale,
    Shape,
    Shift,
    UnsupportedLayerError,
)
from ctbench.graph.ops.convolutions import pair
from ctbench.graph.ops.moves import broadcasts

Reading = Callable[..., Any]
R = TypeVar("R", bound=Reading)
READINGS: dict[Any, Reading] = {}


def reads(*targets: Any) -> Callable[[R], R]:
    """Register a reading of functions, or of methods by name."""

    def register(reading: R) -> R:
        READINGS.update(dict.fromkeys(targets, reading))
        return reading

    return register


# ---------------------------------------------------------------------------------------- functions as layers


def as_layer(layer: Callable[..., nn.Module]) -> Reading:
    def reading(build: Builder, path: str, x: Value, *args: Any, **kwargs: Any) -> Value:
        try:
            module = layer(*args, **kwargs)
        except ValueError as error:
            raise located(f"'{path}': {error}", error) from None
        return build.layer(path, module, x)

    return reading


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> nn.Module:
    if not min_val < max_val:
        raise ValueError(f"values cannot be clamped to [{min_val:g}, {max_val:g}]: give min < max")
    return nn.Hardtanh(min_val, max_val, inplace)


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:
    if training:
        raise UnsupportedLayerError("a dropout that is always on has no eval mode: give training=self.training")
    return nn.Dropout(p, inplace)


def _max_pool2d(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module:
    # the layer takes its last two arguments in reverse order
    return nn.MaxPool2d(kernel_size, stride, padding, dilation, return_indices, ceil_mode)


_LAYERS: dict[Callable[..., nn.Module], tuple[Any, ...]] = {
    nn.ReLU: (F.relu, torch.relu, "relu"),
    nn.ReLU6: (F.relu6,),
    nn.LeakyReLU: (F.leaky_relu,),
    _hardtanh: (F.hardtanh,),
    nn.Sigmoid: (torch.sigmoid, "sigmoid"),
    nn.Tanh: (torch.tanh, "tanh"),
    nn.GELU: (F.gelu,),
    nn.SiLU: (F.silu,),
    Absolute: (torch.abs, "abs", operator.abs),
    nn.AvgPool2d: (F.avg_pool2d,),
    nn.AdaptiveAvgPool2d: (F.adaptive_avg_pool2d,),
    _max_pool2d: (F.max_pool2d,),
    _dropout: (F.dropout,),
}
for _layer, _targets in _LAYERS.items():
    reads(*_targets)(as_layer(_layer))


# ------------------------------------------------------------------------------ functions as moves of entries


def _as_move(function: Callable[..., Any], *, copies: bool = False) -> Reading:
    def reading(build: Builder, path: str, x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, Constant):
            return _moved(path, x, function(x.tensor, *_sized(args, 1), **_sized(kwargs, 1)))
        if not isinstance(x, Value | Turned):
            return function(x, *args, **kwargs)  # an entry of a plain tuple, such as a shape
        value, axis = (x.value, x.axis) if isinstance(x, Turned) else (x, 0)

        def move(tensor: Tensor) -> Any:
            inner = tensor.movedim(0, axis) if axis else tensor
            return function(inner, *_sized(args, len(tensor)), **_sized(kwargs, len(tensor)))

        if function not in _PARTS:
            return _turned(build, path, move, value, copies)
        count = len(move(torch.zeros(2, *value.shape, device="cpu")))
        picks = (lambda tensor, i=i: move(tensor)[i] for i in range(count))
        return tuple(_turned(build, path, pick, value, copies) for pick in picks)

    return reading


def _turned(build: Builder, path: str, move: Callable[[Tensor], Any], x: Value, copies: bool) -> Value | Turned:
    """The result of a move that may also move the batch: often a permutation, and a selection as the next step."""
    try:
        sizes = [tuple(move(torch.zeros(batch, *x.shape, device="cpu")).shape) for batch in (2, 3)]
    except (RuntimeError, IndexError, TypeError, ValueError):  # `Builder.move` says what is wrong
        return build.move(path, move, x, copies=copies)
    places = [axis for axis, pair in enumerate(zip(*sizes, strict=False)) if pair == (2, 3)]
    if places in ([], [0]) or len(places) > 1:
        return build.move(path, move, x, copies=copies)
    return Turned(build.move(path, lambda t: move(t).movedim(places[0], 0), x, copies=copies), places[0])


def _moved(path: str, constant: Constant, result: Any) -> Any:
    """The result of a move on a constant. For a parameter it must be a view, so that it follows the training."""
    parameter = constant.tensor.requires_grad
    if isinstance(result, tuple):
        if parameter:  # torch does not allow training through several views that one call returns
            raise UnsupportedLayerError(f"'{path}' splits {constant.name}: take slices of it, one by one")
        return tuple(_moved(path, constant, part) for part in result)
    if parameter and result.untyped_storage().data_ptr() != constant.tensor.untyped_storage().data_ptr():
        raise UnsupportedLayerError(
            f"'{path}' copies {constant.name}, but a copy would not follow its training: move the values instead, or "
            f"store the parameter in the shape in which it is used"
        )
    return Constant(result, constant.name)


def _sized(value: Any, batch: int) -> Any:
    """The arguments, with the size of the batch as a number and constants as tensors."""
    if isinstance(value, BatchSize):
        return batch
    if isinstance(value, Constant):
        return value.tensor
    if isinstance(value, tuple | list):
        return type(value)(_sized(item, batch) for item in value)
    return {key: _sized(item, batch) for key, item in value.items()} if isinstance(value, dict) else value


_PARTS = (torch.Tensor.chunk, torch.Tensor.split, torch.Tensor.unbind)
_MOVES = (
    *("flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "swapaxes", "movedim"),
    *("t", "flip", "roll", "narrow", "select", "expand", "repeat", "tile", "contiguous"),
    *("chunk", "split", "unbind"),
)
for _name in _MOVES:
    _targets = (_name, getattr(torch, _name)) if hasattr(torch, _name) else (_name,)
    reads(*_targets)(_as_move(getattr(torch.Tensor, _name)))
reads(operator.getitem)(_as_move(operator.getitem))
for _function in (F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle):
    reads(_function)(_as_move(_function))
reads(F.pad)(_as_move(F.pad, copies=True))
reads(torch.clone, "clone")(_as_move(torch.clone, copies=True))


# ---------------------------------------------------------------------------------------------- sums and scales


def _in_place(reading: Reading) -> Reading:
    """The same reading for the in-place operator: the result takes the memory of the first operand."""

    def writing(build: Builder, path: str, first: Any, second: Any) -> Value:
        if not isinstance(first, Value):
            raise UnsupportedLayerError(f"'{path}' writes into {described(first)}: write a = a + b for a += b")
        return build.written(reading(build, path, first, second), first)

    return writing


@reads(torch.add, operator.add, "add")
def _add(build: Builder, path: str, first: Any, second: Any) -> Value:
    if isinstance(first, Value) and isinstance(second, Value):
        return compositions.added(build, path, first, second)
    value, constant, _ = told_apart(build, path, first, second)
    return build.append(path, Shift(constant), value)


@reads(torch.sub, operator.sub, "sub")
def _sub(build: Builder, path: str, first: Any, second: Any) -> Value:
    if isinstance(second, Value):
        return _add(build, path, first, _negative(build, path, second))
    value, constant, name = told_apart(build, path, first, second)
    return build.append(path, Shift(-_fixed(path, constant, name)), value)


@reads(torch.mul, operator.mul, "mul")
def _mul(build: Builder, path: str, first: Any, second: Any) -> Value:
    if isinstance(first, Value) and isinstance(second, Value):
        return compositions.product(build, path, first, second)
    value, constant, _ = told_apart(build, path, first, second)
    return build.append(path, Scale(constant, torch.zeros_like(constant)), value)


@reads(torch.div, operator.truediv, "div")
def _div(build: Builder, path: str, first: Any, second: Any) -> Value:
    if isinstance(second, Value):
        return _mul(build, path, first, compositions.power(build, path, second, -1.0))
    value, constant, name = told_apart(build, path, first, second)
    factor = 1 / _fixed(path, constant, name)
    if not bool(factor.isfinite().all()):
        raise ValueError(f"'{path}' divides by 0, or by a number so small that its inverse is not finite")
    zeros = torch.zeros_like(factor)
    halves = torch.frexp(factor).mantissa.abs() == 0.5  # a quotient by a power of two is exact
    return build.append(path, Scale(factor, zeros, None if bool(halves.all()) else zeros), value)


@reads(torch.neg, operator.neg, "neg")
def _negative(build: Builder, path: str, x: Value) -> Value:
    return _mul(build, path, x, -1.0)


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
            f"'{path}' joins {described(first)} with {described(second)}: two values can be added and subtracted, "
            f"and a product needs a constant; for anything else {REMEDY}"
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


def described(value: Any) -> str:
    if isinstance(value, Constant):
        return value.name
    if isinstance(value, Turned):
        return f"a value whose batch is dimension {value.axis}: move it back to 0 first"
    return {Value: "a value of the network", BatchSize: "the size of the batch"}.get(type(value), f"{value!r}")


def _fixed(path: str, constant: Tensor, name: str) -> Tensor:
    """A constant without gradient: a value that is computed from a parameter would not follow its training."""
    if constant.requires_grad:
        raise UnsupportedLayerError(
            f"'{path}' subtracts or divides by {name}: add it, or multiply with it, so that training reaches it"
        )
    return constant


# --------------------------------------------------------------------------------------- means, joins, maxima


def dims_of_sample(path: str, dim: int | Sequence[int] | None, shape: Shape) -> tuple[int, ...]:
    """The dimensions of a sample, from the dimensions of a batch."""
    rank = len(shape) + 1
    dims = range(rank) if dim is None else (dim,) if isinstance(dim, int) else dim
    if any(not -rank <= d < rank for d in dims):
        raise ValueError(f"'{path}': there is no dimension {dim} in batches of shape {shape}")
    of_sample = tuple(sorted({d % rank - 1 for d in dims}))
    if not of_sample or -1 in of_sample:
        raise UnsupportedLayerError(f"'{path}' goes over the batch: name the dimensions, starting with 1")
    return of_sample


@reads(torch.mean, "mean")
def _mean(build: Builder, path: str, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    dims = dims_of_sample(path, dim, x.shape)
    value = build.append(path, Mean(dims, x.shape), x)
    return value if keepdim else build.move(path, lambda t: t.squeeze([d + 1 for d in dims]), value)


@reads(torch.sum, "sum")
def _sum(build: Builder, path: str, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    count = math.prod(x.shape[d] for d in dims_of_sample(path, dim, x.shape))
    return _mul(build, path, _mean(build, path, x, dim, keepdim), float(count))


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
        return build.layer(path, _hardtanh(low, high), x) if low < high else _unclampable(path, low, high)
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
    if isinstance(x, Constant) and isinstance(weight, Value) and x.tensor.dim() == 2 and len(weight.shape) > 1:
        turned = compositions.swapped(build, path, weight, -1, -2)
        return compositions.swapped(build, path, build.append(path, Linear(x.tensor, None), turned), -1, -2)
    if not (isinstance(x, Value) and isinstance(weight, Constant) and weight.tensor.dim() in (1, 2)):
        raise UnsupportedLayerError(
            f"'{path}' is the product of {described(x)} and {described(weight)}, which is not supported: give two "
            f"values, or a value and a constant with one or two dimensions"
        )
    if weight.tensor.dim() == 1:
        column = build.append(path, Linear(weight.tensor.unsqueeze(0), None), x)
        return compositions.squeezed(build, path, column, len(x.shape) - 1)
    return build.append(path, Linear(weight.tensor.T, None), x)


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


# ---------------------------------------------------------------------------------------------- plain numbers


@reads("size")
def _size(build: Builder, path: str, x: Any, dim: int | None = None) -> Any:
    sizes = _sizes(x)
    return sizes if dim is None else sizes[dim]


@reads(getattr)
def _getattr(build: Builder, path: str, x: Any, attribute: str) -> Any:
    if attribute == "shape":
        return _sizes(x)
    if attribute == "ndim":
        return len(_sizes(x))
    if attribute in ("T", "mT") and isinstance(x, Constant):
        return _moved(path, x, getattr(x.tensor, attribute))
    raise UnsupportedLayerError(f"'{path}' asks for .{attribute} of {described(x)}, which a graph does not have")


@reads("dim")
def _dim(build: Builder, path: str, x: Any) -> int:
    return len(_sizes(x))


def _sizes(x: Any) -> tuple[Any, ...]:
    if isinstance(x, Constant):
        return tuple(x.tensor.shape)
    if isinstance(x, Turned):
        return (*x.value.shape[: x.axis], BatchSize(), *x.value.shape[x.axis :])
    return (BatchSize(), *x.shape)

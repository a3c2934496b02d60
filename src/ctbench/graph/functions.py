"""Readings of torch functions and methods: as the equivalent layer, as moves of entries, as sums and scales.

    @reads(torch.add, operator.add, "add")
    def _(build, path, first, second): ...

A reading appends the nodes of the function to the graph and returns its value. Methods are registered by name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph.builder import BatchSize, Builder, Constant, Masked, Turned, Value, located
from ctbench.graph.ops import (
    Absolute,
    Shape,
    UnsupportedLayerError,
)

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


def hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> nn.Module:
    if not min_val < max_val:
        raise ValueError(f"values cannot be clamped to [{min_val:g}, {max_val:g}]: give min < max")
    return nn.Hardtanh(min_val, max_val, inplace)


def _upsample(
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> nn.Module:
    if antialias:
        raise UnsupportedLayerError("interpolation with antialias=True is not supported: leave it out")
    module = nn.Upsample(None, None, mode, align_corners, recompute_scale_factor)
    module.size, module.scale_factor = size, scale_factor  # as they are: the layer turns whole factors into floats
    return module


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:
    if training:
        raise UnsupportedLayerError(
            "a dropout that is always on draws random values, and what is random cannot be certified: give "
            "training=self.training"
        )
    return nn.Dropout(p, inplace)


def _max_pool(layer: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def made(
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> nn.Module:
        # the layer takes its last two arguments in reverse order
        return layer(kernel_size, stride, padding, dilation, return_indices, ceil_mode)

    return made


_LAYERS: dict[Callable[..., nn.Module], tuple[Any, ...]] = {
    nn.ReLU: (F.relu, torch.relu, "relu"),
    nn.ReLU6: (F.relu6,),
    nn.LeakyReLU: (F.leaky_relu,),
    hardtanh: (F.hardtanh,),
    nn.Sigmoid: (torch.sigmoid, "sigmoid"),
    nn.Tanh: (torch.tanh, "tanh"),
    nn.GELU: (F.gelu,),
    nn.SiLU: (F.silu,),
    Absolute: (torch.abs, "abs", operator.abs),
    nn.AvgPool1d: (F.avg_pool1d,),
    nn.AvgPool2d: (F.avg_pool2d,),
    nn.AvgPool3d: (F.avg_pool3d,),
    nn.AdaptiveAvgPool1d: (F.adaptive_avg_pool1d,),
    nn.AdaptiveAvgPool2d: (F.adaptive_avg_pool2d,),
    nn.AdaptiveAvgPool3d: (F.adaptive_avg_pool3d,),
    _upsample: (F.interpolate,),
    _max_pool(nn.MaxPool1d): (F.max_pool1d,),
    _max_pool(nn.MaxPool2d): (F.max_pool2d,),
    _max_pool(nn.MaxPool3d): (F.max_pool3d,),
    nn.AdaptiveMaxPool1d: (F.adaptive_max_pool1d,),
    nn.AdaptiveMaxPool2d: (F.adaptive_max_pool2d,),
    nn.AdaptiveMaxPool3d: (F.adaptive_max_pool3d,),
    _dropout: (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d),
}
for _layer, _targets in _LAYERS.items():
    reads(*_targets)(as_layer(_layer))


# ------------------------------------------------------------------------------ functions as moves of entries


def moves(*targets: Any, function: Callable[..., Any], copies: bool = False) -> None:
    """Register a function that only moves entries as the meaning of functions, or of methods by name."""
    MOVES.update(targets)
    reads(*targets)(_as_move(function, copies=copies))


def _as_move(function: Callable[..., Any], *, copies: bool) -> Reading:
    def reading(build: Builder, path: str, x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, Constant):
            return moved(build, x, lambda tensor: function(tensor, *plain(args, 1), **plain(kwargs, 1)))
        if not isinstance(x, Value | Turned):
            return function(x, *args, **kwargs)  # an entry of a plain tuple, such as a shape
        value, axis = (x.value, x.axis) if isinstance(x, Turned) else (x, 0)

        def move(tensor: Tensor) -> Any:
            inner = tensor.movedim(0, axis) if axis else tensor
            return function(inner, *plain(args, len(tensor)), **plain(kwargs, len(tensor)))

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


def moved(build: Builder, constant: Constant, function: Callable[[Tensor], Any]) -> Any:
    """The result of a move on a constant, as constants. Of a parameter it is a view, if torch gives one."""
    result = function(constant.tensor)
    if isinstance(result, tuple):
        # torch does not allow training through several views that one call returns
        parts = function(build.following(constant.tensor).clone()) if constant.tensor.requires_grad else result
        return tuple(Constant(part, constant.name) for part in parts)
    if result.untyped_storage().data_ptr() != constant.tensor.untyped_storage().data_ptr():
        build.following(constant.tensor)
    return Constant(result, constant.name)


def plain(value: Any, batch: int, copies: list[Tensor] | None = None) -> Any:
    """The arguments, with the size of the batch as a number and constants as tensors.

    If there is a list for `copies`, constants are copied, and the copies are added to it.
    """
    if isinstance(value, BatchSize):
        return batch
    if isinstance(value, Constant):
        if copies is None:
            return value.tensor
        copies.append(value.tensor.clone())
        return copies[-1]
    if isinstance(value, tuple | list):
        return type(value)(plain(item, batch, copies) for item in value)
    return {key: plain(item, batch, copies) for key, item in value.items()} if isinstance(value, dict) else value


MOVES = set[Any]()  # functions and methods that only move entries
_PARTS = (torch.Tensor.chunk, torch.Tensor.split, torch.Tensor.unbind)
_MOVES = (
    *("flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "swapaxes", "movedim"),
    *("t", "flip", "roll", "narrow", "select", "expand", "repeat", "tile", "contiguous"),
    *("chunk", "split", "unbind"),
)
for _name in _MOVES:
    _targets = (_name, getattr(torch, _name)) if hasattr(torch, _name) else (_name,)
    moves(*_targets, function=getattr(torch.Tensor, _name))
moves(operator.getitem, function=operator.getitem)
for _function in (F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle):
    moves(_function, function=_function)
moves(F.pad, function=F.pad, copies=True)
moves(torch.broadcast_to, "broadcast_to", function=torch.broadcast_to)
moves(torch.index_select, "index_select", function=torch.Tensor.index_select, copies=True)
moves(torch.clone, "clone", function=torch.clone, copies=True)


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
    if attribute == "mT" and isinstance(x, Value):
        return build.move(path, lambda tensor: tensor.mT, x)
    if attribute in ("T", "mT") and isinstance(x, Constant):
        return moved(build, x, lambda tensor: getattr(tensor, attribute))
    if attribute in ("values", "indices") and isinstance(x, Sequence):
        return getattr(x, attribute)
    raise UnsupportedLayerError(
        f"'{path}' asks for .{attribute} of {described(x)}, which a graph does not have: it has .shape, .ndim, "
        f".dtype, .device and .mT"
    )


@reads("dim")
def _dim(build: Builder, path: str, x: Any) -> int:
    return len(_sizes(x))


def _sizes(x: Any) -> tuple[Any, ...]:
    if isinstance(x, Constant):
        return tuple(x.tensor.shape)
    if isinstance(x, Masked):
        return _sizes(x.value)
    if isinstance(x, Turned):
        return (*x.value.shape[: x.axis], BatchSize(), *x.value.shape[x.axis :])
    return (BatchSize(), *x.shape)


# ------------------------------------------------------------------------------------------ what readings share


def described(value: Any) -> str:
    if isinstance(value, Constant):
        return value.name
    if isinstance(value, Turned):
        return f"a value whose batch is dimension {value.axis}: move it back to 0 first"
    return {
        Value: "a value of the network",
        Masked: "a value with entries of -inf",
        BatchSize: "the size of the batch",
    }.get(type(value), f"{value!r}")


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

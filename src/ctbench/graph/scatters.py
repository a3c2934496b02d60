"""Values into which a forward writes by places: h[:, 0] = v, h[:, 1:3] += v, as torch.export says it without writes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ctbench.graph import compositions as compose
from ctbench.graph.builder import Builder, Constant, Value
from ctbench.graph.functions import READINGS, described, moves, plain, reads
from ctbench.graph.ops import Shape, UnsupportedLayerError


def _shape(path: str, x: Any) -> Shape:
    """The shape of a sample of a value, or of a constant that is the same for all samples."""
    if isinstance(x, Value):
        return x.shape
    if isinstance(x, Constant) and x.tensor.dim() and len(x.tensor) == 1:
        return tuple(x.tensor.shape[1:])
    raise UnsupportedLayerError(
        f"'{path}' writes into or from {described(x)}: give values whose first dimension is the batch"
    )


def _flat(build: Builder, path: str, x: Value | Constant) -> Value | Constant:
    """The entries of a sample in one row."""
    if isinstance(x, Value):
        return compose.reshaped(build, path, x, (math.prod(x.shape),))
    return Constant(x.tensor.reshape(1, -1), x.name)


def _placed(function: Callable[..., Tensor]) -> Callable[..., Value]:
    """A reading of a function that puts the entries of one tensor at places of another one."""

    def reading(build: Builder, path: str, base: Any, source: Any, *args: Any, **kwargs: Any) -> Value:
        shapes = _shape(path, base), _shape(path, source)
        sizes = [math.prod(shape) for shape in shapes]
        joined: Value = READINGS[torch.cat](build, path, [_flat(build, path, each) for each in (base, source)], 1)

        def place(entries: Tensor) -> Tensor:
            count = len(entries)
            parts = (part.reshape(count, *shape) for part, shape in zip(entries.split(sizes, 1), shapes, strict=True))
            return function(*parts, *plain(args, count), **plain(kwargs, count))

        return build.move(path, place, joined, copies=True)

    return reading


def _slice(x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    return x[(slice(None),) * (dim % x.dim()) + (slice(start, end, step),)]


moves("slice", function=_slice)
for _function in (torch.select_scatter, torch.slice_scatter, torch.diagonal_scatter):
    reads(_function, _function.__name__)(_placed(_function))


@reads("copy")
def _copy(build: Builder, path: str, into: Any, source: Any, non_blocking: bool = False) -> Any:
    """A tensor in the shape of another one, into which it is written."""
    shape = _shape(path, into)
    if isinstance(source, Value):
        return compose.expanded(build, path, source, shape)
    tensor = source.tensor if isinstance(source, Constant) else build.number(source)
    return Constant(tensor.expand(1, *shape), described(source))


@reads("fill")
def _fill(build: Builder, path: str, into: Any, value: Any) -> Any:
    return _copy(build, path, into, value)

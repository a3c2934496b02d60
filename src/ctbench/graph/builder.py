"""A graph under construction: appends nodes, and tracks which values share memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ctbench.graph.exactness import is_exact
from ctbench.graph.graph import Graph, Node, converted
from ctbench.graph.ops import BatchNorm, Dropout, Input, Op, Reshape, Shape, UnsupportedLayerError, lower, rearrangement

REMEDY = "make it a separate layer and register an op for it with @ctbench.graph.lower.register"


@dataclass(frozen=True)
class Value:
    """A node of the graph, as an argument of later nodes."""

    index: int
    shape: Shape  # the shape in the forward, without the batch; if it is (), e.g. for x[:, 0], the node has shape (1,)
    storage: int  # the node that owns its memory: itself, or the node that it is a view of


@dataclass(frozen=True)
class Turned:
    """A value whose batch is another dimension of its tensor: value.movedim(0, axis). Only moves take it."""

    value: Value
    axis: int  # at least 1


@dataclass(frozen=True, eq=False)
class Constant:
    """A parameter or buffer that a forward uses directly, or a view of it."""

    tensor: Tensor
    name: str  # e.g. "parameter 'scale' of layers.0 (Block)"


@dataclass(frozen=True, eq=False)
class Masked:
    """A value some of whose entries are -inf, such as the scores of an attention with a mask. A softmax takes it."""

    value: Value  # with any finite numbers where entries are -inf
    keep: Tensor  # [*shape]: false where entries are -inf


class BatchSize:
    """The size of the batch. It is open in a graph."""


class Builder:
    """Appends nodes one by one. Constants get the precision and the device of the network.

    If the network has no tensors (`like` is None), constants are in double precision until the graph is frozen.
    """

    def __init__(self, input_shape: Shape, like: Tensor | None) -> None:
        self.open = like is None
        self.like = torch.zeros((), dtype=torch.float64) if like is None else like
        self.nodes = [Node("input", Input(), (), input_shape)]
        self.storages = [0]  # the storage of each node
        self.overwritten: set[int] = set()  # nodes with memory that a later layer has overwritten
        self.weights_of_means: set[int] = set()  # nodes whose rows, along the last axis, are >= 0 and sum to 1
        # softmaxes, by their nodes: the value that one was computed from, and its axis
        self.softmaxes = dict[int, tuple[Value, int]]()
        # whether numbers were computed from constants such as parameters, which may change before a graph is frozen
        self.computes_constants = False
        self.rounded = ""  # where torch rounded numbers that it computed from constants

    @property
    def input(self) -> Value:
        return Value(0, self.nodes[0].shape, 0)

    def graph(self, result: Value) -> Graph:
        """The graph with this value as its output, without the nodes that it does not depend on."""
        self._check_intact(result, "output")
        needed = {0, result.index}
        for at in range(result.index, 0, -1):
            needed.update(self.nodes[at].inputs if at in needed else ())
        place = {at: number for number, at in enumerate(sorted(needed))}
        nodes = (replace(self.nodes[at], inputs=tuple(place[i] for i in self.nodes[at].inputs)) for at in place)
        return Graph(tuple(nodes), open=self.open, rounded=self.rounded)

    def layer(self, path: str, module: nn.Module, value: Value) -> Value:
        """Append the ops that a layer is lowered to."""
        try:
            lowered = lower(module, value.shape)
        except ValueError as error:
            raise located(f"layer '{path}' ({type(module).__name__}): {error}", error) from None
        output = self.chain(path, lowered if isinstance(lowered, Sequence) else (lowered,), value)
        return self.written(output, value) if getattr(module, "inplace", False) is True else output

    def move(self, path: str, function: Callable[[Tensor], Tensor], value: Value, *, copies: bool = False) -> Value:
        """Append a function that only moves entries: a view of its input, unless it `copies`."""
        try:
            ops = rearrangement(function, value.shape)
        except ValueError as error:
            raise located(f"'{path}' cannot be read: {error}", error) from None
        output = self.chain(path, ops, value)
        if output.shape in ((), (1,)):
            output = replace(output, shape=tuple(function(torch.zeros(2, *value.shape)).shape[1:]))
        return self._placed_in(output.index if copies else value.storage, output)

    def written(self, result: Value, into: Value) -> Value:
        """The result of an in-place layer: it takes the memory of `into`, and all other values there become invalid."""
        self.overwritten |= {index for index, storage in enumerate(self.storages) if storage == into.storage}
        self.overwritten.discard(result.index)
        return self._placed_in(into.storage, result)

    def _placed_in(self, storage: int, value: Value) -> Value:
        self.storages[value.index] = storage
        return replace(value, storage=storage)

    def chain(self, path: str, ops: Sequence[Op], value: Value) -> Value:
        """Append ops one after the other."""
        for op in ops:
            value = self.append(path, op, value)
        return value

    def append(self, path: str, op: Op, *inputs: Value) -> Value:
        try:
            shape = op.shape(*(self.nodes[value.index].shape for value in inputs))
        except ValueError as error:
            raise ValueError(f"layer '{path}' ({type(op).__name__}): {error}") from None
        for value in inputs:
            self._check_intact(value, path)
        index = len(self.nodes)
        storage = inputs[0].storage if isinstance(op, Reshape | Dropout) else index  # torch gives views of the input
        self.nodes.append(Node(path, self._on_device(op), tuple(value.index for value in inputs), shape))
        self.storages.append(storage)
        return Value(index, shape if any(value.shape for value in inputs) else (), storage)

    def is_weights_of_means(self, value: Value) -> bool:
        """Whether the rows of a value are >= 0 and sum to 1, except for a dropout, which bounds do not see."""
        at = value.index
        while isinstance(self.nodes[at].op, Dropout | Reshape) and at not in self.weights_of_means:
            (at,) = self.nodes[at].inputs
            if self.nodes[at].shape != value.shape:
                return False
        return at in self.weights_of_means

    def number(self, value: float) -> Tensor:
        """A number as a tensor of the network's precision; in double precision it is exactly the Python number."""
        return torch.as_tensor(value, dtype=self.like.dtype, device=self.like.device)

    def following(self, constant: Tensor) -> Tensor:
        """A constant of which a function is computed: the graph computes it again whenever it is frozen."""
        self.computes_constants |= constant.requires_grad
        return constant

    def compute(self, path: str, method: str, result: Tensor, *operands: Tensor | float) -> Tensor:
        """The result of a function of constants, which is computed again whenever the graph is frozen."""
        self.computes_constants |= result.requires_grad
        self.note_rounding(path, method, operands, {}, result)
        return result

    def note_rounding(self, path: str, target: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        """Remember that torch may have rounded what it computed from constants."""
        if not self.rounded and not is_exact(target, tuple(args), kwargs, result):
            self.rounded = f"'{path}' ({getattr(target, '__name__', target)})"

    def _on_device(self, op: Op) -> Op:
        return op if isinstance(op, BatchNorm) else converted(op, self.like)

    def _check_intact(self, value: Value, path: str) -> None:
        if value.index in self.overwritten:
            raise UnsupportedLayerError(
                f"'{path}' uses the output of '{self.nodes[value.index].name}' after a layer has written into it: "
                f"set inplace=False there, and write a = a + b for a += b"
            )


def located(message: str, error: ValueError) -> ValueError:
    """An error of the same type, with a message that says where it occurred."""
    return UnsupportedLayerError(message) if isinstance(error, UnsupportedLayerError) else ValueError(message)

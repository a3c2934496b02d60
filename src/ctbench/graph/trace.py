"""nn.Module -> Graph, by torch.fx over leaf layers, each lowered at once to an op.

    graph = trace(model, input_shape=(1, 28, 28))

Functions are read as the layer they equal (F.relu as nn.ReLU), so each op has one way in. torch.export is not used:
it bakes in the mode and the batch size, which training needs open.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils import parametrize

from ctbench.graph.graph import Graph, Node, freeze
from ctbench.graph.ops import Add, Input, Op, Reshape, Shape, UnsupportedLayerError, lower


def trace(model: nn.Module, input_shape: Shape) -> Graph:
    """The graph of a network for inputs of one shape (without the batch), with its parameters held, not copied.

    The graph is that of the network at test time; what batch norms do is chosen later, by `freeze`.

    What a trace cannot see, as hooks, is refused; beyond that the graph is checked against the network on random
    inputs.

    Raises:
        UnsupportedLayerError: a layer or function has no op; names its path, its type and what to register.
        ValueError: the network cannot take inputs of this shape, its forward depends on values of the input, or the
            graph does not compute what the network does.
    """
    _check_plain(model)
    if not any(True for _ in model.children()) and _has_op(model):
        model = nn.Sequential(model)  # fx traces into the root, so a single layer needs one around it
    with _test_time(model):
        try:
            traced = _Tracer().trace(model)
        except Exception as error:  # whatever a forward raises when it is given a proxy
            raise ValueError(
                f"{type(model).__name__}.forward cannot be traced ({error}): it must not branch on values of its "
                f"input, and must ask for x.size(0), not len(x)"
            ) from error
        graph = _Builder(model, tuple(input_shape)).build(traced)
        _check_agreement(model, graph)
    return graph


def _check_plain(model: nn.Module) -> None:
    """Refuse what runs beside the forward of a class, where a trace does not see it, and too low a precision."""
    for path, module in model.named_modules():
        where = f"layer '{path}' ({type(module).__name__})" if path else type(module).__name__
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            raise UnsupportedLayerError(
                f"{where} has forward hooks or a forward of its own instance, which no bound takes into account: "
                f"remove them (torch.nn.utils.prune.remove, torch.nn.utils.remove_weight_norm, handle.remove())"
            )
        if parametrize.is_parametrized(module):
            raise UnsupportedLayerError(
                f"{where} computes its weights: fix them with torch.nn.utils.parametrize.remove_parametrizations"
            )
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"parameter '{name}' is {tensor.dtype}, too coarse for bounds: use model.float()")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"parameter '{name}' holds NaN or infinite values")


@torch.no_grad()
def _check_agreement(model: nn.Module, graph: Graph) -> None:
    like = next((t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), torch.zeros(()))
    x = torch.rand(4, *graph.input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(like)
    x[2:] = 4 * x[2:] - 2  # inside and outside the pixels' range, so that a ReLU at the input is seen on both sides
    expected, found = model(x.clone()), freeze(graph, x)[1]
    scale = float(expected.abs().nan_to_num().max())
    tolerance = max(1.0, scale) * (1e-9 if like.dtype == torch.float64 else 1e-3)
    if not torch.allclose(found, expected, rtol=0, atol=tolerance, equal_nan=True):
        raise ValueError(
            f"the graph of {type(model).__name__} does not compute what the network does: look for ops that are "
            f"registered wrongly, and for a forward that changes what it is given"
        )


def _has_op(module: nn.Module) -> bool:
    """Whether `lower` knows this very layer: a subclass with a forward of its own is another one."""
    known = next((kind for kind in type(module).__mro__ if kind in lower.registry and kind is not object), None)
    return known is not None and getattr(type(module), "forward", None) is getattr(known, "forward", None)


class _Proxy(fx.Proxy):
    """A traced value that tells a += b, which writes into a, from a + b."""

    def __iadd__(self, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _has_op(m) or super().is_leaf_module(m, module_qualified_name)


@contextmanager
def _test_time(model: nn.Module) -> Iterator[None]:
    """Modules in eval mode, and then each in its own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@dataclass(frozen=True)
class _Value:
    """A node of the graph under construction, as an argument of what follows."""

    index: int
    shape: Shape
    storage: int  # the node whose memory it lies in: its own, or that of the value it is a view of


class _Batch:
    """The size of the batch, which a graph leaves open."""


# The layer that a function or method equals, given its arguments but for the tensor.
_FUNCTIONS: dict[Callable[..., Any] | str, Callable[..., nn.Module]] = {
    F.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    torch.flatten: lambda start_dim=0, end_dim=-1: nn.Flatten(start_dim, end_dim),
    "flatten": lambda start_dim=0, end_dim=-1: nn.Flatten(start_dim, end_dim),
    F.avg_pool2d: nn.AvgPool2d,
}
_SUMS = (operator.add, operator.iadd, torch.add, "add")
_RESHAPES = (torch.reshape, "reshape", "view")


class _Builder:
    def __init__(self, model: nn.Module, input_shape: Shape) -> None:
        self.model = model
        self.nodes = [Node("input", Input(), (), input_shape)]
        self.values: dict[fx.Node, Any] = {}
        self.storages = [0]  # of each node
        self.overwritten: set[int] = set()  # nodes whose memory a later layer has written into

    def build(self, traced: fx.Graph) -> Graph:
        for node in traced.nodes:
            args = fx.node.map_arg(node.args, lambda n: self.values[n])
            kwargs = fx.node.map_arg(node.kwargs, lambda n: self.values[n])
            if node.op == "output":
                return self.finish(args[0])
            self.values[node] = self.read(node, args, kwargs)
        raise AssertionError("a traced graph ends in its output")

    def finish(self, result: Any) -> Graph:
        if not isinstance(result, _Value):
            raise ValueError(f"the network must return one tensor, its forward returns {type(result).__name__}")
        self.check_intact(result, "output")
        if len(result.shape) != 1:
            raise ValueError(f"the network must return one vector of logits a sample, it returns shape {result.shape}")
        return Graph(tuple(self.nodes[: result.index + 1]))

    def read(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What one traced node stands for: a new node of ours, or a plain value such as a shape."""
        target: Any = node.target
        if node.op == "placeholder":
            if node.prev.op == "placeholder":
                raise ValueError(f"the network must take one tensor, its forward has a second argument {target!r}")
            return _Value(0, self.nodes[0].shape, 0)
        if node.op == "call_module":
            if kwargs:
                raise UnsupportedLayerError(
                    f"layer '{target}' is called with {', '.join(kwargs)}=...: leave the names out"
                )
            return self.layer(target, self.model.get_submodule(target), *args)
        if node.op in ("call_function", "call_method"):
            if target in _FUNCTIONS:
                return self.layer(node.name, _as_layer(target, args[1:], kwargs), *args[:1])
            if target in _SUMS and not kwargs and all(isinstance(arg, _Value) for arg in args):
                return self.append(node.name, Add(), *args, in_place=target is operator.iadd)
            if target in _RESHAPES and not kwargs:
                sizes = tuple(args[1]) if isinstance(args[1], tuple | list) else args[1:]
                return self.append(node.name, _reshape(args[0].shape, sizes), args[0])
            if target == "size" or (target is getattr and args[1] == "shape"):
                sizes = (_Batch(), *args[0].shape)
                return sizes[args[1]] if target == "size" and len(args) > 1 else sizes
            if target is operator.getitem and isinstance(args[0], tuple):
                return args[0][args[1]]
        if node.op == "get_attr":
            owner = self.model.get_submodule(target.rpartition(".")[0])
            raise UnsupportedLayerError(
                f"parameter '{target}' is used in the forward of {type(owner).__name__}, which is no known layer: "
                f"register an op for {type(owner).__name__} with @ctbench.graph.lower.register"
            )
        raise UnsupportedLayerError(
            f"'{node.name}' ({node.op} {getattr(target, '__name__', target)}) is not supported: make it a layer of "
            f"its own and register an op for that with @ctbench.graph.lower.register"
        )

    def layer(self, path: str, module: nn.Module, *inputs: Any) -> _Value:
        if len(inputs) != 1 or not isinstance(inputs[0], _Value):
            raise UnsupportedLayerError(f"layer '{path}' ({type(module).__name__}) must be called with one tensor")
        try:
            op = lower(module, inputs[0].shape)
        except UnsupportedLayerError as error:
            raise UnsupportedLayerError(f"layer '{path}': {error}") from None
        return self.append(path, op, *inputs, in_place=getattr(module, "inplace", False) is True)

    def append(self, path: str, op: Op, *inputs: _Value, in_place: bool = False) -> _Value:
        try:
            shape = op.shape(*(value.shape for value in inputs))
        except ValueError as error:
            raise ValueError(f"layer '{path}' ({type(op).__name__}): {error}") from None
        for value in inputs:
            self.check_intact(value, path)
        index = len(self.nodes)
        storage = inputs[0].storage if in_place or isinstance(op, Reshape) else index
        if in_place:
            self.overwritten |= {other for other, memory in enumerate(self.storages) if memory == storage}
        self.nodes.append(Node(path, op, tuple(value.index for value in inputs), shape))
        self.storages.append(storage)
        return _Value(index, shape, storage)

    def check_intact(self, value: _Value, path: str) -> None:
        if value.index in self.overwritten:
            raise UnsupportedLayerError(
                f"'{path}' uses the output of '{self.nodes[value.index].name}' after a layer has written into it: "
                f"set inplace=False there"
            )


def _as_layer(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
    try:
        return _FUNCTIONS[target](*args, **kwargs)
    except TypeError as error:
        name = getattr(target, "__name__", target)
        raise UnsupportedLayerError(f"{name} is called in a way that is not supported ({error})") from None


def _reshape(shape: Shape, sizes: tuple[Any, ...]) -> Op:
    """A reshape that leaves the batch alone: x.view(x.size(0), ...) or x.view(-1, ...)."""
    if not all(isinstance(size, int | _Batch) for size in sizes):
        raise UnsupportedLayerError(f"a view or reshape to {sizes} is not supported: give sizes")
    first, rest = sizes[0], list(sizes[1:])
    if not isinstance(first, _Batch) and first != -1:
        raise UnsupportedLayerError(
            f"a reshape to {sizes} fixes the batch size: write x.flatten(1) or x.view(x.size(0), ...)"
        )
    if -1 in rest:
        known = math.prod(size for size in rest if size != -1)
        rest[rest.index(-1)] = math.prod(shape) // known
    return Reshape(shape, tuple(rest))

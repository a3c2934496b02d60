"""nn.Module -> Graph, by torch.fx over leaf layers, each lowered to an op.

    graph = trace(model, input_shape=(1, 28, 28))

Functions are read as the equivalent layer (F.relu as nn.ReLU), so there is one path to each op. torch.export is not
used: it fixes the mode and the batch size, but training needs both open.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from ctbench.graph.builder import KEEPS_ORDER, NOT_NEEDED, REMEDY, Builder, Constant, Value
from ctbench.graph.functions import READINGS
from ctbench.graph.graph import Graph, freeze
from ctbench.graph.ops import Shape, UnsupportedLayerError, lower

FINE = (torch.float32, torch.float64)  # the precisions of networks


def trace(model: nn.Module, input_shape: Shape) -> Graph:
    """The graph of a network for inputs of one shape (without the batch). It refers to the parameters, without copies.

    The graph is that of the network in eval mode; `freeze` later chooses the statistics of batch norms. Its precision
    is that of the network (see `precision`). The numbers of a network without tensors get their precision in `freeze`.

    Features that a trace cannot see, such as hooks, are rejected. The graph is also compared with the network on random
    inputs.

    Raises:
        UnsupportedLayerError: a layer or function has no op; the message names its path, its type and what to register.
        ValueError: the network rejects inputs of this shape, its forward depends on values of the input, or the graph
            and the network compute different values.
    """
    model = plain_network(model)
    _check_plain(model)
    if not any(True for _ in model.children()) and _has_op(model):
        model = nn.Sequential(model)  # fx traces into the root, so a single layer needs a container
    with _test_time(model):
        try:
            traced = _Tracer().trace(model)
        except Exception as error:  # a forward may raise any error when it is called with a proxy
            raise ValueError(
                f"{type(model).__name__}.forward cannot be traced ({error}): it must not branch on values of its "
                f"input, and must ask for x.size(0), not len(x)"
            ) from error
        graph = _Reader(model, Builder(tuple(input_shape), _own(model))).read(traced)
        _check_agreement(model, graph)
    return graph


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `DataParallel`, `DistributedDataParallel` and `torch.compile`, which compute the same."""
    while (inner := _wrapped(model)) is not None:
        model = inner
    return model


def plain_network(model: nn.Module) -> nn.Module:
    """The same. Raises UnsupportedLayerError if a wrapper has hooks, so that it may compute something else."""
    while (inner := _wrapped(model)) is not None:
        _check_hooks(model, type(model).__name__, has_own_forward=_is_compiled(model))
        model = inner
    return model


def _wrapped(model: nn.Module) -> nn.Module | None:
    """The module that a wrapper of torch hands its inputs to; None for any other module.

    A subclass of a wrapper, or another module with a submodule of that name, may compute something else.
    """
    if type(model) in (nn.DataParallel, nn.parallel.DistributedDataParallel):
        return cast("nn.Module", model.module)
    return cast("nn.Module", model._orig_mod) if _is_compiled(model) else None


def _is_compiled(model: nn.Module) -> bool:
    """Whether a module is what `torch.compile` made; told by its name, because the import takes seconds."""
    kind = type(model)
    return (kind.__module__, kind.__qualname__) == ("torch._dynamo.eval_frame", "OptimizedModule")


def _check_plain(model: nn.Module) -> None:
    """Reject code that a trace does not see, because it is not in the forward of a class, and too low a precision."""
    for path, module in model.named_modules():
        where = f"layer '{path}' ({type(module).__name__})" if path else type(module).__name__
        _check_hooks(module, where)
        if parametrize.is_parametrized(module):
            raise UnsupportedLayerError(
                f"{where} computes its weights: fix them with torch.nn.utils.parametrize.remove_parametrizations"
            )
    precisions = {tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()}
    if len(precisions) > 1:
        raise ValueError(
            f"the parameters of the network are {', '.join(sorted(map(str, precisions)))}, but a graph has one "
            f"precision: use model.float() or model.double()"
        )
    own = _own(model)
    for name, tensor in model.named_buffers():
        if tensor is own and tensor.dtype not in FINE:
            raise ValueError(f"buffer '{name}' is {tensor.dtype}, too coarse for bounds: use model.float()")
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and tensor.dtype not in FINE:
            raise ValueError(f"parameter '{name}' is {tensor.dtype}, too coarse for bounds: use model.float()")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"parameter '{name}' holds NaN or infinite values")
    _check_statistics(model)


def _check_statistics(model: nn.Module) -> None:
    """Raise ValueError if the running statistics of a batch norm are NaN or infinite, or a variance is negative."""
    for path, module in model.named_modules():
        if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            continue
        for name, least in (("running_mean", -torch.inf), ("running_var", 0.0)):
            statistic = getattr(module, name)
            if statistic is not None and not bool((statistic.isfinite() & (statistic >= least)).all()):
                place = f"{path}.{name}" if path else name
                values = "NaN or infinite" if least else "NaN, infinite or negative"
                raise ValueError(f"buffer '{place}' holds {values} values: restore the weights of this layer")


def _check_hooks(module: nn.Module, where: str, *, has_own_forward: bool = False) -> None:
    """Raise UnsupportedLayerError if a module runs more than the forward of its class.

    `has_own_forward` says that a forward on the instance belongs to the module.
    """
    if module._forward_hooks or module._forward_pre_hooks or ("forward" in vars(module) and not has_own_forward):
        raise UnsupportedLayerError(
            f"{where} has forward hooks or a forward set on the instance, which bounds do not take into account: "
            f"remove them (torch.nn.utils.prune.remove, torch.nn.utils.remove_weight_norm, handle.remove())"
        )


def precision(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A zero in the precision of a network, on its device.

    Precision and device are those of the first floating point tensor among its parameters, then its buffers, then the
    attributes of its modules. A network without such tensors has those of its input x.

    Raises:
        ValueError: the model is not a torch.nn.Module, or on the device "meta"; or the inputs of a network without
            tensors are too coarse.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}: give a torch.nn.Module")
    own = _own(unwrapped(model))
    if own is None and x.is_floating_point() and x.dtype not in FINE:
        raise ValueError(f"the inputs are {x.dtype}, too coarse for bounds: give x.float() or x.double()")
    like = x if own is None else own
    if any(tensor.is_meta for tensor in (like, *model.parameters(), *model.buffers())):
        raise ValueError("the model has tensors on the device 'meta', which have no values: load its weights first")
    return torch.zeros((), dtype=like.dtype, device=like.device)


def _own(model: nn.Module) -> torch.Tensor | None:
    """The tensor that determines the precision of a network, if there is one."""
    attributes = (value for module in model.modules() for value in vars(module).values())
    tensors = chain(model.parameters(), model.buffers(), (t for t in attributes if isinstance(t, torch.Tensor)))
    return next((tensor for tensor in tensors if tensor.is_floating_point()), None)


@torch.no_grad()
def _check_agreement(model: nn.Module, graph: Graph) -> None:
    own = _own(model)
    like = torch.zeros((), dtype=torch.float64) if own is None else own
    x = torch.rand(4, *graph.input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(like)
    x[2:] = 4 * x[2:] - 2  # inside and outside the pixel range, so that a ReLU at the input is tested on both sides
    try:
        expected, logits = model(x.clone()), freeze(graph, x)[1]
    except RuntimeError as error:  # from torch, if the forward was written for another batch size
        raise ValueError(f"{type(model).__name__} cannot take 4 inputs of shape {graph.input_shape}: {error}") from None
    scale = float(expected.abs().nan_to_num().max())
    tolerance = max(1.0, scale) * (1e-9 if like.dtype == torch.float64 else 1e-3)
    if logits.shape != expected.shape:
        raise ValueError(
            f"{type(model).__name__} makes {tuple(expected.shape)} of 4 inputs, but its graph {tuple(logits.shape)}: "
            f"the forward must take batches of any size, sample by sample"
        )
    if not torch.allclose(logits, expected.to(logits), rtol=0, atol=tolerance, equal_nan=True):
        raise ValueError(
            f"the graph of {type(model).__name__} and the network compute different values: look for ops that are "
            f"registered wrongly, and for a forward that changes its input"
        )


def _has_op(module: nn.Module) -> bool:
    """Whether an op is registered for this layer. A subclass that overrides forward does not inherit the op."""
    base = next((kind for kind in type(module).__mro__ if kind in lower.registry and kind is not object), None)
    return base is not None and getattr(type(module), "forward", None) is getattr(base, "forward", None)


class _Proxy(fx.Proxy):
    """A traced value that distinguishes a += b, which writes into a, from a + b, for all in-place operators."""


def _writing(target: Any) -> Any:
    def method(self: _Proxy, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", target, (self, other), {})

    return method


for _name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"):
    setattr(_Proxy, f"__{_name}__", _writing(getattr(operator, _name)))


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _has_op(m) or super().is_leaf_module(m, module_qualified_name)


@contextmanager
def _test_time(model: nn.Module) -> Iterator[None]:
    """Set the modules to eval mode, then restore modes and attributes: fx leaves constants of a forward on them."""
    training, own = [module for module in model.modules() if module.training], set(vars(model))
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for name in set(vars(model)) - own:
            delattr(model, name)


# Arithmetic on sizes, which is evaluated immediately.
_ARITHMETIC = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.neg)


class _Reader:
    """Reads a traced forward node by node into a graph."""

    def __init__(self, model: nn.Module, build: Builder) -> None:
        self.model, self.build = model, build
        self.values: dict[fx.Node, Any] = {}

    def read(self, traced: fx.Graph) -> Graph:
        for node in traced.nodes:
            args = fx.node.map_arg(node.args, lambda n: self.values[n])
            kwargs = fx.node.map_arg(node.kwargs, lambda n: self.values[n])
            if node.op == "output":
                return self.finish(args[0])
            self.values[node] = self.value(node, args, kwargs)
        raise AssertionError("a traced graph ends in its output")

    def finish(self, result: Any) -> Graph:
        if not isinstance(result, Value):
            raise ValueError(f"the network must return one tensor, its forward returns {type(result).__name__}")
        if len(result.shape) != 1:
            raise ValueError(
                f"the network must return one vector of logits per sample, it returns shape {result.shape}"
            )
        return self.build.graph(result)

    def value(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The meaning of one traced node: a value of the graph, a constant, or a plain number such as a size."""
        target: Any = node.target
        if node.op == "placeholder":
            if node.prev.op == "placeholder":
                raise ValueError(f"the network must take one tensor, its forward has a second argument {target!r}")
            return self.build.input
        if node.op == "get_attr":
            return self._constant(target)
        if node.op == "call_module":
            inputs = (*args, *kwargs.values())
            module = self.model.get_submodule(target)
            if len(inputs) != 1 or not isinstance(inputs[0], Value):
                raise UnsupportedLayerError(
                    f"layer '{target}' ({type(module).__name__}) must be called with one value of the network: {REMEDY}"
                )
            return self.build.layer(target, module, inputs[0])
        if target in _ARITHMETIC and all(isinstance(arg, int | float) for arg in args):
            return target(*args)
        return self._call(node, target, args, kwargs)

    def _constant(self, path: str) -> Constant:
        owner, _, name = path.rpartition(".")
        module = self.model.get_submodule(owner)
        tensor: torch.Tensor = getattr(module, name)
        kind = "parameter" if isinstance(tensor, nn.Parameter) else "tensor"
        constant = Constant(tensor, f"{kind} '{name}' of {owner or 'the network'} ({type(module).__name__})")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{constant.name} holds NaN or infinite values")
        if tensor.grad_fn is not None:
            raise UnsupportedLayerError(
                f"{constant.name} is computed from parameters, but it would not follow their training"
            )
        return constant

    def _call(self, node: fx.Node, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        scopes = list(node.meta.get("nn_module_stack", {}).values())
        path = ".".join([*(place for place, _ in scopes[-1:] if place), node.name])
        name = getattr(target, "__name__", target)
        constants = [arg.name for arg in (*args, *kwargs.values()) if isinstance(arg, Constant)]
        operands = f" with {', '.join(constants)}" if constants else ""
        if target not in READINGS and name in KEEPS_ORDER:
            raise UnsupportedLayerError(f"'{path}' ({node.op} {name}) is {NOT_NEEDED}")
        if target not in READINGS:
            raise UnsupportedLayerError(f"'{path}' ({node.op} {name}){operands} is not supported: {REMEDY}")
        try:
            return READINGS[target](self.build, path, *args, **kwargs)
        except (TypeError, AttributeError, IndexError) as error:  # arguments that the reading does not support
            raise UnsupportedLayerError(
                f"'{path}': {name}{operands} is called in a way that is not supported ({error}): {REMEDY}"
            ) from None

"""nn.Module -> Graph, by torch.fx over leaf layers, each lowered to an op.

    graph = trace(model, input_shape=(1, 28, 28))

Functions are read as the equivalent layer (F.relu as nn.ReLU), so there is one path to each op. torch.export is the
second choice, for forwards that cannot run on proxies: its graph has functions only, no layers.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from ctbench.graph import masks, spellings
from ctbench.graph.builder import REMEDY, BatchSize, Builder, Constant, Masked, Turned, Value
from ctbench.graph.constants import computed, constants_only, is_in_place, is_random, random_values
from ctbench.graph.exporting import exported
from ctbench.graph.functions import Reading, moved
from ctbench.graph.graph import Graph, freeze
from ctbench.graph.modules import reading_of
from ctbench.graph.ops import Shape, Shift, UnsupportedLayerError, lower
from ctbench.graph.ops.moves import BATCH_FIRST
from ctbench.graph.plain import FINE, check_plain, own_tensor, plain_network, unwrapped
from ctbench.graph.tracing import BATCH, ArgumentError, Tracer
from ctbench.networks.selected import SelectionError


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
    check_plain(model)
    if not any(True for _ in model.children()) and _has_op(model):
        model = nn.Sequential(model)  # fx traces into the root, so a single layer needs a container
    own = own_tensor(model)
    like = torch.zeros(()) if own is None else torch.zeros((), dtype=own.dtype, device=own.device)
    with _test_time(model):
        try:
            traced = Tracer(input_shape, like, _has_op).trace(model)
        except (ArgumentError, SelectionError):
            raise
        except Exception as error:  # a forward may raise any error when it is called with a proxy
            graph = _by_export(model, tuple(input_shape), own, like, error)
        else:
            graph = _read(model, tuple(input_shape), own, traced, model, {})
        _check_agreement(model, graph)
    return graph


def _by_export(
    model: nn.Module, input_shape: Shape, own: torch.Tensor | None, like: torch.Tensor, error: Exception
) -> Graph:
    """The graph from torch.export, after torch.fx has raised an error."""
    try:
        traced, constants = exported(model, input_shape, like)
    except Exception as second:  # torch.export raises errors of many types
        reasons = [" ".join(str(each).split())[:300] for each in (error, second)]
        raise ValueError(
            f"{type(model).__name__}.forward cannot be traced ({reasons[0]}), and torch.export cannot export it "
            f"({reasons[1]}): it must not branch on values of its input"
        ) from error
    return _read(model, input_shape, own, traced, constants, {})


def _read(
    model: nn.Module,
    input_shape: Shape,
    own: torch.Tensor | None,
    traced: fx.Graph,
    constants: nn.Module,
    kept: dict[str, torch.Tensor],
) -> Graph:
    """The graph of a traced forward; `kept` are the constants that a trace leaves on modules, once they are read."""

    def read() -> Graph:
        build = Builder(input_shape, own)
        graph = _Reader(model, build, constants, kept).read(traced)
        return replace(graph, again=_Again(model, input_shape, read)) if build.computes_constants else graph

    with torch.enable_grad():  # where no gradients are computed, a view of a parameter does not say that it is one
        graph = read()
    if graph.again is None:
        return graph
    with torch.no_grad():  # it is read again where gradients matter, and tensors with a history cannot be copied
        return replace(read(), again=graph.again)


@dataclass(eq=False)
class _Again:
    """The graph of a forward, read again. A copy or a pickle of it has the network alone, and traces it."""

    model: nn.Module
    input_shape: Shape
    read: Callable[[], Graph] | None = None

    def __call__(self) -> Graph:
        if self.read is None:
            again = trace(self.model, self.input_shape).again
            assert isinstance(again, _Again), "the same forward computes the same constants"
            self.read = again.read
        assert self.read is not None, "a trace is read"
        return replace(self.read(), again=None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Again, (self.model, self.input_shape)


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
    own = own_tensor(unwrapped(model))
    if own is None and x.is_floating_point() and x.dtype not in FINE:
        raise ValueError(f"the inputs are {x.dtype}, too coarse for bounds: give x.float() or x.double()")
    like = x if own is None else own
    if any(tensor.is_meta for tensor in (like, *model.parameters(), *model.buffers())):
        raise ValueError("the model has tensors on the device 'meta', which have no values: load its weights first")
    return torch.zeros((), dtype=like.dtype, device=like.device)


@torch.no_grad()
def _check_agreement(model: nn.Module, graph: Graph) -> None:
    own = own_tensor(model)
    like = torch.zeros((), dtype=torch.float64) if own is None else own
    x = torch.rand(4, *graph.input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(like)
    x[2:] = 4 * x[2:] - 2  # inside and outside the pixel range, so that a ReLU at the input is tested on both sides
    tensors = (*model.named_buffers(), *model.named_parameters())
    drawn, stored = torch.get_rng_state(), [each for each in tensors if not each[1].is_inference()]
    versions = [tensor._version for _, tensor in stored]
    try:
        expected, logits = model(x.clone()).to(x), freeze(graph, x)[1]
    except RuntimeError as error:  # from torch, if the forward was written for another batch size
        raise ValueError(f"{type(model).__name__} cannot take 4 inputs of shape {graph.input_shape}: {error}") from None
    changed = [name for (name, tensor), version in zip(stored, versions, strict=True) if tensor._version != version]
    if changed:
        raise UnsupportedLayerError(
            f"the forward of {type(model).__name__} writes into '{changed[0]}', so its next call may compute something "
            f"else: leave that out in eval mode (if self.training: ...)"
        )
    if not torch.equal(drawn, torch.get_rng_state()):
        _check_not_random(model, x, expected)
    scale = float(expected.abs().nan_to_num().max())
    tolerance = max(1.0, scale) * (1e-9 if like.dtype == torch.float64 else 1e-3)
    if expected.dim() != 2 and expected.shape[:1] == x.shape[:1]:
        expected = expected.reshape(len(x), -1)  # in C order, like in the graph
    if logits.shape != expected.shape:
        raise ValueError(
            f"{type(model).__name__} makes {tuple(expected.shape)} of 4 inputs, but its graph {tuple(logits.shape)}: "
            f"the forward must take batches of any size, sample by sample"
        )
    if not torch.allclose(logits, expected.to(logits), rtol=0, atol=tolerance, equal_nan=True):
        _check_not_random(model, x, expected)
        raise ValueError(
            f"the graph of {type(model).__name__} and the network compute different values: look for ops that are "
            f"registered wrongly, and for a forward that changes its input"
        )


def _check_not_random(model: nn.Module, x: torch.Tensor, expected: torch.Tensor) -> None:
    """Raise UnsupportedLayerError if the network computes other values when it is called again."""
    again = model(x.clone()).to(expected).reshape(expected.shape)
    if not torch.equal(again.nan_to_num(), expected.nan_to_num()):
        raise UnsupportedLayerError(
            f"the forward of {type(model).__name__} draws random values, and what is random cannot be certified: leave "
            f"them out in eval mode (if self.training: ...), or draw them once and store them as a buffer"
        )


def _has_op(module: nn.Module) -> bool:
    """Whether an op is registered for this layer. A subclass that overrides forward does not inherit the op."""
    if reading_of(module) is not None:
        return True
    base = next((kind for kind in type(module).__mro__ if kind in lower.registry and kind is not object), None)
    return base is not None and getattr(type(module), "forward", None) is getattr(base, "forward", None)


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


def _choice(result: Any) -> str:
    """How to choose one of several outputs."""
    names: list[Any] = []
    if isinstance(result, dict):
        names = [*result]
    elif isinstance(result, tuple | list) and any(isinstance(each, Value) for each in result):
        names = [place for place, each in enumerate(result) if isinstance(each, Value)]
    if not names:
        return ""
    return f": choose one with ctbench.networks.Selected(model, output={names[0]!r})"


def _others(node: fx.Node) -> str:
    """All functions without a reading, with their numbers, if there are others than that of a node."""
    calls = (each for each in node.graph.nodes if each.op in ("call_function", "call_method"))
    unread = [each.target for each in calls if each.target not in _ARITHMETIC and spellings.find(each.target) is None]
    kinds = Counter(str(getattr(target, "__name__", target)) for target in unread if not isinstance(target, type))
    if len(kinds) < 2:
        return ""
    return f" (all that are missing: {', '.join(f'{kind} {count}x' for kind, count in kinds.most_common())})"


# Arithmetic on sizes, which is evaluated immediately.
_ARITHMETIC = (
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow),
    *(operator.neg, math.sqrt, math.floor, math.ceil),
)


class _Reader:
    """Reads a traced forward node by node into a graph."""

    def __init__(self, model: nn.Module, build: Builder, constants: nn.Module, kept: dict[str, torch.Tensor]) -> None:
        self.model, self.build = model, build
        self.constants, self.kept = constants, kept  # the module that a trace leaves constants on, and these
        self.values: dict[fx.Node, Any] = {}

    def read(self, traced: fx.Graph) -> Graph:
        for node in traced.nodes:
            args = fx.node.map_aggregate(node.args, self._meaning)
            kwargs = fx.node.map_aggregate(node.kwargs, self._meaning)
            if node.op == "output":
                return self.finish(args[0])
            self.values[node] = self.value(node, args, kwargs)
            if is_in_place(node.target) and isinstance(node.args[0], fx.Node):
                self.values[node.args[0]] = self.values[node]  # x.relu_() as a statement: x is what was written
        raise AssertionError("a traced graph ends in its output")

    def _meaning(self, arg: Any) -> Any:
        """An argument of a node: a value, and the size of the batch for the number that stands for it."""
        if isinstance(arg, fx.Node):
            return self.values[arg]
        if isinstance(arg, int) and not isinstance(arg, bool) and arg and arg % BATCH == 0:
            if arg == BATCH:
                return BatchSize()
            raise UnsupportedLayerError(
                f"the forward computes {arg // BATCH} times the size of the batch: a network must treat each sample on "
                f"its own, and leave the batch a dimension of its own"
            )
        return arg

    def finish(self, result: Any) -> Graph:
        """The graph; an output that is not a vector becomes one, in C order."""
        if isinstance(result, tuple | list) and len(result) == 1 and self.constants is not self.model:
            (result,) = result  # torch.export returns a list
        if isinstance(result, Turned):
            raise ValueError(f"the output cannot be read: a forward must return a tensor {BATCH_FIRST}")
        if isinstance(result, Masked):
            raise ValueError("the output has entries of -inf, because of a mask: return finite numbers, e.g. a softmax")
        if not isinstance(result, Value):
            raise ValueError(
                f"the network must return one tensor, its forward returns {type(result).__name__}{_choice(result)}"
            )
        if len(result.shape) != 1:
            result = self.build.move("output", lambda tensor: tensor.reshape(len(tensor), -1), result)
        return self.build.graph(result)

    def value(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The meaning of one traced node: a value of the graph, a constant, or a plain number such as a size."""
        target: Any = node.target
        if node.op == "placeholder":
            return self.build.input
        if node.op == "get_attr":
            return self._constant(target)
        if node.op == "call_module":
            inputs = (*args, *kwargs.values())
            module = self.model.get_submodule(target)
            masks.check_layer(module, inputs)
            if isinstance(module, nn.Embedding) and len(inputs) == 1 and isinstance(inputs[0], Constant):
                return self._embedded(target, module, inputs[0].tensor)
            if len(inputs) == 1 and isinstance(inputs[0], Constant):
                inputs = args = (self._repeated(target, inputs[0]),)
                kwargs = {}
            if (reading := reading_of(module)) is not None:
                return self._read(reading, target, type(module).__name__, (module, *args), kwargs)
            if len(inputs) != 1 or not isinstance(inputs[0], Value):
                raise UnsupportedLayerError(
                    f"layer '{target}' ({type(module).__name__}) must be called with one value of the network: {REMEDY}"
                )
            return self.build.layer(target, module, inputs[0])
        if isinstance(target, type) and (is_dataclass(target) or hasattr(target, "_fields")):
            names = [each.name for each in fields(target)] if is_dataclass(target) else list(target._fields)
            return {**dict(zip(names, args, strict=False)), **kwargs}  # several outputs by name
        if target in _ARITHMETIC and all(isinstance(arg, int | float) for arg in args):
            return target(*args)
        return self._call(node, target, args, kwargs)

    def _embedded(self, path: str, module: nn.Embedding, places: torch.Tensor) -> Any:
        """The rows of an embedding at constant places, e.g. those of all positions."""
        if module.max_norm is not None:
            raise UnsupportedLayerError(
                f"layer '{path}' (Embedding) has max_norm={module.max_norm}, so it changes its weights: set it to None"
            )
        weight = Constant(module.weight, f"parameter 'weight' of {path} (Embedding)")
        return moved(self.build, weight, lambda rows: rows[places.to(rows.device)])

    def _repeated(self, path: str, constant: Constant) -> Value:
        """A constant [1, *shape] as a value of the network: zeros that are made of the input, plus the constant."""
        shape, count = constant.tensor.shape, constant.tensor.numel()
        if shape[:1] != (1,):
            raise UnsupportedLayerError(
                f"'{path}' is called with {constant.name} of shape {list(shape)}: give that of one sample, [1, ...]"
            )

        def zeros(tensor: torch.Tensor) -> torch.Tensor:
            flat = tensor.flatten(1)
            return nn.functional.pad(flat, (count, -flat.shape[1])).reshape(-1, *shape[1:])

        value = self.build.move(path, zeros, self.build.input, copies=True)
        return self.build.append(path, Shift(constant.tensor[0].to(self.build.like)), value)

    def _constant(self, path: str) -> Constant:
        module, tensor = self._attribute(path)
        owner, _, name = path.rpartition(".")
        if tensor.dim() and len(tensor) == BATCH:  # made for each sample of the batch
            if bool((tensor == tensor[:1]).all()):
                tensor = tensor[:1]
            elif path in self.kept:
                raise UnsupportedLayerError(
                    f"the forward of {type(module).__name__} makes a tensor with other numbers for each sample, e.g. "
                    f"random ones, which cannot be certified: give all samples the same, of shape "
                    f"{[1, *tensor.shape[1:]]}"
                )
        kind = "parameter" if isinstance(tensor, nn.Parameter) else "tensor"
        constant = Constant(tensor, f"{kind} '{name}' of {owner or 'the network'} ({type(module).__name__})")
        if tensor.grad_fn is not None:
            raise UnsupportedLayerError(
                f"{constant.name} is computed from parameters, but it would not follow their training"
            )
        return constant

    def _attribute(self, path: str) -> tuple[nn.Module, torch.Tensor]:
        """A tensor of a module, by its path, and the module."""
        owner, _, name = path.rpartition(".")
        try:  # where it is an attribute of the network, it is a parameter or a buffer that training may change
            module = self.model.get_submodule(owner)
            tensor: torch.Tensor = getattr(module, name)
        except AttributeError:
            module = self.constants.get_submodule(owner)
            tensor = self.kept[path] if path in self.kept else getattr(module, name)
        if not isinstance(tensor, nn.Parameter) and name not in module._buffers:
            self.kept[path] = tensor
        return module, tensor

    def _call(self, node: fx.Node, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        scopes = list(node.meta.get("nn_module_stack", {}).values())
        path = ".".join([*(place for place, _ in scopes[-1:] if place), node.name])
        name = getattr(target, "__name__", target)
        constants = [arg.name for arg in (*args, *kwargs.values()) if isinstance(arg, Constant)]
        operands = f" with {', '.join(constants)}" if constants else ""
        masks.check_taken(path, str(name), target, args, kwargs)
        if constants_only(target, args, kwargs):
            return computed(self.build, path, str(name), node.op == "call_method", target, args, kwargs)
        reading = spellings.find(target)
        if reading is None:
            if is_random(target):
                raise UnsupportedLayerError(random_values(path, str(name)))
            raise UnsupportedLayerError(
                f"'{path}' ({node.op} {name}){operands} is not supported{_others(node)}: {REMEDY}"
            )
        return self._read(reading, path, f"{name}{operands}", args, kwargs)

    def _read(self, reading: Reading, path: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return reading(self.build, path, *args, **kwargs)
        except (TypeError, AttributeError, IndexError) as error:  # arguments that the reading does not support
            raise UnsupportedLayerError(
                f"'{path}': {name} is called in a way that is not supported ({error}): {REMEDY}"
            ) from None

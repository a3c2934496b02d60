"""torch.fx with shapes: the forward runs on proxies that know the shape of their value.

Where a forward asks for a shape, all values so far are computed on the device "meta", which computes shapes alone. So
`x.shape`, `len(x)`, `x.dtype` and `x.device` are plain Python values in a forward, and it may check and use them. The
batch of the trace has the size `BATCH`, a prime number that no network has for another reason, so that the reader of
the trace recognises it.
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from ctbench.graph.ops import Shape

BATCH = 7919  # the size of the batch in a trace

# what a tensor knows without values; of these, the device is that of the network
_KNOWN = frozenset({"shape", "dtype", "ndim", "layout", "itemsize", "names", "is_sparse", "is_quantized"})
_OF_DEVICE = frozenset({"device", "is_cuda", "is_cpu", "is_mps", "is_meta", "get_device"})
_METHODS = frozenset(
    {"size", "dim", "ndimension", "numel", "nelement", "is_floating_point", "is_complex", "element_size"}
)
_ASKED = _KNOWN | _OF_DEVICE | _METHODS


class ArgumentError(ValueError):
    """The forward of a network needs other arguments than one tensor."""


class Proxy(fx.Proxy):
    """A traced value. It distinguishes a += b, which writes into a, from a + b, for all in-place operators."""

    def __init__(self, node: fx.Node, tracer: Tracer) -> None:
        super().__init__(node, tracer)
        self.found: Any = None  # the example, once it is computed

    @property
    def example(self) -> Any:
        """The value on the device "meta"; None if it is not known."""
        tracer: Any = self.tracer
        tracer.compute_examples()
        return self.found

    def __getattr__(self, k: str) -> Any:
        if k in _ASKED and isinstance(self.example, Tensor):
            tracer: Any = self.tracer
            return getattr(tracer.like if k in _OF_DEVICE else self.example, k)
        return super().__getattr__(k)

    def __len__(self) -> int:
        return len(self.example) if self.example is not None else super().__len__()

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.example, tuple | list):
            places: Any = self  # a traced value of several parts
            return iter([places[place] for place in range(len(self.example))])
        return super().__iter__()


def _writing(target: Any) -> Any:
    def method(self: Proxy, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", target, (self, other), {})

    return method


for _name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"):
    setattr(Proxy, f"__{_name}__", _writing(getattr(operator, _name)))


class Tracer(fx.Tracer):
    """Traces a forward of one tensor; the other arguments have their defaults.

    Args:
        shape: of an input, without the batch.
        like: a tensor of the precision and the device of the network.
        is_leaf: whether a layer is an operator of its own.
    """

    def __init__(self, shape: Shape, like: Tensor, is_leaf: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.shape, self.like, self.is_leaf = tuple(shape), like, is_leaf
        self.missing: list[tuple[Proxy, str, Any, Any, Any]] = []  # values without an example, and their calls

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self.is_leaf(m) or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        _, *parameters = inspect.signature(root_fn).parameters.values()
        if not parameters:
            raise ArgumentError("the network must take one tensor, its forward takes no argument")
        first, *others = parameters
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        needed = [each.name for each in others if each.default is each.empty and each.kind not in kinds]
        if needed:
            raise ArgumentError(
                f"the network must take one tensor, its forward has a second argument {needed[0]!r} without a default: "
                f"use ctbench.networks.Selected(model, given={{{needed[0]!r}: ...}})"
            )
        x = self.create_proxy("placeholder", first.name, (), {})
        return (lambda root, x: root_fn(root, x)), [self.root, x]

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **options: Any) -> fx.Proxy:
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **options)
        if isinstance(proxy, Proxy):
            args, kwargs = (fx.node.map_aggregate(part, lambda each: each) for part in (args, kwargs))  # copies lists
            self.missing.append((proxy, kind, target, args, kwargs))
        return proxy

    def compute_examples(self) -> None:
        """Compute the examples of all values so far: in their order, as a call may write into its arguments."""
        missing, self.missing = self.missing, []
        for proxy, *call in missing:
            proxy.found = self._example(*call)

    def _example(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        """The value of a node on the device "meta", or None if it cannot be computed there."""
        if kind == "placeholder":
            return torch.empty(BATCH, *self.shape, dtype=self.like.dtype, device="meta")
        try:
            with torch.no_grad():
                args, kwargs = (fx.node.map_aggregate(part, _known) for part in (args, kwargs))
                if kind == "get_attr":
                    owner, _, name = target.rpartition(".")
                    own = vars(self.root.get_submodule(owner))  # not getattr: during a trace it gives proxies
                    return _known(own["_parameters"].get(name, own["_buffers"].get(name, own.get(name))))
                if kind == "call_method":
                    return getattr(args[0], target)(*args[1:], **kwargs)
                if kind == "call_module":
                    module = self.root.get_submodule(target)
                    if module._modules and not isinstance(module, nn.MultiheadAttention):
                        return None  # calls of its layers would be recorded in the trace; attention only reads weights
                    return _shadow(module).forward(*args, **kwargs)
                return target(*args, **kwargs) if kind == "call_function" else None
        except Exception:  # whatever a layer of a user raises there: its shape stays unknown, which is no fault
            return None


def _shadow(module: nn.Module) -> nn.Module:
    """A copy of a module on the device "meta"."""
    shadow = copy.copy(module)
    for kind in ("_parameters", "_buffers"):
        vars(shadow)[kind] = {name: _known(each) for name, each in vars(module)[kind].items()}
    vars(shadow)["_modules"] = {name: each and _shadow(each) for name, each in module._modules.items()}
    return shadow


def _known(value: Any) -> Any:
    """A proxy as its example, and a tensor on the device "meta"."""
    if isinstance(value, fx.Proxy):
        example = value.found if isinstance(value, Proxy) else None
        if example is None:
            raise LookupError("a value is not known")
        return example
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value

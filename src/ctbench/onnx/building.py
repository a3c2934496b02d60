"""A torch.fx graph under construction, and the ONNX operators that are read into it.

Every value is computed on an example while the graph is built. So shapes are those of torch, and if torch cannot
compute a value, the error names the operator.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, fx, nn

Shape = tuple[int, ...]
Array: TypeAlias = npt.NDArray[Any]
FLOATS = ("float16", "bfloat16", "float32", "float64")  # the types of weights


class OnnxError(ValueError):
    """An ONNX file that cannot be read, or a network that is not supported."""


class BatchError(OnnxError):
    """An operator acts on the axis that was the batch so far."""


class OnnxNetwork(fx.GraphModule):
    """A network read from an ONNX file: plain torch layers, and plain torch functions between them."""

    @property
    def input_shape(self) -> Shape:
        """The shape of one input, without the batch."""
        shape: Shape = self.meta["input_shape"]
        return shape

    @property
    def output_shape(self) -> Shape:
        """The shape of one output, without the batch."""
        shape: Shape = self.meta["output_shape"]
        return shape

    # torch.fx copies and pickles an OnnxNetwork as a plain GraphModule, without its meta

    def __copy__(self) -> OnnxNetwork:
        return _network(self)

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, content = super().__reduce__()
        return _restored, (rebuild, content, self.meta)


def _restored(rebuild: Callable[..., fx.GraphModule], content: tuple[Any, ...], meta: dict[str, Any]) -> OnnxNetwork:
    """A network from the content that torch.fx pickles."""
    module = rebuild(*content)
    module.meta = meta
    return _network(module)


def _network(module: fx.GraphModule) -> OnnxNetwork:
    """The same layers and graph as an OnnxNetwork."""
    network = OnnxNetwork(module, module.graph, "OnnxNetwork")
    network.meta.update(module.meta)
    return network


@dataclass(frozen=True)
class TracedValue:
    """A tensor of the network that depends on its input."""

    node: fx.Node
    example: Tensor  # [2, *shape]: the value that the network computes on zeros
    batched: bool = True  # whether its first axis in the file is the batch, or the file has only the others

    @property
    def shape(self) -> Shape:
        """The shape in the ONNX file for one sample, with a batch dimension of 1 if it has one."""
        return (1, *self.example.shape[1:]) if self.batched else tuple(self.example.shape[1:])


# Names that a part of a network cannot have, because a module already has an attribute of that name.
_TAKEN = frozenset(dir(fx.GraphModule({}, fx.Graph())))


@dataclass(frozen=True)
class Building:
    """The fx graph so far, and its layers and constants by path."""

    graph: fx.Graph = field(default_factory=fx.Graph)
    parts: dict[str, nn.Module | Tensor] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32  # the precision of the network
    opset: int = 13  # the version of the operators in the file

    def input(self, shape: Shape) -> TracedValue:
        return TracedValue(self.graph.placeholder("x"), torch.zeros(2, *shape, dtype=self.dtype))

    def layer(self, path: str, module: nn.Module, x: TracedValue) -> TracedValue:
        """The output of a layer. Sets the layer to eval mode."""
        path = self._free(path)
        self.parts[path] = module.eval()
        return TracedValue(self.graph.call_module(path, (x.node,)), module(x.example))

    def call(self, function: Callable[..., Any], *args: Any) -> TracedValue:
        """The output of a function; its arguments may contain values at any place."""
        nodes = fx.node.map_aggregate(args, lambda a: a.node if isinstance(a, TracedValue) else a)
        examples = fx.node.map_aggregate(args, lambda a: a.example if isinstance(a, TracedValue) else a)
        return TracedValue(self.graph.call_function(function, nodes), function(*examples))

    def again(self, path: str, x: TracedValue) -> TracedValue:
        """The output of a layer that is already there."""
        module = self.parts[path]
        assert isinstance(module, nn.Module)
        return TracedValue(self.graph.call_module(path, (x.node,)), module(x.example))

    def method(self, name: str, x: TracedValue, *args: Any) -> TracedValue:
        """The output of a method of a tensor."""
        result = getattr(x.example, name)(*args)
        return replace(x, node=self.graph.call_method(name, (x.node, *args)), example=result)

    def floating(self, x: TracedValue) -> TracedValue:
        """Whole numbers and truth values as numbers in the precision of the network."""
        if x.example.is_floating_point():
            return x
        first = next(iter(self.graph.nodes))
        return replace(x, node=self.graph.call_method("type_as", (x.node, first)), example=x.example.to(self.dtype))

    def buffer(self, path: str, constant: Tensor) -> TracedValue:
        """A constant as an argument of a function; it is the same for all samples of a batch."""
        path = self._free(path)
        self.parts[path] = constant
        return TracedValue(self.graph.get_attr(path), constant)

    def finish(self, x: TracedValue, output: TracedValue) -> OnnxNetwork:
        self.graph.output(output.node)
        network = OnnxNetwork(nn.Module(), fx.Graph(), "OnnxNetwork")
        for path, part in self.parts.items():
            if isinstance(part, nn.Module):
                network.add_submodule(path, part)
            else:
                network.register_buffer(path, part)
        network.graph = self.graph
        network.graph.eliminate_dead_code()
        network.delete_all_unused_submodules()
        network.recompile()
        network.meta.update(input_shape=tuple(x.example.shape[1:]), output_shape=tuple(output.example.shape[1:]))
        return network.eval()

    def _free(self, path: str) -> str:
        """This path, with a number if a part has this path already, or lies above or below it."""
        path = ".".join(f"{name}_" if name in _TAKEN else name for name in path.split("."))
        free, count = path, 1
        while any(f"{other}.".startswith(f"{free}.") or free.startswith(f"{other}.") for other in self.parts):
            count += 1
            free = f"{path}_{count}"
        return free


@dataclass(frozen=True)
class Operator:
    """One node of an ONNX graph: its inputs and attributes, and methods that build its layer or function."""

    proto: onnx.NodeProto
    inputs: Sequence[TracedValue | Array | None]  # None: an optional input that is missing
    building: Building

    @property
    def kind(self) -> str:
        kind: str = self.proto.op_type
        return kind

    def error(self, message: str) -> OnnxError:
        return OnnxError(f"node '{self.proto.name or self.proto.output[0]}' ({self.kind}): {message}")

    def across(self, message: str) -> BatchError:
        """The error for an operator that takes the batch as an ordinary axis."""
        return BatchError(str(self.error(message)))

    # ------------------------------------------------------------------------------------ inputs, attributes

    def attribute(self, name: str, default: Any = None) -> Any:
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def argument(self, index: int) -> TracedValue | Array | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def value(self, index: int = 0) -> TracedValue:
        value = self.argument(index)
        if not isinstance(value, TracedValue):
            raise self.error(f"its input {index} must depend on the input of the network, it is a constant")
        return value

    def constant(self, index: int) -> Array | None:
        constant = self.argument(index)
        if isinstance(constant, TracedValue):
            raise self.error(f"its input {index} must be a constant, it depends on the input of the network")
        return constant

    def setting(self, name: str, index: int) -> Any:
        """An attribute of older opsets that is a constant input in newer ones, as numbers; None if it is not set."""
        constant = self.constant(index)
        return self.attribute(name) if constant is None else constant.tolist()

    def weight(self, index: int) -> Tensor:
        """A constant input as a tensor of weights, in the precision of the network.

        Only sums and choices may have entries of -inf: masks before a softmax.
        """
        constant = self.constant(index)
        if constant is None:
            raise self.error(f"its input {index} is missing")
        if str(constant.dtype) not in FLOATS:
            raise self.error(f"its input {index} holds {constant.dtype}: convert the network to float32")
        weight = torch.tensor(np.asarray(constant, dtype=np.float64)).to(self.building.dtype)
        is_damaged = weight.isnan() | weight.isposinf() | (weight.isneginf() & (self.kind not in ("Add", "Where")))
        if bool(is_damaged.any()):
            raise self.error(f"its input {index} holds NaN or infinite values: the file is damaged")
        return weight

    def operands(self) -> list[TracedValue]:
        """All inputs of an operator that broadcasts: values with the same number of axes, and constants as buffers."""
        ranks = {len(operand.shape) for operand in self.inputs if isinstance(operand, TracedValue)}
        if len(ranks) != 1:
            raise self.across(
                "it broadcasts samples of different shapes across the batch: give all the same number of axes"
            )
        (rank,) = ranks
        return [self._operand(index, rank) for index in range(len(self.inputs))]

    def _operand(self, index: int, rank: int) -> TracedValue:
        if isinstance(value := self.argument(index), TracedValue):
            return value
        constant = self._number(index)
        if constant.dim() > rank:
            raise self.across(f"a constant of shape {tuple(constant.shape)} has more axes than the value")
        if constant.dim() == rank and len(constant) != 1:
            raise self.error(
                f"a constant of shape {tuple(constant.shape)} differs within a batch: its first size must be 1"
            )
        return self.buffer(index, constant[0] if constant.dim() == rank else constant)

    def _number(self, index: int) -> Tensor:
        """A constant operand: whole numbers and truth values stay as they are next to a value of that kind."""
        constant, kinds = self.constant(index), {x.example.dtype for x in self.inputs if isinstance(x, TracedValue)}
        if constant is not None and constant.dtype.kind == "b":
            return torch.tensor(np.asarray(constant))
        if constant is None or constant.dtype.kind not in "iu" or any(kind.is_floating_point for kind in kinds):
            return self.weight(index)
        return torch.tensor(np.asarray(constant, dtype=np.int64))

    @property
    def softmax_axis(self) -> int:
        """The axis of a softmax that names none."""
        return -1 if self.building.opset >= 13 else 1

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front. Raises OnnxError for the batch axis."""
        if not -rank <= axis < rank:
            raise self.error(f"axis {axis} does not exist in a tensor of {rank} axes")
        if axis % rank == 0:
            raise self.across("it acts across the batch (axis 0): a network must treat each sample on its own")
        return axis % rank

    # ------------------------------------------------------------------------------------- layers, functions

    @property
    def path(self) -> str:
        """The path of its layer: "conv1" if its weights are "conv1.weight", like in the module that was exported."""
        for name in self.proto.input:
            if re.fullmatch(r"(\w+\.)+weight", name):
                return str(name.removesuffix(".weight"))
        return _clean(self.proto.name or self.proto.output[0])

    def layer(self, module: nn.Module, x: TracedValue) -> TracedValue:
        return self.building.layer(self.path, module, x)

    def call(self, function: Callable[..., Any], *args: Any) -> TracedValue:
        return self.building.call(function, *args)

    def at(self, x: TracedValue, axis: int, entries: slice | int | list[int]) -> TracedValue:
        """Some entries along an axis."""
        return self.call(operator.getitem, x, (slice(None),) * axis + (entries,))

    def buffer(self, index: int, constant: Tensor) -> TracedValue:
        return self.building.buffer(_clean(self.proto.input[index]), constant)


def _clean(name: str) -> str:
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "unnamed"

"""A network as data, and the walks over it, forward and backward. This file does not depend on bounds."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from ctbench.graph.ops import Conv2d, Input, Op, Scale, ScaledConv2d, Shape, UnsupportedLayerError

State = TypeVar("State")


class Summable(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


Carried = TypeVar("Carried", bound=Summable)  # what a backward walk carries, e.g. a linear form


@dataclass(frozen=True)
class Node:
    name: str  # the path of its layer in the module, e.g. "3" or "layers.block1.conv"
    op: Op
    inputs: tuple[int, ...]  # positions of its inputs in the graph
    shape: Shape  # the shape of its output, without the batch


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order: the first node is the input, the last node the output.

    Bounds of an `outward` graph hold in exact arithmetic: each step is rounded outward by more than its error.
    """

    nodes: tuple[Node, ...]
    outward: bool = field(default=False, kw_only=True)  # only for a frozen graph in double precision
    open: bool = field(
        default=False, kw_only=True
    )  # whether its numbers take the precision and the device of the inputs for which it is frozen
    # makes the graph anew, with constants of what the parameters are now; None if no constant depends on them
    again: Callable[[], Graph] | None = field(default=None, kw_only=True, compare=False, repr=False)
    rounded: str = field(default="", kw_only=True, compare=False)  # where torch rounded constants that it computed

    @property
    def input_shape(self) -> Shape:
        return self.nodes[0].shape

    def readers(self, at: int) -> list[int]:
        """The positions of the nodes that read node `at`."""
        return [reader for reader, node in enumerate(self.nodes) if at in node.inputs]

    @property
    def classes(self) -> int:
        return self.nodes[-1].shape[-1]

    def __call__(self, x: Tensor) -> Tensor:
        """The output for inputs [B, *input_shape]."""

        def evaluate(node: Node, *values: Tensor) -> Tensor:
            return node.op(*values)

        return walk_forward(self, evaluate, x)[-1]

    def map(self, change: Callable[[Tensor], Tensor]) -> Graph:
        """The same (frozen) graph with `change` applied to each tensor."""
        return replace(self, nodes=tuple(replace(node, op=node.op.map(change)) for node in self.nodes))

    def to(self, dtype: torch.dtype) -> Graph:
        """The same (frozen) graph in another precision."""
        changed = self.map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
        return changed if dtype == torch.float64 else changed.rounded_outward(False)

    def rounded_outward(self, outward: bool = True) -> Graph:
        """The same graph, with bounds that are rounded outward or not.

        Raises:
            UnsupportedLayerError: constants are not exact, so no bounds hold in exact arithmetic.
        """
        if outward and self.rounded:
            raise UnsupportedLayerError(
                f"{self.rounded} computes with parameters alone, and torch rounds the result: bounds would "
                f"not hold in the exact arithmetic of stored weights; compute it once, store it as a parameter or a "
                f"buffer, and use that in the forward"
            )
        return replace(self, outward=outward)

    def detach(self) -> Graph:
        """The same (frozen) graph, detached from the parameters."""
        return self.map(torch.Tensor.detach)

    def digest(self) -> str:
        """A SHA-256 of a frozen graph: its ops, their tensors and their connections."""
        digest = hashlib.sha256()
        for node in self.nodes:
            content: list[object] = [type(node.op).__name__, node.inputs, node.shape]
            for part in fields(node.op):  # type: ignore[arg-type]
                value = getattr(node.op, part.name)
                if isinstance(value, Tensor):
                    content += [part.name, tuple(value.shape), value.dtype]
                    digest.update(value.detach().cpu().contiguous().numpy().tobytes())
                else:
                    content += [part.name, value]
            digest.update(repr(content).encode())
        return digest.hexdigest()


def walk_forward(graph: Graph, rule: Callable[..., State], start: State) -> list[State]:
    """A state for each node: `start` at the input, then rule(node, *states of its inputs)."""
    states = [start]
    for node in graph.nodes[1:]:
        states.append(rule(node, *(states[i] for i in node.inputs)))
    return states


BackwardRule = Callable[[int, Node, Carried], tuple[Carried | None, ...]]


def walk_backward(graph: Graph, rule: BackwardRule[Carried], form: Carried, at: int = -1) -> Carried:
    """Carry a form from node `at` back to the input.

    rule(at, node, form) gives the share of each input of the node at position `at`; shares of one node add up. An
    input without a share has None.
    """
    *_, last = backward_steps(graph, rule, form, at)
    return last[0]


def backward_steps(
    graph: Graph, rule: BackwardRule[Carried], form: Carried, at: int = -1
) -> Iterator[dict[int, Carried]]:
    """The walk step by step: the forms by the positions that they have reached, before each node and at the input.

    The node at the largest position is processed next. A yielded dictionary changes when the next one is requested.
    """
    forms = {range(len(graph.nodes))[at]: form}
    while (at := max(forms)) > 0:
        yield forms
        node = graph.nodes[at]
        for source, share in zip(node.inputs, rule(at, node, forms.pop(at)), strict=True):
            if share is not None:
                forms[source] = forms[source] + share if source in forms else share
    yield forms


def split(graph: Graph, at: int) -> tuple[Graph, Graph]:
    """Cut a graph after node `at`: back(front(x)) is the output of the graph, and node `at` is the input of the back.

    Raises:
        ValueError: a branch bypasses the cut; or the graph is not frozen, and computes constants from parameters.
    """
    if graph.again is not None:
        raise ValueError("this graph computes constants from parameters when it is frozen: call freeze(graph, x) first")
    at = range(len(graph.nodes))[at]
    cut, later = graph.nodes[at], graph.nodes[at + 1 :]
    for node in later:
        if min(node.inputs) < at:
            passed = graph.nodes[min(node.inputs)]
            raise ValueError(
                f"the network cannot be cut after {cut.name!r}: {node.name!r} also reads {passed.name!r}, which lies "
                f"before the cut; cut where no branch bypasses the cut"
            )
    shifted = (replace(node, inputs=tuple(i - at for i in node.inputs)) for node in later)
    front, back = graph.nodes[: at + 1], (Node(cut.name, Input(), (), cut.shape), *shifted)
    return replace(graph, nodes=front), replace(graph, nodes=back)


def place_of_cut(graph: Graph, relus: int) -> int:
    """The first node that all branches pass through with `relus` consecutive activations after it.

    Raises:
        ValueError: there is no such node; the message gives the numbers for which there is one.
    """
    nodes = graph.nodes
    after, furthest = [0] * len(nodes), len(nodes)
    places = dict[int, int]()
    for at in reversed(range(len(nodes))):
        if furthest >= at:  # no later node reads an earlier one
            places[after[at]] = at
        for source in nodes[at].inputs:
            after[source] = max(after[source], after[at] + nodes[at].op.relaxed)
            furthest = min(furthest, source)
    if relus not in places:
        raise ValueError(
            f"classifier_relus is {relus}: this network can be cut with {', '.join(map(str, sorted(places)))} "
            f"activations after the cut; at other numbers a branch bypasses the cut or there is no activation"
        )
    return places[relus]


def freeze(graph: Graph, x: Tensor, *, training: bool = False) -> tuple[Graph, Tensor]:
    """The clean pass: a graph that no longer depends on the batch, and the logits of x.

    Every batch norm becomes the affine map that its statistics define, so that the attack, the bounds and the loss of a
    step use the same map. With `training` these are the statistics of x (with gradients; the running statistics are
    updated once), otherwise the running statistics. The train or eval mode of the module has no effect. Statistics are
    computed in float32 if autocast has converted the values to half precision. The numbers of a network without tensors
    get the precision of x. Constants that the forward computes from parameters are computed again, with gradients.

    Raises:
        ValueError: x does not have the input shape of the graph.
    """
    if tuple(x.shape[1:]) != graph.input_shape:
        raise ValueError(f"the network takes inputs of shape {graph.input_shape}, these have {tuple(x.shape[1:])}")
    graph = graph if graph.again is None else graph.again()
    nodes, values = [graph.nodes[0]], [x]
    for node in graph.nodes[1:]:
        inputs = [values[i] for i in node.inputs]
        # a mean in half precision has a relative error of 1/256, and cannot update running statistics in float32
        exact = (value.to(torch.promote_types(value.dtype, torch.float32)) for value in inputs)
        try:
            op = node.op.freeze(*exact, training=training)
        except ValueError as error:
            raise ValueError(f"layer '{node.name}': {error}") from None
        op = converted(op, x) if graph.open else op
        nodes.append(replace(node, op=op))
        values.append(op(*inputs))
    return Graph(tuple(nodes), rounded=graph.rounded), values[-1]


def converted(op: Op, like: Tensor) -> Op:
    """An op with its tensors on the device of `like`, and its numbers in the precision of `like`."""
    return op.map(lambda tensor: tensor.to(like) if tensor.is_floating_point() else tensor.to(like.device))


def folded(graph: Graph, batch: int) -> Graph:
    """The same frozen graph, for passes of `batch` samples, with the scale after a convolution folded into its weights.

    This saves a pass over the values. It is done if only the scale reads the convolution, and if there are fewer
    weights than values. It is not for verification: the rounding would be that of other weights.
    """
    readers, nodes = Counter(i for node in graph.nodes for i in node.inputs), dict[int, Node]()
    for at, node in enumerate(graph.nodes):
        source = node.inputs[0] if node.inputs else at
        before, op = graph.nodes[source], node.op
        if (
            isinstance(op, Scale)
            and isinstance(before.op, Conv2d)
            and op.weight.shape == (len(before.op.weight), 1, 1)
            and readers[source] == 1
            and before.op.weight.numel() < batch * math.prod(before.shape)
        ):
            del nodes[source]
            node = replace(node, op=ScaledConv2d.of(before.op, op), inputs=before.inputs)
        nodes[at] = node
    place = {at: number for number, at in enumerate(nodes)}
    return Graph(tuple(replace(node, inputs=tuple(place[i] for i in node.inputs)) for node in nodes.values()))

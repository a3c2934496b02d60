"""A network as data, and the two walks over it. Knows nothing of bounds."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from ctbench.graph.ops import Conv2d, Input, Op, Scale, ScaledConv2d, Shape

State = TypeVar("State")


class Summable(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


Form = TypeVar("Form", bound=Summable)


@dataclass(frozen=True)
class Node:
    name: str  # the path of its layer in the module, as "3" or "layers.block1.conv"
    op: Op
    inputs: tuple[int, ...]  # positions of its inputs in the graph
    shape: Shape  # of its output, without the batch


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which inputs come first: the first is the input, the last the output.

    Bounds of an `outward` graph hold in exact arithmetic: each step is rounded outward by more than its own error.
    """

    nodes: tuple[Node, ...]
    outward: bool = field(default=False, kw_only=True)  # only for a frozen graph in double precision
    open: bool = field(
        default=False, kw_only=True
    )  # whether its numbers take the precision and the device of what it is frozen for

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
        """The same (frozen) graph with each of its tensors changed."""
        return replace(self, nodes=tuple(replace(node, op=node.op.map(change)) for node in self.nodes))

    def to(self, dtype: torch.dtype) -> Graph:
        """The same (frozen) graph in another precision."""
        changed = self.map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
        return changed if dtype == torch.float64 else changed.rounded_outward(False)

    def rounded_outward(self, outward: bool = True) -> Graph:
        """The same graph, whose bounds are or are not rounded outward."""
        return replace(self, outward=outward)

    def detach(self) -> Graph:
        """The same (frozen) graph, through which no gradient reaches a parameter."""
        return self.map(torch.Tensor.detach)

    def digest(self) -> str:
        """A SHA-256 of all that a frozen graph computes: its ops, their tensors and how they are joined."""
        found = hashlib.sha256()
        for node in self.nodes:
            told: list[object] = [type(node.op).__name__, node.inputs, node.shape]
            for part in fields(node.op):  # type: ignore[arg-type]
                value = getattr(node.op, part.name)
                if isinstance(value, Tensor):
                    told += [part.name, tuple(value.shape), value.dtype]
                    found.update(value.detach().cpu().contiguous().numpy().tobytes())
                else:
                    told += [part.name, value]
            found.update(repr(told).encode())
        return found.hexdigest()


def walk_forward(graph: Graph, rule: Callable[..., State], start: State) -> list[State]:
    """A state for each node: `start` at the input, then rule(node, *states of its inputs)."""
    states = [start]
    for node in graph.nodes[1:]:
        states.append(rule(node, *(states[i] for i in node.inputs)))
    return states


BackwardRule = Callable[[int, Node, Form], tuple[Form, ...]]


def walk_backward(graph: Graph, rule: BackwardRule[Form], form: Form, at: int = -1) -> Form:
    """Carry a form from node `at` back to the input.

    rule(at, node, form) gives the share of each input of the node at position `at`; shares of one node add up.
    """
    *_, last = backward_steps(graph, rule, form, at)
    return last[0]


def backward_steps(graph: Graph, rule: BackwardRule[Form], form: Form, at: int = -1) -> Iterator[dict[int, Form]]:
    """The walk step by step: the forms by the positions that they have reached, before each node and at the input.

    The last position goes next. The dictionary changes as soon as the next one is asked for.
    """
    forms = {range(len(graph.nodes))[at]: form}
    while (at := max(forms)) > 0:
        yield forms
        node = graph.nodes[at]
        for source, share in zip(node.inputs, rule(at, node, forms.pop(at)), strict=True):
            forms[source] = forms[source] + share if source in forms else share
    yield forms


def split(graph: Graph, at: int) -> tuple[Graph, Graph]:
    """Cut a graph behind node `at`: back(front(x)) is the graph's output, and node `at` the input of the back.

    Raises:
        ValueError: a branch leads past the cut.
    """
    at = range(len(graph.nodes))[at]
    cut, behind = graph.nodes[at], graph.nodes[at + 1 :]
    for node in behind:
        if min(node.inputs) < at:
            passed = graph.nodes[min(node.inputs)]
            raise ValueError(
                f"the network cannot be cut behind {cut.name!r}: {node.name!r} also reads {passed.name!r}, which lies "
                f"before the cut; cut where no branch leads past"
            )
    shifted = (replace(node, inputs=tuple(i - at for i in node.inputs)) for node in behind)
    front, back = graph.nodes[: at + 1], (Node(cut.name, Input(), (), cut.shape), *shifted)
    return replace(graph, nodes=front), replace(graph, nodes=back)


def place_of_cut(graph: Graph, relus: int) -> int:
    """The first node that every branch goes through and that this many activations, one after another, follow.

    Raises:
        ValueError: there is no such node; says for which numbers there is one.
    """
    nodes = graph.nodes
    behind, furthest = [0] * len(nodes), len(nodes)
    places = dict[int, int]()
    for at in reversed(range(len(nodes))):
        if furthest >= at:  # nothing behind reads what lies before
            places[behind[at]] = at
        for source in nodes[at].inputs:
            behind[source] = max(behind[source], behind[at] + nodes[at].op.relaxed)
            furthest = min(furthest, source)
    if relus not in places:
        raise ValueError(
            f"classifier_relus is {relus}: this network can be cut with {', '.join(map(str, sorted(places)))} "
            f"activations behind the cut, elsewhere a branch leads past it or there are none"
        )
    return places[relus]


def freeze(graph: Graph, x: Tensor, *, training: bool = False) -> tuple[Graph, Tensor]:
    """The clean pass: a graph in which nothing depends on the batch any more, and the logits of x.

    Every batch norm becomes the affine map that its statistics make, so that the attack, the bounds and the loss of a
    step all see the same one. With `training` these are the statistics of x (with gradients; the running statistics
    are updated once), otherwise the running statistics. Whether the module was in train or eval mode plays no part.
    Statistics are computed in float32 where autocast has made half precision of the values. The numbers of a network
    that has no tensors of its own get the precision of x.

    Raises:
        ValueError: x does not have the shape that the graph was traced for.
    """
    if tuple(x.shape[1:]) != graph.input_shape:
        raise ValueError(f"the network takes inputs of shape {graph.input_shape}, these have {tuple(x.shape[1:])}")
    nodes, values = [graph.nodes[0]], [x]
    for node in graph.nodes[1:]:
        inputs = [values[i] for i in node.inputs]
        # a mean in half precision is off by 1/256 of itself, and cannot be taken into running statistics in float32
        exact = (value.to(torch.promote_types(value.dtype, torch.float32)) for value in inputs)
        op = node.op.freeze(*exact, training=training)
        op = placed(op, x) if graph.open else op
        nodes.append(replace(node, op=op))
        values.append(op(*inputs))
    return Graph(tuple(nodes)), values[-1]


def placed(op: Op, like: Tensor) -> Op:
    """An op with its tensors on the device, and its numbers in the precision, of another tensor."""
    return op.map(lambda tensor: tensor.to(like) if tensor.is_floating_point() else tensor.to(like.device))


def folded(graph: Graph, batch: int) -> Graph:
    """The same frozen graph, for passes of so many samples, with the scale behind a convolution as part of its weights.

    That saves a pass over the values, where nothing else reads what is scaled, and the weights are fewer. It is not
    for verification: rounding would be that of other weights.
    """
    readers, kept = Counter(i for node in graph.nodes for i in node.inputs), dict[int, Node]()
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
            del kept[source]
            node = replace(node, op=ScaledConv2d.of(before.op, op), inputs=before.inputs)
        kept[at] = node
    place = {at: number for number, at in enumerate(kept)}
    return Graph(tuple(replace(node, inputs=tuple(place[i] for i in node.inputs)) for node in kept.values()))

"""Maxima as ReLUs, which branch and bound can split.

    max(a, b)  =  b + max(0, a - b)

holds exactly. A maximum of n entries becomes log2(n) such steps, each of the first half of the entries with the second
half. To split the ReLU at 0 is to split the region where a is the greater entry from the region where b is, so a search
ends when it is known everywhere which entry is the greatest. Bounds of a - b use what both entries have in common, and
the free slope of the ReLU makes any mean of both entries a lower bound.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from torch import Tensor

from ctbench.graph import Graph, Node
from ctbench.graph.graph import converted
from ctbench.graph.ops import Add, AlongAxis, Max, Op, ReLU, Reshape, Shape, rearrangement
from ctbench.graph.ops.along import Weights
from ctbench.verify.problem import Problem


def without_maxima(problem: Problem) -> Problem:
    """The problem, in both precisions, about the same function without a node that is a maximum."""
    if not any(isinstance(node.op, Max) for node in problem.net.nodes):
        return problem
    double = None if problem.double is None else without_maxima(problem.double)
    return replace(problem, net=as_relus(problem.net, problem.x), double=double)


def as_relus(graph: Graph, like: Tensor) -> Graph:
    """A frozen graph with ReLUs in place of maxima, in the precision and on the device of `like`."""
    nodes, place = list[Node](), dict[int, int]()
    for at, node in enumerate(graph.nodes):
        inputs = tuple(place[i] for i in node.inputs)
        if isinstance(node.op, Max):
            _append_tree(nodes, node.name, inputs[0], like)
        else:
            nodes.append(replace(node, inputs=inputs))
        place[at] = len(nodes) - 1
    return replace(graph, nodes=tuple(nodes))


def _append_tree(nodes: list[Node], name: str, entries: int, like: Tensor) -> None:
    """Append the nodes of the maximum over the first axis of a node [n, *shape]."""

    def append(op: Op, *inputs: int) -> int:
        shape = op.shape(*(nodes[i].shape for i in inputs))
        nodes.append(Node(name, converted(op, like), inputs, shape))
        return len(nodes) - 1

    at = entries
    while (count := nodes[at].shape[0]) > 1:
        seconds = append(_from(count // 2, nodes[at].shape), at)
        excess = append(ReLU(), append(AlongAxis.of(_differences(count), count, 0), at))
        at = append(Add(), seconds, excess)
    append(Reshape(nodes[at].shape, nodes[at].shape[1:]), at)


def _from(start: int, shape: Shape) -> Op:
    """The entries from a place on."""
    (op,) = rearrangement(lambda x: x[:, start:], shape)
    return op


def _differences(count: int) -> Weights:
    """Of the first half of the entries and the second one; an odd entry in the end is compared with none."""
    half = count // 2
    rows = [{i: Fraction(1), half + i: Fraction(-1)} for i in range(half)]
    return [*rows, *({} for _ in range(count % 2))]

"""CROWN: linear bounds carried backward. Zhang et al. 2018, "Efficient neural network robustness certification".

A lower bound <a, z> + c of the specification goes from the output to the input, where its minimum is known:

    affine        a' = W^T a,                                    c' = c + <a, b>
    elementwise   a' = a+ s_low + a- s_up  (s, t the lines),     c' = c + <a+, t_low> + <a-, t_up>
    input         min over the region of <a, x>, plus c

The lines need bounds of the pre-activations (`inner`). By default these are CROWN's own, layer by layer; with
`inner=interval.boxes(graph, region)` this is CROWN-IBP (Zhang et al. 2020).
"""

from __future__ import annotations

import math
from functools import singledispatch

import torch
from torch import Tensor

from ctbench.domains import interval
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.relaxations import SlopeRule, adaptive
from ctbench.domains.unsupported import no_rule
from ctbench.domains.window_form import WindowForm
from ctbench.graph import Affine, Elementwise, Graph, Lines, Node, Op, walk_backward
from ctbench.graph.ops import Add, Shape
from ctbench.regions import Box, Region

DEFAULT_MEMORY = 2**27


def lower_bounds(
    graph: Graph,
    region: Region,
    spec: Tensor,
    *,
    inner: list[Box] | None = None,
    slope: SlopeRule = adaptive,
) -> Tensor:
    """Lower bounds of S linear forms of the output over the region.

    Args:
        graph: a frozen graph.
        region: the inputs, for B samples.
        spec: the forms, [B, S, *output].
        inner: sound boxes of all nodes; None computes CROWN's own.
        slope: the rule of the free slopes.

    Returns:
        The bounds, [B, S].
    """
    inner = boxes(graph, region, slope=slope) if inner is None else inner
    lines = {node: _lines(node, inner, slope) for node in graph.nodes if isinstance(node.op, Elementwise)}
    return _back_to_input(graph, region, LinearForm(spec, 0.0), lines)


def boxes(
    graph: Graph,
    region: Region,
    *,
    slope: SlopeRule = adaptive,
    pure: bool = False,
    memory: int = DEFAULT_MEMORY,
) -> list[Box]:
    """A box for each node of a frozen graph, those of the pre-activations by backward bounds.

    Neurons that intervals already show to be exact for the relaxation (a stable ReLU) are not bounded again, and the
    others get the better of both bounds. All nodes without a relaxation behind them have interval boxes.

    Args:
        graph: a frozen graph.
        region: the inputs, for B samples.
        slope: the rule of the free slopes.
        pure: bound every neuron backward and do not intersect with intervals, as in the paper.
        memory: bytes that the coefficients of one pass may take; more neurons are bounded in several passes.

    Returns:
        One box a node, [B, *node].
    """
    found, lines = list[Box](), dict[Node, Lines]()
    for at, node in enumerate(graph.nodes):
        box = interval.forward(node, *(found[i] for i in node.inputs)) if at else region.hull
        readers = {n: n.op for n in graph.nodes if isinstance(n.op, Elementwise) and at in n.inputs}
        if readers and not _exact_by_intervals(graph, at, region):
            open_neurons = torch.zeros_like(box.lower, dtype=torch.bool)
            for op in readers.values():
                open_neurons |= ~op.exact(box.lower, box.upper) | pure
            refined = _refine(graph, region, at, open_neurons, lines, memory)
            box = refined if pure else box.intersect(refined)
        found.append(box)
        lines |= {reader: _lines(reader, found, slope) for reader in readers}
    return found


def _lines(node: Node, inner: list[Box], slope: SlopeRule) -> Lines:
    """The relaxation of an elementwise node."""
    assert isinstance(node.op, Elementwise)
    box = inner[node.inputs[0]]
    return node.op.lines(box.lower, box.upper, slope(box.lower, box.upper))


def _exact_by_intervals(graph: Graph, at: int, region: Region) -> bool:
    """Whether intervals are exact for a node: from a box, one affine op that mixes coordinates and any that do not."""
    mixing = 0
    while at != 0:
        op = graph.nodes[at].op
        if not isinstance(op, Affine):
            return False
        mixing += op.mixes
        (at,) = graph.nodes[at].inputs
    return mixing <= 1 and isinstance(region, Box)


def _refine(graph: Graph, region: Region, at: int, neurons: Tensor, lines: dict[Node, Lines], memory: int) -> Box:
    """Backward bounds of some neurons of node `at` ([B, *node] bool); infinite for the others."""
    shape, chosen = neurons.shape[1:], neurons.flatten(1)
    batch, size = chosen.shape
    # each sample's neurons first; samples with fewer than others fill up with the place behind the last neuron
    order = chosen.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    count = chosen.sum(1, keepdim=True)
    most = int(count.max())
    like = region.hull.lower
    lower = like.new_full((batch, size + 1), -math.inf)
    upper = like.new_full((batch, size + 1), math.inf)
    widest = _widest(graph, _neurons(order[:, :1], shape, 1.0, like), lines, at)
    rows = max(1, memory // (4 * batch * widest * like.element_size()))
    for start in range(0, most, rows):
        place = torch.arange(start, min(start + rows, most), device=like.device)
        index = torch.where(place < count, order[:, place], size)
        least, most_negative = (
            _back_to_input(graph, region, _neurons(index, shape, sign, like), lines, at) for sign in (1.0, -1.0)
        )
        lower, upper = lower.scatter(1, index, least), upper.scatter(1, index, -most_negative)
    return Box(lower[:, :size].reshape(neurons.shape), upper[:, :size].reshape(neurons.shape))


def _widest(graph: Graph, form: Form, lines: dict[Node, Lines], at: int) -> int:
    """The most coefficients that a form has on its way back from node `at`."""
    widths = [form.width]

    def rule(node: Node, form: Form) -> tuple[Form, ...]:
        shares = _shares(node.op, form, lines.get(node))
        widths.extend(share.width for share in shares)
        return shares

    walk_backward(graph, rule, form, at)
    return max(widths)


def _neurons(index: Tensor, shape: Shape, sign: float, like: Tensor) -> Form:
    """sign times single neurons of a node: index [B, S] into the flat node, or its size for an empty form."""
    if len(shape) == 3:
        return WindowForm.neurons(index, shape, sign, like)
    size = math.prod(shape)
    rows = like.new_zeros(*index.shape, size + 1).scatter(2, index.unsqueeze(2), sign)[:, :, :size]
    return LinearForm(rows.reshape(*index.shape, *shape), 0.0)


def _back_to_input(graph: Graph, region: Region, form: Form, lines: dict[Node, Lines], at: int = -1) -> Tensor:
    def rule(node: Node, form: Form) -> tuple[Form, ...]:
        return _shares(node.op, form, lines.get(node))

    return walk_backward(graph, rule, form, at).minimum(region)


@singledispatch
def _shares(op: Op, form: Form, lines: Lines | None) -> tuple[Form, ...]:
    raise no_rule("CROWN", op)


@_shares.register
def _(op: Affine, form: Form, lines: Lines | None) -> tuple[Form, ...]:
    return (form.through(op),)


@_shares.register
def _(op: Elementwise, form: Form, lines: Lines | None) -> tuple[Form, ...]:
    assert lines is not None
    return (form.relaxed(lines),)


@_shares.register
def _(op: Add, form: Form, lines: Lines | None) -> tuple[Form, ...]:
    return form, form.without_constant()  # the constant belongs to the sum: count it once

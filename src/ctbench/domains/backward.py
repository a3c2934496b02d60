"""The parts of every backward bound: forms of single neurons, rules that carry a form through an op, and lines.

    form = back_to_input(graph, LinearForm(spec, 0.0), by_lines(all_lines(graph, boxes, adaptive)), losses)
    form.minimum(region)

`back_to_input` carries a form from a node back to the input. Affine ops, sums and concatenations have one rule each.
For an op that is relaxed (`Op.relaxed`), the caller gives lines by the position of its node, or a rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import singledispatch

import torch
from torch import Tensor

from ctbench.domains import rounding
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.relaxations import SlopeRule, adaptive
from ctbench.domains.rounding import Losses
from ctbench.domains.unsupported import no_rule
from ctbench.domains.window_form import WindowForm
from ctbench.graph import Affine, BackwardRule, Elementwise, Graph, Lines, Node, Op, walk_backward
from ctbench.graph.ops import Add, Concat, Max, Planes, Product, Refined, Reshape, Select, Shape
from ctbench.regions import Box, Region

# the position of a relaxed node, the node and a form over it, to a form over each of its inputs
Relax = Callable[[int, Node, Form], tuple[Form, ...]]
Shares = tuple[Form | None, ...]  # a form over each input of a node; None is 0

# ------------------------------------------------------------------------------------------------- the way back


def back_to_input(graph: Graph, form: Form, relax: Relax, losses: Losses | None, at: int = -1) -> Form:
    """The form over the input that bounds a form over node `at`; `relax` carries it through ops that are not affine.

    With the losses of an outward graph, the minimum of the result over the region is a bound in exact arithmetic.
    """
    form = rounding.begun(form, range(len(graph.nodes))[at], losses)
    return rounding.ended(walk_backward(graph, rule(relax, losses), form, at), 0, losses)


def rule(relax: Relax, losses: Losses | None) -> BackwardRule[Form]:
    """The rule of the walk: subtract the rounding error of a step, then take the step."""
    return lambda at, node, form: shares(at, node, rounding.through(form, at, losses), relax)


def shares(at: int, node: Node, form: Form, relax: Relax) -> Shares:
    """The forms over the inputs of a node whose sum is, or bounds, a form over the node."""
    return _shares(node.op, at, node, form, relax)


@singledispatch
def _shares(op: Op, at: int, node: Node, form: Form, relax: Relax) -> Shares:
    raise no_rule("CROWN", op)


@_shares.register
def _(op: Affine, at: int, node: Node, form: Form, relax: Relax) -> Shares:
    return (form.through(op),)


@_shares.register
def _(op: Elementwise | Max | Product, at: int, node: Node, form: Form, relax: Relax) -> Shares:
    return relax(at, node, form)


@_shares.register
def _(op: Add, at: int, node: Node, form: Form, relax: Relax) -> Shares:
    return form, form.without_constant()  # the constant belongs to the sum: count it once


@_shares.register
def _(op: Refined, at: int, node: Node, form: Form, relax: Relax) -> Shares:
    return form, *(None for _ in node.inputs[1:])


@_shares.register
def _(op: Concat, at: int, node: Node, form: Form, relax: Relax) -> Shares:
    form = form.dense()
    first, *others = op.split(form.coefficients)
    return replace(form, coefficients=first), *(replace(form.without_constant(), coefficients=part) for part in others)


# ------------------------------------------------------------------------------------------------------- lines

Relaxed = Lines | Planes  # what lies around an op of one value, or of two


def lines_of(node: Node, boxes: list[Box] | dict[int, Box], slope: SlopeRule) -> Relaxed:
    """The lines of a relaxed node, from the boxes of all nodes (or of all nodes that relaxations read)."""
    box = boxes[node.inputs[0]]
    if isinstance(node.op, Product):
        first, second = (ends(boxes[i]) for i in node.inputs)
        return node.op.planes(first, second, 0.5, 0.5)
    if isinstance(node.op, Max):
        return node.op.lines(box.lower, box.upper)
    assert isinstance(node.op, Elementwise)
    if slope is adaptive:
        return node.op.tightest_lines(box.lower, box.upper)
    least, greatest = node.op.slopes(box.lower, box.upper)
    return node.op.lines(
        box.lower, box.upper, *(each.clamp(least, greatest) for each in slope(node.op, box.lower, box.upper))
    )


def slopes_within(op: Elementwise, box: Box, whole: Box | None) -> tuple[Tensor, Tensor]:
    """The least and the greatest slope over a box.

    If rounding was bounded for a `whole` box around it, these are also slopes over that one: those of a step or of a
    root may be steeper on a part.
    """
    least, greatest = op.slopes(box.lower, box.upper)
    if whole is None:
        return least, greatest
    limits = op.slopes(whole.lower, whole.upper)
    return least.clamp(*limits), greatest.clamp(*limits)


def ends(box: Box) -> tuple[Tensor, Tensor]:
    return box.lower, box.upper


def by_lines(lines: Mapping[int, Relaxed]) -> Relax:
    """Relax each node by its lines."""

    def relax(at: int, node: Node, form: Form) -> tuple[Form, ...]:
        around = lines[at]
        if isinstance(around, Planes):
            return form.relaxed(around.first), form.without_constant().relaxed(around.second)
        return (under_maximum(form, around) if isinstance(node.op, Max) else form.relaxed(around),)

    return relax


def all_lines(graph: Graph, boxes: list[Box] | dict[int, Box], slope: SlopeRule = adaptive) -> dict[int, Relaxed]:
    """The lines of every relaxed node, by its position."""
    return {at: lines_of(node, boxes, slope) for at, node in enumerate(graph.nodes) if node.op.relaxed}


def under_maximum(form: Form, lines: Lines) -> Form:
    """A lower bound of a form over a maximum, as a form over its entries [B, n, *node]."""
    form, (below, _, above, upper_offset) = form.dense(), lines
    positive, negative = form.coefficients.clamp(min=0), form.coefficients.clamp(max=0)
    coefficients = positive.unsqueeze(2) * below.unsqueeze(1) + negative.unsqueeze(2) * above.unsqueeze(1)
    return LinearForm(coefficients, form.constant + (negative * form.view(upper_offset)).flatten(2).sum(2))


# ----------------------------------------------------------------------------------------------------- neurons


def neurons(index: Tensor, shape: Shape, signs: Tensor) -> Form:
    """Each sign [G] times single neurons of a node: index [B, P] into the flat node; its size stands for no neuron."""
    if len(shape) == 3:
        return WindowForm.neurons(index, shape, signs)
    size = math.prod(shape)
    rows = signs.new_zeros(*index.shape, size + 1).scatter(2, index.unsqueeze(2), 1.0)[:, :, :size]
    rows = (signs.view(-1, 1, 1) * rows.unsqueeze(1)).flatten(1, 2)
    return LinearForm(rows.reshape(len(index), rows.shape[1], *shape), 0.0)


def open_neurons(ops: Iterable[Op], box: Box) -> Tensor:
    """The neurons with bounds that matter to one of the ops that read them, [B, *node]: the unstable ones of a ReLU."""
    are_open = torch.zeros_like(box.lower, dtype=torch.bool)
    for op in ops:
        are_open |= ~op.exact(box.lower, box.upper) if isinstance(op, Elementwise) else True
    return are_open


def source(graph: Graph, at: int) -> int:
    """The node whose entries node `at` repeats or moves: itself, unless it only moves entries."""
    while isinstance(graph.nodes[at].op, Reshape | Select):
        (at,) = graph.nodes[at].inputs
    return at


def relaxed_readers(graph: Graph) -> dict[int, list[Op]]:
    """The relaxed ops that need bounds of each node, by its position.

    Products read entries that are often repeated, so bounds of a factor are bounds of the node that it comes from.
    """
    readers = dict[int, list[Op]]()
    for node in graph.nodes:
        for place in dict.fromkeys(node.inputs) if node.op.relaxed else ():
            at = source(graph, place) if isinstance(node.op, Product) else place
            readers.setdefault(at, []).append(node.op)
    return readers


def exact_by_intervals(graph: Graph, at: int, region: Region) -> bool:
    """Whether intervals are exact for a node: from a box, only affine ops, of which at most one mixes coordinates."""
    mixing = 0
    while at != 0:
        op = graph.nodes[at].op
        if not isinstance(op, Affine):
            return False
        mixing += op.mixes
        (at,) = graph.nodes[at].inputs
    return mixing <= 1 and isinstance(region, Box)


def positions(chosen: Tensor) -> Tensor:
    """The indices of the chosen neurons, [B, size] bool to [B, most]; shorter rows are padded with `size`, for none."""
    order = chosen.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    count = chosen.sum(1, keepdim=True)
    most = int(count.max())
    return torch.where(torch.arange(most, device=chosen.device) < count, order[:, :most], chosen.shape[1])


def scattered(index: Tensor, least: Tensor, greatest: Tensor, shape: Shape) -> Box:
    """A box of this shape, [B, *node], from bounds of the neurons `index` [B, S]; infinite for the others."""
    size = math.prod(shape[1:])
    lower = least.new_full((shape[0], size + 1), -math.inf)
    upper = (-lower).scatter(1, index, greatest)
    lower = lower.scatter(1, index, least)
    return Box(lower[:, :size].reshape(shape), upper[:, :size].reshape(shape))

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
from dataclasses import replace
from functools import singledispatch

import torch
from torch import Tensor

from ctbench.domains import interval
from ctbench.domains.linear_form import LinearForm
from ctbench.domains.relaxations import SlopeRule, adaptive
from ctbench.domains.unsupported import no_rule
from ctbench.graph import Affine, Elementwise, Graph, Node, Op, walk_backward
from ctbench.graph.ops import Add, Reshape, Scale
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
    return _back_to_input(graph, region, spec, inner, slope)


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
    found = [region.hull]
    for at, node in enumerate(graph.nodes[1:], start=1):
        box = interval.forward(node, *(found[i] for i in node.inputs))
        relaxed = [n.op for n in graph.nodes if isinstance(n.op, Elementwise) and at in n.inputs]
        if relaxed and not _exact_by_intervals(graph, at, region):
            open_neurons = torch.zeros_like(box.lower, dtype=torch.bool)
            for op in relaxed:
                open_neurons |= ~op.exact(box.lower, box.upper) | pure
            refined = _refine(graph, region, at, open_neurons, found, slope, memory)
            box = refined if pure else box.intersect(refined)
        found.append(box)
    return found


def _exact_by_intervals(graph: Graph, at: int, region: Region) -> bool:
    """Whether intervals are exact for a node: from a box, one affine op that mixes coordinates and any that do not."""
    mixing = 0
    while at != 0:
        op = graph.nodes[at].op
        if not isinstance(op, Affine):
            return False
        mixing += not isinstance(op, Scale | Reshape)
        (at,) = graph.nodes[at].inputs
    return mixing <= 1 and isinstance(region, Box)


def _refine(
    graph: Graph, region: Region, at: int, neurons: Tensor, inner: list[Box], slope: SlopeRule, memory: int
) -> Box:
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
    widest = max(math.prod(node.shape) for node in graph.nodes[: at + 1])
    rows = max(1, memory // (4 * batch * widest * like.element_size()))
    for start in range(0, most, rows):
        place = torch.arange(start, min(start + rows, most), device=like.device)
        index = torch.where(place < count, order[:, place], size)
        spec = like.new_zeros(batch, len(place), size + 1).scatter(2, index.unsqueeze(2), 1.0)
        spec = spec[:, :, :size].reshape(batch, len(place), *shape)
        lower = lower.scatter(1, index, _back_to_input(graph, region, spec, inner, slope, at))
        upper = upper.scatter(1, index, -_back_to_input(graph, region, -spec, inner, slope, at))
    return Box(lower[:, :size].reshape(neurons.shape), upper[:, :size].reshape(neurons.shape))


def _back_to_input(
    graph: Graph, region: Region, spec: Tensor, inner: list[Box], slope: SlopeRule, at: int = -1
) -> Tensor:
    def rule(node: Node, form: LinearForm) -> tuple[LinearForm, ...]:
        return _shares(node.op, form, [inner[i] for i in node.inputs], slope)

    return walk_backward(graph, rule, LinearForm(spec, 0.0), at).minimum(region)


@singledispatch
def _shares(op: Op, form: LinearForm, inputs: list[Box], slope: SlopeRule) -> tuple[LinearForm, ...]:
    raise no_rule("CROWN", op)


@_shares.register
def _(op: Affine, form: LinearForm, inputs: list[Box], slope: SlopeRule) -> tuple[LinearForm, ...]:
    return (form.through(op),)


@_shares.register
def _(op: Elementwise, form: LinearForm, inputs: list[Box], slope: SlopeRule) -> tuple[LinearForm, ...]:
    (box,) = inputs
    lines = op.lines(box.lower, box.upper, slope(box.lower, box.upper))
    positive, negative = form.coefficients.clamp(min=0), form.coefficients.clamp(max=0)
    coefficients = positive * lines.lower_slope.unsqueeze(1)
    coefficients = torch.addcmul(coefficients, negative, lines.upper_slope.unsqueeze(1))
    offset = _inner_product(positive, lines.lower_offset) + _inner_product(negative, lines.upper_offset)
    return (LinearForm(coefficients, form.constant + offset),)


def _inner_product(a: Tensor, offset: Tensor) -> Tensor:
    """<a, offset>: [B, S, *node] and [B, *node] to [B, S]."""
    return (a.flatten(2) @ offset.flatten(1).unsqueeze(-1)).squeeze(-1)


@_shares.register
def _(op: Add, form: LinearForm, inputs: list[Box], slope: SlopeRule) -> tuple[LinearForm, ...]:
    return form, replace(form, constant=0.0)  # the constant belongs to the sum: count it once

"""CROWN: linear bounds carried backward. Zhang et al. 2018, "Efficient neural network robustness certification".

A lower bound <a, z> + c of the specification goes from the output to the input, where its minimum is known:

    affine        a' = W^T a,                                    c' = c + <a, b>
    elementwise   a' = a+ s_low + a- s_up  (s, t the lines),     c' = c + <a+, t_low> + <a-, t_up>
    maximum       as elementwise, with planes over the entries that it is taken of
    input         min over the region of <a, x>, plus c

The lines need bounds of the pre-activations (`inner`). By default these are CROWN's own, layer by layer; with
`inner=interval.boxes(graph, region)` this is CROWN-IBP (Zhang et al. 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from ctbench import budget, deadline
from ctbench.domains import interval, rounding
from ctbench.domains.backward import (
    Relax,
    all_lines,
    back_to_input,
    by_lines,
    exact_by_intervals,
    lines_of,
    neurons,
    open_neurons,
    positions,
    rule,
    scattered,
    shares,
)
from ctbench.domains.base import Domain
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.relaxations import SlopeRule, adaptive, check_rule, parallel, rule_name
from ctbench.domains.rounding import Loss, Losses
from ctbench.domains.window_form import WindowForm
from ctbench.graph import Graph, Lines, Node, backward_steps, walk_backward
from ctbench.graph.ops import Max
from ctbench.regions import Ball, Box, L2Ball, Region

DEFAULT_MEMORY = budget.DEFAULT  # also elsewhere than on a CPU: what a run computes must not depend on free memory
LIVE_COPIES = 10  # of the coefficients, while a form goes through a layer
MOST_BOUNDED = 1 / 4  # of a node's neurons: from here on all are bounded, as windows at the same places cost less each


@dataclass(frozen=True, kw_only=True)
class Crown(Domain):
    """CROWN: the pre-activations of every layer are bounded backward (Zhang et al. 2018).

    Args:
        slope: the rule of the free slopes, e.g. `ctbench.domains.relaxations.parallel`.

    Raises:
        ValueError: slope is not a rule.
    """

    name: ClassVar[str] = "crown"
    slope: SlopeRule = adaptive

    def __post_init__(self) -> None:
        check_rule(self.slope)

    def __repr__(self) -> str:
        return f"Crown(slope={rule_name(self.slope)})"

    def footprint(self, graph: Graph, forms: int) -> int:
        return footprint(graph, forms)

    def boxes(self, graph: Graph, region: Region, *, memory: int = budget.DEFAULT) -> list[Box]:
        return boxes(graph, region, slope=self.slope, memory=memory)

    def lower_bounds(
        self,
        graph: Graph,
        region: Region,
        spec: Tensor,
        *,
        inner: list[Box] | None = None,
        memory: int = budget.DEFAULT,
    ) -> Tensor:
        return lower_bounds(graph, region, spec, inner=inner, slope=self.slope, memory=memory)


def footprint(graph: Graph, forms: int) -> int:
    """How many numbers are held at once for a sample: boxes, lines, and the coefficients of the forms on their way."""
    widest = max(math.prod(node.shape) for node in graph.nodes)
    return 2 * interval.footprint(graph, forms) + LIVE_COPIES * forms * widest


def lower_bounds(
    graph: Graph,
    region: Region,
    spec: Tensor,
    *,
    inner: list[Box] | None = None,
    slope: SlopeRule = adaptive,
    losses: Losses | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Tensor:
    """Lower bounds of S linear forms of the output over the region.

    Args:
        graph: a frozen graph.
        region: the inputs, for B samples.
        spec: the forms, [B, S, *output].
        inner: sound boxes of all nodes; None computes CROWN's own.
        slope: the rule of the free slopes.
        losses: what rounding can cost over `inner`, of an outward graph, where that is at hand.
        memory: as in `boxes`.

    Returns:
        The bounds, [B, S].
    """
    if inner is None:
        inner, losses = bounded(graph, region, slope=slope, memory=memory)
    elif losses is None:
        losses = rounding.losses(graph, region, inner)
    return back_to_input(graph, LinearForm(spec, 0.0), by_lines(all_lines(graph, inner, slope)), losses).minimum(region)


def best_lower_bounds(
    graph: Graph,
    region: Region,
    spec: Tensor,
    *,
    inner: list[Box],
    slope: SlopeRule = adaptive,
    losses: Losses | None = None,
) -> Tensor:
    """The best of the lower bounds that forms have at the input and on their way there, [B, S].

    Arguments are as in `lower_bounds`, and so is the bound at the input. Before each relaxation, the forms are bounded
    over the boxes of the nodes that they have come to; where branches are open, the sum of the minima is a bound. With
    interval boxes no other place has a better bound, as only relaxations lose, so it is not below that of intervals.
    """
    places: list[Region] = [region, *inner[1:]]
    losses = rounding.losses(graph, region, inner) if losses is None else losses
    form: Form = LinearForm(spec, 0.0)
    step = rule(by_lines(all_lines(graph, inner, slope)), losses)
    bounds = (
        torch.stack([rounding.ended(part, at, losses).minimum(places[at]) for at, part in forms.items()]).sum(0)
        for forms in backward_steps(graph, step, form)
        if max(forms) == 0 or graph.nodes[max(forms)].op.relaxed
    )
    return reduce(torch.maximum, bounds)


def boxes(
    graph: Graph,
    region: Region,
    *,
    slope: SlopeRule = adaptive,
    pure: bool = False,
    select: bool = True,
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
        select: find out which neurons have to be bounded, for which Python waits for the device. False bounds all, and
            takes the bounds where they count: the boxes are the same, but for rounding.
        memory: bytes that the coefficients of one pass may take, with all that is made of them on the way; more
            neurons are bounded in several passes.

    Returns:
        One box a node, [B, *node].

    Raises:
        OutOfTime: before a pass, where `deadline.until` set a moment that has come.
    """
    return bounded(graph, region, slope=slope, pure=pure, select=select, memory=memory)[0]


def bounded(
    graph: Graph,
    region: Region,
    *,
    slope: SlopeRule = adaptive,
    pure: bool = False,
    select: bool = True,
    memory: int = DEFAULT_MEMORY,
    around: tuple[list[Box], Losses] | None = None,
) -> tuple[list[Box], Losses | None]:
    """The boxes of all nodes, as by `boxes`, and the losses that they were made with, of an outward graph.

    Where these of larger regions are at hand, as `around`, the boxes are parts of those.
    """
    boxes, lines, losses = list[Box](), dict[int, Lines](), list[Loss]()
    # the box around a ball is not where intervals begin: behind the first layer they have the ball's own image
    intervals = interval.boxes(graph, region) if isinstance(region, L2Ball) and not pure else None
    one_slope = slope is parallel and not any(isinstance(node.op, Max) for node in graph.nodes)
    for at, node in enumerate(graph.nodes):
        box = interval.forward(node, *(boxes[i] for i in node.inputs)) if at else region.hull
        if graph.outward:
            losses.append(rounding.loss(graph, at, box, boxes, losses, region) if around is None else around[1][at])
            box = rounding.widened(box, losses[at])
            box = box if around is None else box.intersect(around[0][at])
        box = box if intervals is None else box.intersect(intervals[at])
        readers = [reader for reader in graph.readers(at) if graph.nodes[reader].op.relaxed]
        if readers and not exact_by_intervals(graph, at, region):
            ops = (graph.nodes[reader].op for reader in readers)
            wanted = torch.ones_like(box.lower, dtype=torch.bool) if pure else open_neurons(ops, box)
            select = select and not pure
            if not select or bool(wanted.any()):
                charged = losses if graph.outward else None
                refined = _refine(graph, region, at, wanted, lines, charged, memory, one_slope=one_slope, select=select)
                box = refined if pure else box.intersect(refined)
        boxes.append(box)
        lines |= {reader: lines_of(graph.nodes[reader], boxes, slope) for reader in readers}
    return boxes, losses if graph.outward else None


def _refine(
    graph: Graph,
    region: Region,
    at: int,
    wanted: Tensor,
    lines: dict[int, Lines],
    losses: Losses | None,
    memory: int,
    *,
    one_slope: bool,
    select: bool,
) -> Box:
    """Backward bounds of some neurons of node `at` ([B, *node] bool), infinite for the others."""
    shape, chosen, like = wanted.shape[1:], wanted.flatten(1), region.hull.lower
    signs = like.new_ones(1) if one_slope else like.new_tensor([1.0, -1.0])
    relax = by_lines(lines)

    def bound(form: Form) -> tuple[Tensor, Tensor]:
        deadline.check()
        if one_slope:
            form = back_to_input(graph, form.with_upper_constant(), relax, losses, at)
            return form.minimum(region), form.maximum(region)
        least, most_negative = back_to_input(graph, form, relax, losses, at).minimum(region).chunk(2, dim=1)
        return least, -most_negative

    # with nothing relaxed on the way, the coefficients of a neuron are the same for all samples
    shared = not lines and len(shape) == 1
    every = torch.arange(chosen.shape[1], device=like.device).unsqueeze(0)
    index = positions(chosen) if select and not shared else every if shared else every.expand_as(chosen)
    probe = neurons(index[:1, :1], shape, signs)
    # a ball in a data range moves within the room that each sample leaves, so its minimum is made of [B, S, n] numbers
    held = len(chosen) if isinstance(region, Ball) and region.clip is not None else len(index)
    row = LIVE_COPIES * held * len(signs) * _widest(graph, probe, relax, at) * like.element_size()
    rows = max(1, memory // row)
    found = Box(
        torch.full_like(wanted, -math.inf, dtype=like.dtype), torch.full_like(wanted, math.inf, dtype=like.dtype)
    )
    if len(shape) == 3 and index.shape[1] > MOST_BOUNDED * chosen.shape[1]:
        plane = shape[1] * shape[2]
        every = every.view(shape[0], plane)
        for places in torch.arange(plane, device=like.device).split(max(1, rows // shape[0])):
            part = every[:, places].flatten().expand(len(chosen), -1)
            found = found.intersect(scattered(part, *bound(WindowForm.pixels(places, shape, signs)), wanted.shape))
    else:
        for part in index.split(rows, dim=1):
            bounds = bound(neurons(part, shape, signs))
            found = found.intersect(scattered(part.expand(len(chosen), -1), *bounds, wanted.shape))
    # whether the others are bounded, too, is up to the whole batch, and no sample's bounds may be
    return Box(torch.where(wanted, found.lower, -math.inf), torch.where(wanted, found.upper, math.inf))


def _widest(graph: Graph, form: Form, relax: Relax, at: int) -> int:
    """The most coefficients that a form has on its way back from node `at`."""
    widths = [form.width]

    def measured(at: int, node: Node, form: Form) -> tuple[Form, ...]:
        parts = shares(at, node, form, relax)
        widths.extend(part.width for part in parts)
        return parts

    walk_backward(graph, measured, form, at)
    return max(widths)

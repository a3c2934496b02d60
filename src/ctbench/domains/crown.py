"""CROWN: linear bounds carried backward. Zhang et al. 2018, "Efficient neural network robustness certification".

A lower bound <a, z> + c of the specification is carried from the output to the input, where its minimum is known:

    affine        a' = W^T a,                                    c' = c + <a, b>
    elementwise   a' = a+ s_low + a- s_up  (s, t the lines),     c' = c + <a+, t_low> + <a-, t_up>
    maximum       as elementwise, with planes over its entries instead of lines
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

from ctbench import memory_budget, time_budget
from ctbench.domains import interval, rounding
from ctbench.domains.backward import (
    Relax,
    Relaxed,
    Shares,
    all_lines,
    back_to_input,
    by_lines,
    exact_by_intervals,
    lines_of,
    neurons,
    open_neurons,
    positions,
    relaxed_readers,
    rule,
    scattered,
    shares,
)
from ctbench.domains.base import Domain
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.relaxations import SlopeRule, adaptive, check_rule, parallel, rule_name
from ctbench.domains.rounding import Loss, Losses
from ctbench.domains.window_form import WindowForm
from ctbench.graph import Elementwise, Graph, Node, backward_steps, walk_backward
from ctbench.graph.ops import Max
from ctbench.graph.ops.refined import FACTS
from ctbench.regions import Ball, Box, L2Ball, Polytope, Region

LIVE_COPIES = 10  # copies of the coefficients in memory while a form passes through a layer
# if more than this share of a node's neurons need bounds, all are bounded: windows at the same places cost less each
MOST_CHOSEN = 1 / 4


@dataclass(frozen=True, kw_only=True)
class Crown(Domain):
    """CROWN: the pre-activations of every layer are bounded backward (Zhang et al. 2018).

    Neurons for which intervals show that the relaxation is exact (e.g. a stable ReLU) are not bounded again; the other
    neurons get the better of both bounds. Nodes without a relaxation after them have interval boxes.

    Args:
        slope: the rule of the free slopes, e.g. `ctbench.domains.relaxations.parallel`.
        pure: the version of the paper: bound every neuron backward, without intersection with intervals.
        select: choose the neurons that need bounds, for which Python waits for the device. False bounds all neurons and
            uses only the bounds that are needed: the boxes are the same, except for rounding.

    Raises:
        ValueError: slope is not a rule.
    """

    name: ClassVar[str] = "crown"
    slope: SlopeRule = adaptive
    pure: bool = False
    select: bool = True

    def __post_init__(self) -> None:
        check_rule(self.slope)

    def __repr__(self) -> str:
        return f"Crown(slope={rule_name(self.slope)}{', pure=True' * self.pure}{', select=False' * (not self.select)})"

    def footprint(self, graph: Graph, forms: int) -> int:
        """Boxes, lines, and the coefficients of the forms on their way back."""
        widest = max(math.prod(node.shape) for node in graph.nodes)
        return 2 * interval.footprint(graph, forms) + LIVE_COPIES * forms * widest

    def boxes(self, graph: Graph, region: Region, *, memory: int = memory_budget.DEFAULT) -> list[Box]:
        return self.bounded(graph, region, memory=memory)[0]

    def lower_bounds(
        self,
        graph: Graph,
        region: Region,
        spec: Tensor,
        *,
        inner: list[Box] | None = None,
        losses: Losses | None = None,
        memory: int = memory_budget.DEFAULT,
    ) -> Tensor:
        """Lower bounds [B, S]; `losses` are the rounding losses over `inner` of an outward graph, if they are known."""
        if inner is None:
            inner, losses = self.bounded(graph, region, memory=memory)
        elif losses is None:
            losses = rounding.losses(graph, region, inner)
        relax = by_lines(all_lines(graph, inner, self.slope))
        return back_to_input(graph, LinearForm(spec, 0.0), relax, losses).minimum(region)

    def best_lower_bounds(
        self, graph: Graph, region: Region, spec: Tensor, *, inner: list[Box], losses: Losses | None = None
    ) -> Tensor:
        """The best of the lower bounds of the forms at the input and on their way back, [B, S].

        Arguments, and the bound at the input, are those of `lower_bounds`. Before each relaxation the forms are bounded
        over the boxes of the nodes that they have reached; if several branches are open, the sum of the minima is a
        bound. With interval boxes no other place has a better bound, because only relaxations lose something. So the
        result is never below the bound of intervals.
        """
        places: list[Region] = [region, *inner[1:]]
        losses = rounding.losses(graph, region, inner) if losses is None else losses
        form: Form = LinearForm(spec, 0.0)
        step = rule(by_lines(all_lines(graph, inner, self.slope)), losses)
        bounds = (
            torch.stack([rounding.ended(part, at, losses).minimum(places[at]) for at, part in forms.items()]).sum(0)
            for forms in backward_steps(graph, step, form)
            if max(forms) == 0 or graph.nodes[max(forms)].op.relaxed
        )
        return reduce(torch.maximum, bounds)

    def bounded(
        self,
        graph: Graph,
        region: Region,
        *,
        memory: int = memory_budget.DEFAULT,
        around: tuple[list[Box], Losses] | None = None,
    ) -> tuple[list[Box], Losses | None]:
        """The boxes of all nodes, [B, *node], and their rounding losses if the graph is outward.

        Args:
            graph: a frozen graph.
            region: the inputs, for B samples.
            memory: bytes that the coefficients of one pass may take, with everything that is computed from them on the
                way; more neurons are bounded in several passes.
            around: the boxes and losses of regions that contain these, if they are known: the boxes lie inside.

        Raises:
            OutOfTime: before a pass, where `time_budget.until` set a moment that has come.
        """
        boxes, lines, losses = list[Box](), dict[int, Relaxed](), list[Loss]()
        # intervals of a ball do not start with the box around it: after the first layer they have its own image
        intervals = interval.boxes(graph, region) if isinstance(region, L2Ball) and not self.pure else None
        one_slope = self.slope is parallel and not any(isinstance(node.op, Max) for node in graph.nodes)
        select, readers = self.select and not self.pure, relaxed_readers(graph)
        for at, node in enumerate(graph.nodes):
            box = interval.forward(node, *(boxes[i] for i in node.inputs)) if at else region.hull
            if graph.outward:
                # exp(90) loses more than exp(0), the lower end of a whole; and a root or a step is steeper on a part
                if around is None or isinstance(node.op, Elementwise):
                    losses.append(rounding.loss(graph, at, box, boxes, losses, region))
                else:
                    losses.append(around[1][at])
                box = rounding.widened(box, losses[at])
                box = box if around is None else box.intersect(around[0][at])
            box = box if intervals is None else box.intersect(intervals[at])
            if at in readers and not exact_by_intervals(graph, at, region):
                wanted = torch.ones_like(box.lower, dtype=torch.bool) if self.pure else open_neurons(readers[at], box)
                if not select or bool(wanted.any()):
                    charged = losses if graph.outward else None
                    refined = _refine(
                        graph, region, at, wanted, lines, charged, memory, one_slope=one_slope, select=select
                    )
                    box = refined if self.pure and not isinstance(node.op, FACTS) else box.intersect(refined)
            boxes.append(box)
            ready = (each for each in graph.readers(at) if graph.nodes[each].op.relaxed)
            lines |= {
                reader: lines_of(graph.nodes[reader], boxes, self.slope)
                for reader in ready
                if max(graph.nodes[reader].inputs) == at  # both factors of a product
            }
        return boxes, losses if graph.outward else None


footprint, boxes, lower_bounds, bounded = Crown().footprint, Crown().boxes, Crown().lower_bounds, Crown().bounded


def _refine(
    graph: Graph,
    region: Region,
    at: int,
    wanted: Tensor,
    lines: dict[int, Relaxed],
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
        time_budget.check()
        if one_slope:
            form = back_to_input(graph, form.with_upper_constant(), relax, losses, at)
            return form.minimum(region), form.maximum(region)
        least, most_negative = back_to_input(graph, form, relax, losses, at).minimum(region).chunk(2, dim=1)
        return least, -most_negative

    # without a relaxation on the way, the coefficients of a neuron are the same for all samples
    shared = not lines and len(shape) == 1
    every = torch.arange(chosen.shape[1], device=like.device).unsqueeze(0)
    index = positions(chosen) if select and not shared else every if shared else every.expand_as(chosen)
    probe = neurons(index[:1, :1], shape, signs)
    # the minimum over a polytope, or over a ball in a data range, has [B, S, n] numbers, also for forms of all samples
    is_cut = isinstance(region, Polytope) or (isinstance(region, Ball) and region.clip is not None)
    held = len(chosen) if is_cut else len(index)
    row = LIVE_COPIES * held * len(signs) * _widest(graph, probe, relax, at) * like.element_size()
    rows = max(1, memory // row)
    infinite = torch.full_like(wanted, math.inf, dtype=like.dtype)
    refined = Box(-infinite, infinite)
    if len(shape) == 3 and index.shape[1] > MOST_CHOSEN * chosen.shape[1]:
        plane = shape[1] * shape[2]
        every = every.view(shape[0], plane)
        for places in torch.arange(plane, device=like.device).split(max(1, rows // shape[0])):
            part = every[:, places].flatten().expand(len(chosen), -1)
            refined = refined.intersect(scattered(part, *bound(WindowForm.pixels(places, shape, signs)), wanted.shape))
    else:
        for part in index.split(rows, dim=1):
            bounds = bound(neurons(part, shape, signs))
            refined = refined.intersect(scattered(part.expand(len(chosen), -1), *bounds, wanted.shape))
    # the whole batch decides whether the other neurons are also bounded, but bounds must not depend on other samples
    return Box(torch.where(wanted, refined.lower, -math.inf), torch.where(wanted, refined.upper, math.inf))


def _widest(graph: Graph, form: Form, relax: Relax, at: int) -> int:
    """The largest number of coefficients of a form on its way back from node `at`."""
    widths = [form.width]

    def measured(at: int, node: Node, form: Form) -> Shares:
        parts = shares(at, node, form, relax)
        widths.extend(part.width for part in parts if part is not None)
        return parts

    walk_backward(graph, measured, form, at)
    return max(widths)

"""What branch and bound splits: the range of one neuron of each sub-problem, chosen by trial.

De Palma et al. 2021, "Improved branch and bound for neural network verification" (filtered smart branching), for any
activation as in Shi et al. 2024 (GenBaB). Two rankings of the neurons give the candidates: how much the relaxations
after a neuron lose at the point where the bound is taken, and the distance between their lines, in the coefficients of
the bound. Both halves of each candidate are bounded without optimisation. The candidate whose lower half has the
highest bound is split.

A neuron before a ReLU is split at 0, and a neuron before another function with kinks at one of them. A neuron before a
smooth function or in a product is split at its value at that point, or at the middle of its range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctbench.domains import backward, beta_crown
from ctbench.domains.backward import Relaxed
from ctbench.domains.beta_crown import Bounds, ByNode, Multipliers, Relaxation
from ctbench.domains.envelopes import Boxes, Lined
from ctbench.graph import Affine, Graph, Lines, Op, walk_forward
from ctbench.graph.ops import Planes, Smooth
from ctbench.graph.ops.piecewise import Kinked
from ctbench.regions import Box
from ctbench.verify.subproblems import Root, Subproblems

TINY = 1e-30  # so that a neuron without influence can be split, after all others
EDGE = 1 / 8  # the least share of a range that a part has, if no kink is the reason to split it
WIDEST = 1e30  # numbers around it can be halved and multiplied


@dataclass(frozen=True, eq=False)
class Choice:
    """What to split of N sub-problems."""

    neuron: Tensor  # [N]: by its place among the entries of all nodes that can be split, in order
    value: Tensor  # [N]: where it is split; the value belongs to both halves
    is_splittable: Tensor  # [N]: whether there is a neuron to split
    points: Tensor  # [N, *shape]: the points of the regions where the bounds are taken


def choose(root: Root, part: Subproblems, candidates: int) -> Choice:
    """The neuron to split of each sub-problem; `candidates` of each of two rankings are tried."""
    setting = root.search
    inner = setting.inner(part)
    relaxation = Relaxation.of(setting.graph, inner, part.free, setting.pairs_of(part))
    region, spec = setting.region(part), setting.spec(part)
    free = relaxation.admitted(part.free)
    bounds = relaxation.bounds(region, spec, free)
    points = root.points(part, bounds)
    if not free.weights:
        nothing = torch.zeros_like(part.row)
        return Choice(nothing, nothing, torch.zeros_like(nothing, dtype=torch.bool), points)
    scores = Scores.of(relaxation, inner, free, bounds, points)
    is_splittable = scores.heights.amax(1) > 0
    count = min(candidates, scores.heights.shape[1])
    by_loss, by_height = scores.losses.topk(count).indices, scores.heights.topk(count).indices
    tried = torch.cat([by_loss, by_height], dim=1)  # [N, C]
    values = torch.cat([scores.at_points.gather(1, by_loss), scores.in_middle.gather(1, by_height)], dim=1)
    low, high = scores.lower.gather(1, tried), scores.upper.gather(1, tried)

    def gain(neuron: Tensor, value: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The lower of the two halves' bounds, without optimisation, plus a little of the higher one, [N]."""
        split = (relaxation.split(inner, free, neuron, *ends) for ends in ((value, high), (low, value)))
        first, second = (half.bounds(region, spec, numbers).values.clamp(max=0) for half, numbers in split)
        return torch.minimum(first, second) + 1e-3 * torch.maximum(first, second)

    columns = zip(*(each.unbind(1) for each in (tried, values, low, high)), strict=True)
    gains = torch.stack([gain(*column) for column in columns], dim=1)
    gains = gains.masked_fill(scores.heights.gather(1, tried) <= 0, -torch.inf)
    best = gains.argmax(1, keepdim=True)
    return Choice(tried.gather(1, best).squeeze(1), values.gather(1, best).squeeze(1), is_splittable, points)


def halves(part: Subproblems, choice: Choice) -> Subproblems:
    """Both halves of each sub-problem that can be split, the upper ones first. They share the value in between."""
    part = part.take(choice.is_splittable)
    neuron, value = choice.neuron[choice.is_splittable], choice.value[choice.is_splittable]
    free = part.free
    upper = replace(part, free=replace(free, floors=beta_crown.put(free.floors, neuron, value)))
    lower = replace(part, free=replace(free, ceilings=beta_crown.put(free.ceilings, neuron, value)))
    return upper.join(lower)


@dataclass(frozen=True, eq=False)
class Scores:
    """What is known about each neuron of all nodes that can be split, [N, M] each."""

    losses: Tensor  # how much the relaxations after it lose at the points; over all neurons, the sum is what is lost
    heights: Tensor  # the distance of lines around it; 0 for a neuron that cannot be split
    lower: Tensor  # its range
    upper: Tensor
    at_points: Tensor  # the value to split it at, near that at the points
    in_middle: Tensor  # the value to split it at, near the middle of its range

    @classmethod
    def of(cls, relaxation: Relaxation, inner: Boxes, free: Multipliers, bounds: Bounds, points: Tensor) -> Scores:
        graph = relaxation.graph
        values = walk_forward(graph, lambda node, *inputs: node.op(*inputs), points)
        readers = beta_crown.split_readers(graph)
        ops = {at: [graph.nodes[reader].op for reader in each] for at, each in readers.items()}
        at_points = {at: threshold(ops[at], inner[at], values[at]) for at in readers}
        in_middle = {at: threshold(ops[at], inner[at]) for at in readers}
        losses = {at: torch.zeros_like(values[at]) for at in readers}
        heights = dict(losses)
        for reader, a in bounds.relaxed.items():
            inputs, envelope = graph.nodes[reader].inputs, relaxation.around[reader]
            around, is_lined = envelope.around(free.of(reader)), isinstance(envelope, Lined)
            below, above = _between(around, [values[i] for i in inputs])
            lost = a.clamp(min=0) * (values[reader] - below) + a.clamp(max=0) * (values[reader] - above)
            low, high = _between(around, [in_middle[i] if is_lined else inner[i].center for i in inputs])
            height = a.abs() * (high - low) + TINY
            if isinstance(envelope, Lined):
                lost, height = (torch.where(envelope.is_open, score, 0.0) for score in (lost, height))
            for i in inputs:
                losses, heights = (
                    _added(graph, i, scores, score, moves=not is_lined)
                    for scores, score in ((losses, lost), (heights, height))
                )
        can = {at: _is_inside(in_middle[at], inner[at]) & _is_inside(at_points[at], inner[at]) for at in readers}
        columns: list[ByNode] = [
            losses,
            {at: torch.where(can[at] & (heights[at] > 0), heights[at], 0.0) for at in readers},
            {at: inner[at].lower for at in readers},
            {at: inner[at].upper for at in readers},
            at_points,
            in_middle,
        ]
        return cls(*(torch.cat([column[at].flatten(1) for at in readers], dim=1) for column in columns))


def threshold(ops: Sequence[Op], box: Box, near: Tensor | None = None) -> Tensor:
    """Where to split the entries of a node with a box that these ops read: near these values, or near the middle.

    At the nearest kink inside the range, if there is one; otherwise at least `EDGE` of the range away from its ends. Of
    the ends of a range that is a point, or infinite, the value may be one: then it cannot be split.
    """
    lower, upper = box.lower, box.upper
    middle = lower / 2 + upper / 2
    width = upper - lower
    if near is None:
        value = middle
        for place in (place for op in ops if isinstance(op, Smooth) for place in op.inflections):
            there = (place - middle).abs() < (0.5 - EDGE) * width
            value = torch.where(there, place, value)
    else:
        value = near.clamp(lower + EDGE * width, upper - EDGE * width)
    distance = torch.full_like(middle, torch.inf)
    for kink in (kink for op in ops if isinstance(op, Kinked) for kink in op.kinks):
        apart = (kink - (middle if near is None else near)).abs()
        nearer = (kink > lower) & (kink < upper) & (apart < distance)
        value, distance = torch.where(nearer, kink, value), torch.where(nearer, apart, distance)
    return value


def _is_inside(value: Tensor, box: Box) -> Tensor:
    """Where a value is strictly inside a range that can be computed with: both halves are smaller."""
    return (box.lower < value) & (value < box.upper) & (box.upper - box.lower < WIDEST)


def _between(around: Relaxed, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The values of both lines, or of both planes, at the inputs of an op."""
    lines = around if isinstance(around, Planes) else (around,)
    below = sum(_below(line, z) for line, z in zip(lines, inputs, strict=True))
    above = sum(line.upper_slope * z + line.upper_offset for line, z in zip(lines, inputs, strict=True))
    assert isinstance(below, Tensor)
    assert isinstance(above, Tensor)
    return below, above


def _below(lines: Lines, z: Tensor) -> Tensor:
    below = lines.lower_slope * z
    return below if lines.lower_offset is None else below + lines.lower_offset


def _added(graph: Graph, at: int, scores: ByNode, score: Tensor, *, moves: bool) -> ByNode:
    """The scores with those of the entries of node `at`, or if it `moves` entries, of the node that they come from."""
    while moves and at != backward.source(graph, at):
        op = graph.nodes[at].op
        assert isinstance(op, Affine)
        score = op.adjoint(score.unsqueeze(1)).squeeze(1)
        (at,) = graph.nodes[at].inputs
    return scores | {at: scores[at] + score}

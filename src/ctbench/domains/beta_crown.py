"""beta-CROWN: CROWN with fixed signs of some pre-activations. Wang et al. 2021, "Beta-CROWN: efficient bound
propagation with per-neuron split constraints for neural network robustness verification".

    min of <c, f(x)> over x in the region with s_j z_j >= 0   >=   max over alpha in [0, 1] and beta >= 0 of

        CROWN's bound of  <c, f(x)> - sum_j beta_j s_j z_j

with alpha the free slopes and z_j the pre-activations with a fixed sign s_j (1 or -1). A fixed sign also makes the ReLU
after it linear. Pairs of ReLUs may have multipliers of their own (see `pairs`). Any values of these multipliers are
sound, so the ascent may end at any step and the best bound counts.

    inner = beta_crown.clipped(beta_crown.needed(graph, boxes), free.signs)
    best, free = beta_crown.ascend(graph, region, spec, inner, free, steps=10)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ctbench import time_budget
from ctbench.domains import adam, backward, pairs, rounding
from ctbench.domains.backward import Relaxed
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.pairs import Pairs
from ctbench.domains.relaxations import adaptive
from ctbench.domains.rounding import Losses
from ctbench.graph import Graph, Lines, Node, walk_backward
from ctbench.graph.ops import Planes, ReLU
from ctbench.regions import Box, Region

ByNode = dict[int, Tensor]  # [N, *node] each, by the position of the node that a ReLU reads
Boxes = dict[int, Box]  # of every node that a relaxed op reads, by its position


def split_nodes(graph: Graph) -> list[int]:
    """The nodes with entries whose signs can be fixed: the nodes that a ReLU reads, except the input."""
    return sorted({node.inputs[0] for node in graph.nodes if isinstance(node.op, ReLU)} - {0})


def needed(graph: Graph, boxes: list[Box]) -> Boxes:
    """The boxes that relaxations need, from the boxes of all nodes."""
    return {at: boxes[at] for at in sorted({i for node in graph.nodes if node.op.relaxed for i in node.inputs})}


def clipped(inner: Boxes, signs: ByNode) -> Boxes:
    """The boxes without negative values where the sign is 1, and without positive values where it is -1."""
    boxes = dict(inner)
    for at, sign in signs.items():
        box = inner[at]
        lower = torch.where(sign > 0, box.lower.clamp(min=0), box.lower)
        boxes[at] = Box(lower, torch.where(sign < 0, box.upper.clamp(max=0), box.upper))
    return boxes


@dataclass(frozen=True, eq=False)
class Multipliers:
    """The multipliers of N bounds, and the fixed signs."""

    slopes: ByNode  # alpha, in [0, 1]
    weights: ByNode  # beta, at least 0; no effect where no sign is fixed
    signs: ByNode  # s: 1 or -1 where it is fixed, otherwise 0; int8
    shares: ByNode = field(default_factory=dict)  # w, the shares of the coefficients that go to pairs: [N, P, 2]
    tilts: ByNode = field(default_factory=dict)  # t, the slopes of the pairs

    @classmethod
    def begin(cls, graph: Graph, inner: Boxes) -> Multipliers:
        """Adaptive slopes, and no fixed sign."""
        nodes = {at: inner[at] for at in split_nodes(graph)}
        return cls(
            {at: (box.upper > -box.lower).to(box.lower.dtype) for at, box in nodes.items()},
            {at: torch.zeros_like(box.lower) for at, box in nodes.items()},
            {at: torch.zeros_like(box.lower, dtype=torch.int8) for at, box in nodes.items()},
        )

    @property
    def free(self) -> list[Tensor]:
        """The optimised tensors: all slopes, all weights, then the shares and slopes of pairs."""
        return [value for part in self._free() for value in part.values()]

    def with_free(self, values: list[Tensor]) -> Multipliers:
        """The same signs with other multipliers, in the order of `free`."""
        rest = iter(values)
        slopes, weights, shares, tilts = ({at: next(rest) for at in part} for part in self._free())
        return replace(self, slopes=slopes, weights=weights, shares=shares, tilts=tilts)

    def with_pairs(self, chosen: dict[int, Pairs]) -> Multipliers:
        """With initial multipliers for the pairs of each of the N bounds."""
        begin = {at: part.begin() for at, part in chosen.items()}
        shares, tilts = ({at: both[i] for at, both in begin.items()} for i in (0, 1))
        return replace(self, shares=shares, tilts=tilts)

    def map(self, change: Callable[[Tensor], Tensor]) -> Multipliers:
        """The multipliers after `change`."""
        return self.with_free([change(value) for value in self.free])

    def take(self, chosen: Tensor) -> Multipliers:
        return Multipliers(*({at: value[chosen] for at, value in part.items()} for part in self._parts()))

    def join(self, other: Multipliers) -> Multipliers:
        pairs = zip(self._parts(), other._parts(), strict=True)
        return Multipliers(*({at: torch.cat([a[at], b[at]]) for at in a} for a, b in pairs))

    def _free(self) -> tuple[ByNode, ByNode, ByNode, ByNode]:
        return self.slopes, self.weights, self.shares, self.tilts

    def _parts(self) -> tuple[ByNode, ...]:
        return self.slopes, self.weights, self.signs, self.shares, self.tilts


def put(images: ByNode, place: Tensor, value: Tensor) -> ByNode:
    """The images with one entry changed per sub-problem: its place [N] counts the entries of all nodes, in order."""
    changed, start = dict[int, Tensor](), 0
    for at in sorted(images):
        flat = images[at].flatten(1)
        here = (place - start).clamp(0, flat.shape[1] - 1).unsqueeze(1)
        there = ((place >= start) & (place < start + flat.shape[1])).unsqueeze(1)
        entry = torch.where(there, value.to(flat.dtype).unsqueeze(1), flat.gather(1, here))
        changed[at] = flat.scatter(1, here, entry).view_as(images[at])
        start += flat.shape[1]
    return changed


@dataclass(frozen=True, eq=False)
class Bounds:
    """N bounds, and the forms that they were computed from."""

    values: Tensor  # [N]
    form: LinearForm  # over the input, [N, 1, *shape]
    relaxed: dict[int, Tensor] = field(
        default_factory=dict
    )  # coefficients of each ReLU's output, [N, *node], by position


@dataclass(frozen=True, eq=False)
class Relaxation:
    """The relaxation of a network over the clipped boxes of N sub-problems, without the multipliers."""

    graph: Graph
    least: ByNode  # the range of the free slopes of the line below a ReLU
    greatest: ByNode
    upper_slope: ByNode  # of the line above a ReLU
    upper_offset: ByNode
    others: dict[int, Relaxed]  # of all other relaxed nodes, by their positions
    pairs: dict[int, Pairs]
    losses: Losses | None = None  # of an outward graph

    @classmethod
    def of(cls, graph: Graph, inner: Boxes, chosen: dict[int, Pairs], losses: Losses | None = None) -> Relaxation:
        cut = {at: part.within(inner[at]) for at, part in chosen.items()}
        relu, relaxation = ReLU(), cls(graph, {}, {}, {}, {}, {}, cut, losses)
        for at in split_nodes(graph):
            lower, upper = inner[at].lower, inner[at].upper
            relaxation.least[at], relaxation.greatest[at] = relu.slopes(lower, upper)
            chord = relu.chord(lower, upper)
            lines = relu.lines(lower, upper, chord, chord)
            relaxation.upper_slope[at], relaxation.upper_offset[at] = lines.upper_slope, lines.upper_offset
        for at, node in enumerate(graph.nodes):
            if node.op.relaxed and not relaxation._can_split(node):
                relaxation.others[at] = backward.lines_of(node, inner, adaptive)
        return relaxation

    def _can_split(self, node: Node) -> bool:
        return isinstance(node.op, ReLU) and node.inputs[0] in self.upper_slope

    def admitted(self, free: Multipliers) -> Multipliers:
        """The multipliers, with slopes moved into their ranges, and weights to 0 if they are negative."""
        slopes = {at: slope.clamp(self.least[at], self.greatest[at]) for at, slope in free.slopes.items()}
        return replace(free, slopes=slopes, weights={at: weight.clamp(min=0) for at, weight in free.weights.items()})

    def take(self, chosen: Tensor) -> Relaxation:
        def part(images: ByNode) -> ByNode:
            return {at: image[chosen] for at, image in images.items()}

        others = {at: _taken(lines, chosen) for at, lines in self.others.items()}
        couples = {at: each.take(chosen) for at, each in self.pairs.items()}
        slopes = part(self.least), part(self.greatest), part(self.upper_slope)
        lost = None if self.losses is None else [loss.take(chosen) for loss in self.losses]
        return Relaxation(self.graph, *slopes, part(self.upper_offset), others, couples, lost)

    def split(self, free: Multipliers, place: Tensor, positive: Tensor) -> tuple[Relaxation, Multipliers]:
        """The relaxation with one more fixed sign: the entry at a place [N] (see `put`) is `positive` [N] or not."""
        relaxation = replace(
            self,
            upper_slope=put(self.upper_slope, place, positive),
            upper_offset=put(self.upper_offset, place, torch.zeros_like(positive)),
        )
        return relaxation, replace(free, slopes=put(free.slopes, place, positive))

    def bounds(self, region: Region, spec: Tensor, free: Multipliers) -> Bounds:
        """The bounds of N forms, spec [N, *output], over N regions, for admitted multipliers."""
        relaxed = dict[int, Tensor]()
        others = backward.by_lines(self.others)

        def relax(at: int, node: Node, form: Form) -> tuple[Form, ...]:
            if not self._can_split(node):
                return others(at, node, form)
            (read,) = node.inputs
            relaxed[at] = form.dense().coefficients.squeeze(1)
            lines = Lines(free.slopes[read], None, self.upper_slope[read], self.upper_offset[read])
            if read not in free.shares:
                return (form.relaxed(lines),)
            losses = None if self.losses is None else (self.losses[read], self.losses[at])
            return (pairs.relaxed(form, lines, self.pairs[read], free.shares[read], free.tilts[read], losses),)

        step = backward.rule(relax, self.losses)

        def rule(at: int, node: Node, form: Form) -> backward.Shares:
            if at in free.weights:
                signs = LinearForm(-(free.signs[at] * free.weights[at]).unsqueeze(1), 0.0)
                form = form + rounding.begun(signs, at, self.losses)
            return step(at, node, form)

        end = len(self.graph.nodes) - 1
        start = rounding.begun(LinearForm(spec.unsqueeze(1), 0.0), end, self.losses)
        last = rounding.ended(walk_backward(self.graph, rule, start), 0, self.losses).dense()
        return Bounds(last.minimum(region).squeeze(1), last, relaxed)


def _taken(lines: Relaxed, chosen: Tensor) -> Relaxed:
    """The lines of some sub-problems."""
    if isinstance(lines, Planes):
        return Planes(*(_taken(part, chosen) for part in lines))  # type: ignore[arg-type]
    return Lines(*(None if line is None else line[chosen] for line in lines))  # type: ignore[arg-type]


def bounds_at(
    graph: Graph,
    region: Region,
    spec: Tensor,
    inner: Boxes,
    free: Multipliers,
    chosen: dict[int, Pairs] | None = None,
    losses: Losses | None = None,
) -> Bounds:
    """The bounds of N forms over N regions, for these multipliers.

    Args:
        graph: a frozen graph.
        region, spec, inner: N regions, N forms of the output [N, *output], and the clipped boxes.
        free: the multipliers.
        chosen: the pairs that the multipliers have parts for.
        losses: those of an outward graph, over the boxes before they were clipped.
    """
    assert graph.outward == (losses is not None)
    relaxation = Relaxation.of(graph, inner, chosen or {}, losses)
    return relaxation.bounds(region, spec, relaxation.admitted(free))


def ascend(
    graph: Graph,
    region: Region,
    spec: Tensor,
    inner: Boxes,
    free: Multipliers,
    *,
    steps: int,
    chosen: dict[int, Pairs] | None = None,
    enough: float = math.inf,
    slope_rate: float = 0.1,
    weight_rate: float = 0.1,
    pair_rate: float = 0.02,
    decay: float = 0.98,
) -> tuple[Tensor, Multipliers]:
    """The best bounds [N] over some steps of Adam, and multipliers.

    The multipliers of a bound above `enough` are those that gave it; the others are the last ones, from which a later
    ascent may begin.

    Args:
        graph: a frozen graph.
        region, spec, inner: N regions, N forms of the output [N, *output], and the clipped boxes.
        free: the initial multipliers.
        steps: the number of steps.
        chosen: the pairs that the multipliers have parts for.
        enough: a bound above this is finished.
        slope_rate, weight_rate, pair_rate: the size of the first step in alpha, in beta, and in the multipliers of
            pairs; each later one is `decay` times as large.
        decay: see `slope_rate`.

    Raises:
        OutOfTime: before a step, if the time of a `time_budget.until` around it is over.
    """
    relaxation = Relaxation.of(graph.rounded_outward(False), inner, chosen or {})
    now = relaxation.admitted(free)
    kept = now.map(torch.clone)
    moments = [(torch.zeros_like(value), torch.zeros_like(value)) for value in now.free]
    best = torch.full_like(spec.flatten(1)[:, 0], -torch.inf)
    on = torch.arange(len(best), device=best.device)  # the positions of the unfinished bounds
    rates = [slope_rate] * len(now.slopes) + [weight_rate] * len(now.weights)
    rates += [pair_rate] * (len(now.shares) + len(now.tilts))
    for step in range(1, steps + 2):
        time_budget.check()
        last = step > steps or not now.free
        with torch.enable_grad():
            now = now.map(lambda value: value.detach().requires_grad_())
            bounds = relaxation.bounds(region, spec, now).values
            gradients = [] if last else list(torch.autograd.grad(bounds.sum(), now.free, materialize_grads=True))
        now, bounds = now.map(Tensor.detach), bounds.detach()
        best[on] = torch.maximum(best[on], bounds)
        # positions, because each read of truth values waits for the device: this is the only one of a step
        ended = torch.arange(len(on), device=on.device) if last else (bounds > enough).nonzero().squeeze(1)
        for mine, value in zip(kept.free, now.free, strict=True):
            mine[on[ended]] = value[ended]
        if len(ended) == len(on):
            break
        if len(ended):
            stay = torch.zeros_like(on).index_fill(0, ended, 1).argsort(stable=True)[: len(on) - len(ended)]
            on, region, spec, relaxation, now = (
                on[stay],
                region.take(stay),
                spec[stay],
                relaxation.take(stay),
                now.take(stay),
            )
            gradients = [gradient[stay] for gradient in gradients]
            moments = [(mean[stay], square[stay]) for mean, square in moments]
        updates = [adam.direction(gradient, *pair, step) for gradient, pair in zip(gradients, moments, strict=True)]
        moments = [(mean, square) for _, mean, square in updates]
        moved = [
            value.add(direction, alpha=rate * decay ** (step - 1))
            for value, (direction, _, _), rate in zip(now.free, updates, rates, strict=True)
        ]
        now = relaxation.admitted(now.with_free(moved))
    return best, kept

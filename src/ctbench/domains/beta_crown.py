"""beta-CROWN: CROWN where the signs of some pre-activations are known. Wang et al. 2021, "Beta-CROWN: efficient bound
propagation with per-neuron split constraints for neural network robustness verification".

    min of <c, f(x)> over x in the region with s_j z_j >= 0   >=   max over alpha in [0, 1] and beta >= 0 of

        CROWN's bound of  <c, f(x)> - sum_j beta_j s_j z_j

with alpha the free slopes and z_j the pre-activations of known sign s_j (1 or -1). A known sign also makes the ReLU
behind it linear. Pairs of ReLUs may have free numbers of their own (see `pairs`). Any numbers are sound, so the ascent
may end at any step and the best bound counts.

    inner = beta_crown.clipped(beta_crown.needed(graph, boxes), free.signs)
    best, free = beta_crown.ascend(graph, region, spec, inner, free, steps=10)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ctbench import deadline
from ctbench.domains import adam, backward, pairs, rounding
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.pairs import Pairs
from ctbench.domains.relaxations import adaptive
from ctbench.domains.rounding import Losses
from ctbench.graph import Graph, Lines, Node, walk_backward
from ctbench.graph.ops import ReLU
from ctbench.regions import Box, Region

ByNode = dict[int, Tensor]  # [N, *node] each, by the position of the node that a ReLU reads
Boxes = dict[int, Box]  # of every node that is relaxed behind, by its position


def split_nodes(graph: Graph) -> list[int]:
    """The nodes whose entries' signs can be known: those that a ReLU reads, but for the input."""
    return sorted({node.inputs[0] for node in graph.nodes if isinstance(node.op, ReLU)} - {0})


def needed(graph: Graph, boxes: list[Box]) -> Boxes:
    """Of the boxes of all nodes those that a relaxation needs."""
    return {at: boxes[at] for at in sorted({node.inputs[0] for node in graph.nodes if node.op.relaxed})}


def clipped(inner: Boxes, signs: ByNode) -> Boxes:
    """The boxes with what the known signs add: no negative values where it is 1, no positive ones where it is -1."""
    found = dict(inner)
    for at, sign in signs.items():
        box = inner[at]
        lower = torch.where(sign > 0, box.lower.clamp(min=0), box.lower)
        found[at] = Box(lower, torch.where(sign < 0, box.upper.clamp(max=0), box.upper))
    return found


@dataclass(frozen=True, eq=False)
class Multipliers:
    """The free numbers of N bounds, and the signs that are known."""

    slopes: ByNode  # alpha, in [0, 1]
    weights: ByNode  # beta, at least 0; counts where a sign is known
    signs: ByNode  # s: 1 or -1 where it is known, else 0; int8
    shares: ByNode = field(default_factory=dict)  # of the coefficients, that pairs take: [N, P, 2]
    tilts: ByNode = field(default_factory=dict)  # the slopes that pairs give them

    @classmethod
    def begin(cls, graph: Graph, inner: Boxes) -> Multipliers:
        """Adaptive slopes, and no sign known."""
        nodes = {at: inner[at] for at in split_nodes(graph)}
        return cls(
            {at: (box.upper > -box.lower).to(box.lower.dtype) for at, box in nodes.items()},
            {at: torch.zeros_like(box.lower) for at, box in nodes.items()},
            {at: torch.zeros_like(box.lower, dtype=torch.int8) for at, box in nodes.items()},
        )

    @property
    def free(self) -> list[Tensor]:
        """What is optimised: all slopes, all weights, then what belongs to pairs."""
        return [value for part in self._free() for value in part.values()]

    def with_free(self, values: list[Tensor]) -> Multipliers:
        """The same with other numbers, in the order of `free`."""
        rest = iter(values)
        slopes, weights, shares, tilts = ({at: next(rest) for at in part} for part in self._free())
        return replace(self, slopes=slopes, weights=weights, shares=shares, tilts=tilts)

    def with_pairs(self, chosen: dict[int, Pairs]) -> Multipliers:
        """With numbers for pairs of each of the N."""
        begin = {at: part.begin() for at, part in chosen.items()}
        shares, tilts = ({at: both[i] for at, both in begin.items()} for i in (0, 1))
        return replace(self, shares=shares, tilts=tilts)

    def map(self, change: Callable[[Tensor], Tensor]) -> Multipliers:
        """All free numbers changed."""
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
    """The images with one entry changed in each sub-problem: its place [N] among all entries of all nodes, in order."""
    found, start = dict[int, Tensor](), 0
    for at in sorted(images):
        flat = images[at].flatten(1)
        here = (place - start).clamp(0, flat.shape[1] - 1).unsqueeze(1)
        there = ((place >= start) & (place < start + flat.shape[1])).unsqueeze(1)
        entry = torch.where(there, value.to(flat.dtype).unsqueeze(1), flat.gather(1, here))
        found[at] = flat.scatter(1, here, entry).view_as(images[at])
        start += flat.shape[1]
    return found


@dataclass(frozen=True, eq=False)
class Bounds:
    """N bounds, and what they were made of."""

    values: Tensor  # [N]
    form: LinearForm  # over the input, [N, 1, *shape]
    relaxed: dict[int, Tensor] = field(default_factory=dict)  # of every ReLU's output, by its position: [N, *node]


@dataclass(frozen=True, eq=False)
class Relaxation:
    """What the clipped boxes of N sub-problems make of a network, but for the free numbers."""

    graph: Graph
    least: ByNode  # of the slopes below a ReLU; between it and the greatest they are free
    greatest: ByNode
    upper_slope: ByNode  # of the line above a ReLU
    upper_offset: ByNode
    others: dict[int, Lines]  # of all other relaxed nodes, by their positions
    pairs: dict[int, Pairs]
    losses: Losses | None = None  # of an outward graph

    @classmethod
    def of(cls, graph: Graph, inner: Boxes, chosen: dict[int, Pairs], losses: Losses | None = None) -> Relaxation:
        cut = {at: part.within(inner[at]) for at, part in chosen.items()}
        relu, found = ReLU(), cls(graph, {}, {}, {}, {}, {}, cut, losses)
        for at in split_nodes(graph):
            lower, upper = inner[at].lower, inner[at].upper
            found.least[at], found.greatest[at] = relu.slopes(lower, upper)
            chord = relu.chord(lower, upper)
            _, _, found.upper_slope[at], found.upper_offset[at] = relu.lines(lower, upper, chord, chord)
        for at, node in enumerate(graph.nodes):
            if node.op.relaxed and not found._is_split(node):
                found.others[at] = backward.lines_of(node, inner, adaptive)
        return found

    def _is_split(self, node: Node) -> bool:
        return isinstance(node.op, ReLU) and node.inputs[0] in self.upper_slope

    def admitted(self, free: Multipliers) -> Multipliers:
        """The numbers with slopes that are in their ranges, and weights that are not negative."""
        slopes = {at: slope.clamp(self.least[at], self.greatest[at]) for at, slope in free.slopes.items()}
        return replace(free, slopes=slopes, weights={at: weight.clamp(min=0) for at, weight in free.weights.items()})

    def take(self, chosen: Tensor) -> Relaxation:
        def part(images: ByNode) -> ByNode:
            return {at: image[chosen] for at, image in images.items()}

        others = {
            at: Lines(*(None if line is None else line[chosen] for line in lines))  # type: ignore[arg-type]
            for at, lines in self.others.items()
        }
        couples = {at: each.take(chosen) for at, each in self.pairs.items()}
        slopes = part(self.least), part(self.greatest), part(self.upper_slope)
        lost = None if self.losses is None else [loss.take(chosen) for loss in self.losses]
        return Relaxation(self.graph, *slopes, part(self.upper_offset), others, couples, lost)

    def split(self, free: Multipliers, place: Tensor, positive: Tensor) -> tuple[Relaxation, Multipliers]:
        """What one more sign makes of it: of the entry at a place [N] as in `put`, whether it is positive [N]."""
        known = replace(
            self,
            upper_slope=put(self.upper_slope, place, positive),
            upper_offset=put(self.upper_offset, place, torch.zeros_like(positive)),
        )
        return known, replace(free, slopes=put(free.slopes, place, positive))

    def bounds(self, region: Region, spec: Tensor, free: Multipliers) -> Bounds:
        """The bounds of one form each, spec [N, *output], over N regions, for numbers that are admitted."""
        relaxed = dict[int, Tensor]()
        others = backward.by_lines(self.others)

        def relax(at: int, node: Node, form: Form) -> Form:
            if not self._is_split(node):
                return others(at, node, form)
            (read,) = node.inputs
            relaxed[at] = form.dense().coefficients.squeeze(1)
            lines = Lines(free.slopes[read], None, self.upper_slope[read], self.upper_offset[read])
            if read not in free.shares:
                return form.relaxed(lines)
            losses = None if self.losses is None else (self.losses[read], self.losses[at])
            return pairs.relaxed(form, lines, self.pairs[read], free.shares[read], free.tilts[read], losses)

        step = backward.rule(relax, self.losses)

        def rule(at: int, node: Node, form: Form) -> tuple[Form, ...]:
            if at in free.weights:
                signs = LinearForm(-(free.signs[at] * free.weights[at]).unsqueeze(1), 0.0)
                form = form + rounding.begun(signs, at, self.losses)
            return step(at, node, form)

        end = len(self.graph.nodes) - 1
        start = rounding.begun(LinearForm(spec.unsqueeze(1), 0.0), end, self.losses)
        last = rounding.ended(walk_backward(self.graph, rule, start), 0, self.losses).dense()
        return Bounds(last.minimum(region).squeeze(1), last, relaxed)


def bounds_at(
    graph: Graph,
    region: Region,
    spec: Tensor,
    inner: Boxes,
    free: Multipliers,
    chosen: dict[int, Pairs] | None = None,
    losses: Losses | None = None,
) -> Bounds:
    """The bounds of one form each, spec [N, *output], over N regions; inner are the clipped boxes, and losses those of
    an outward graph over the boxes before they were clipped."""
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
    """The best bounds [N] that some steps of Adam find; and free numbers: of a bound that is enough those that gave it,
    of another the last ones, where a later ascent may begin.

    Args:
        graph: a frozen graph.
        region, spec, inner: N regions, N forms of the output [N, *output], and the clipped boxes.
        free: where to begin.
        steps: of Adam.
        chosen: the pairs that the free numbers have parts for.
        enough: a bound above this is not worked on any more.
        slope_rate, weight_rate, pair_rate: the size of the first step in alpha, in beta, and in the numbers of pairs;
            each later one is `decay` as large.
        decay: see there.

    Raises:
        OutOfTime: before a step, where `deadline.until` set a moment that has come.
    """
    relaxation = Relaxation.of(graph.rounded_outward(False), inner, chosen or {})
    now = relaxation.admitted(free)
    kept = now.map(torch.clone)
    moments = [(torch.zeros_like(value), torch.zeros_like(value)) for value in now.free]
    best = torch.full_like(spec.flatten(1)[:, 0], -torch.inf)
    on = torch.arange(len(best), device=best.device)  # those that are worked on
    rates = [slope_rate] * len(now.slopes) + [weight_rate] * len(now.weights)
    rates += [pair_rate] * (len(now.shares) + len(now.tilts))
    for step in range(1, steps + 2):
        deadline.check()
        last = step > steps or not now.free
        with torch.enable_grad():
            now = now.map(lambda value: value.detach().requires_grad_())
            found = relaxation.bounds(region, spec, now).values
            gradients = [] if last else list(torch.autograd.grad(found.sum(), now.free, materialize_grads=True))
        now, found = now.map(Tensor.detach), found.detach()
        best[on] = torch.maximum(best[on], found)
        # positions, as each look at truth values waits for the device: this is the only one of a step
        ended = torch.arange(len(on), device=on.device) if last else (found > enough).nonzero().squeeze(1)
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
        ways = [adam.direction(gradient, *pair, step) for gradient, pair in zip(gradients, moments, strict=True)]
        moments = [(mean, square) for _, mean, square in ways]
        moved = [
            value.add(way, alpha=rate * decay ** (step - 1))
            for value, (way, _, _), rate in zip(now.free, ways, rates, strict=True)
        ]
        now = relaxation.admitted(now.with_free(moved))
    return best, kept

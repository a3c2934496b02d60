"""beta-CROWN: CROWN with known ranges of some pre-activations. Wang et al. 2021, "Beta-CROWN: efficient bound
propagation with per-neuron split constraints for neural network robustness verification"; for ranges of any activation,
Shi et al. 2024, "Neural network verification with branch-and-bound for general nonlinearities" (GenBaB).

    min of <c, f(x)> over x in the region with l_j <= z_j <= u_j   >=   max over alpha and w of

        CROWN's bound of  <c, f(x)> - sum_j w_j z_j,   plus   sum_j (l_j if w_j > 0 else u_j) w_j

with alpha the free slopes (see `envelopes`) and z_j the pre-activations with a known range. w_j is at least 0 if there
is no u_j, and at most 0 if there is no l_j. For a ReLU, l_j or u_j is 0, and w_j is beta times the known sign. A range
also makes the lines of the ops after it tighter: those of a ReLU become exact. Pairs of ReLUs may have multipliers of
their own (see `pairs`). Any values of these numbers are sound, so the ascent may end at any step, and the best bound
counts.

    inner = beta_crown.clipped(graph, beta_crown.needed(graph, boxes), free)
    best, free = beta_crown.ascend(graph, region, spec, inner, free, steps=10)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ctbench import time_budget
from ctbench.domains import adam, backward, envelopes, interval, pairs, rounding
from ctbench.domains.envelopes import Boxes, Envelope, Free, Lined, ProductPlanes
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.pairs import Pairs
from ctbench.domains.rounding import Losses
from ctbench.graph import Affine, Elementwise, Graph, Lines, Node, walk_backward
from ctbench.graph.ops import Product, ReLU
from ctbench.regions import Box, Region

ByNode = dict[int, Tensor]  # [N, *node] each, by position


def split_readers(graph: Graph) -> dict[int, list[int]]:
    """The nodes with entries whose ranges can be split, in order, and the relaxed ops that are tighter then.

    These are the nodes that functions of one value read, and those that the factors of products come from.
    """
    readers = dict[int, list[int]]()
    for reader, node in enumerate(graph.nodes):
        if isinstance(node.op, Elementwise):
            readers.setdefault(node.inputs[0], []).append(reader)
        if isinstance(node.op, Product):
            for at in {backward.source(graph, factor) for factor in node.inputs}:
                readers.setdefault(at, []).append(reader)
    return dict(sorted(readers.items()))


def needed(graph: Graph, boxes: list[Box]) -> Boxes:
    """The boxes that relaxations need, and those of the nodes that can be split, from the boxes of all nodes."""
    read = {i for node in graph.nodes if node.op.relaxed for i in node.inputs}
    return {at: boxes[at] for at in sorted(read.union(split_readers(graph)))}


def clipped(graph: Graph, inner: Boxes, free: Multipliers) -> Boxes:
    """The boxes within the known ranges; a node that only moves entries has those of the node they come from."""
    boxes = dict(inner)
    for at, floor in free.floors.items():
        boxes[at] = Box(torch.maximum(inner[at].lower, floor), torch.minimum(inner[at].upper, free.ceilings[at]))
    return _carried(graph, boxes)


def _carried(graph: Graph, boxes: Boxes) -> Boxes:
    """The boxes, where those of nodes that only move entries lie within those of the nodes they come from."""
    result = dict(boxes)
    for at, box in boxes.items():
        source = backward.source(graph, at)
        if source != at and source in boxes:
            result[at] = box.intersect(_moved(graph, at, source, boxes[source]))
    return result


def _moved(graph: Graph, at: int, source: int, box: Box) -> Box:
    """The box of node `at`, which has the entries of another node, from a box of that node."""
    if at == source:
        return box
    op, (before,) = graph.nodes[at].op, graph.nodes[at].inputs
    assert isinstance(op, Affine)
    return interval.moved(op, _moved(graph, before, source, box))


@dataclass(frozen=True, eq=False)
class Multipliers:
    """The multipliers of N bounds, and the known ranges."""

    below: ByNode  # alpha, the free slopes below an op, by its position; of a product, the shares of its planes
    above: ByNode  # likewise above it, if they are free
    weights: ByNode  # w, by the position of a node that can be split; 0 where no range is known
    floors: ByNode  # l, -inf where it is not known
    ceilings: ByNode  # u, inf where it is not known
    shares: ByNode = field(default_factory=dict)  # w, the shares of the coefficients that go to pairs: [N, P, 2]
    tilts: ByNode = field(default_factory=dict)  # t, the slopes of the pairs

    @classmethod
    def begin(cls, graph: Graph, inner: Boxes) -> Multipliers:
        """The slopes with the smallest areas, and no known range."""
        relaxed = (at for at, node in enumerate(graph.nodes) if node.op.relaxed)
        free = {at: envelopes.begin(graph.nodes[at], inner) for at in relaxed}
        images = {at: torch.zeros_like(inner[at].lower) for at in split_readers(graph)}
        floors, ceilings = ({at: image + end for at, image in images.items()} for end in (-torch.inf, torch.inf))
        return cls(*_columns(free), images, floors, ceilings)

    def of(self, at: int) -> Free:
        """The free numbers of an op."""
        return tuple(part[at] for part in (self.below, self.above) if at in part)

    @property
    def free(self) -> list[Tensor]:
        """The optimised tensors: all slopes, all weights, then the shares and slopes of pairs."""
        return [value for part in self._free() for value in part.values()]

    def with_free(self, values: list[Tensor]) -> Multipliers:
        """The same ranges with other multipliers, in the order of `free`."""
        rest = iter(values)
        below, above, weights, shares, tilts = ({at: next(rest) for at in part} for part in self._free())
        return replace(self, below=below, above=above, weights=weights, shares=shares, tilts=tilts)

    def with_slopes(self, free: dict[int, Free]) -> Multipliers:
        """With other free numbers of ops, by their positions."""
        below, above = _columns(free)
        return replace(self, below=self.below | below, above=self.above | above)

    def with_range(self, place: Tensor, low: Tensor, high: Tensor) -> Multipliers:
        """With one more known range in each sub-problem: of the entry at a place [N] (see `put`), [N] each."""
        return replace(self, floors=put(self.floors, place, low), ceilings=put(self.ceilings, place, high))

    def with_pairs(self, chosen: dict[int, Pairs]) -> Multipliers:
        """With initial multipliers for the pairs of each of the N bounds."""
        begin = {at: part.begin() for at, part in chosen.items()}
        shares, tilts = ({at: both[i] for at, both in begin.items()} for i in (0, 1))
        return replace(self, shares=shares, tilts=tilts)

    def map(self, change: Callable[[Tensor], Tensor]) -> Multipliers:
        """The multipliers after `change`."""
        return self.with_free([change(value) for value in self.free])

    def to(self, dtype: torch.dtype) -> Multipliers:
        """The same multipliers and ranges in another precision."""
        return Multipliers(*({at: value.to(dtype) for at, value in part.items()} for part in self._parts()))

    def take(self, chosen: Tensor) -> Multipliers:
        return Multipliers(*({at: value[chosen] for at, value in part.items()} for part in self._parts()))

    def join(self, other: Multipliers) -> Multipliers:
        pairs = zip(self._parts(), other._parts(), strict=True)
        return Multipliers(*({at: torch.cat([a[at], b[at]]) for at in a} for a, b in pairs))

    def _free(self) -> tuple[ByNode, ...]:
        return self.below, self.above, self.weights, self.shares, self.tilts

    def _parts(self) -> tuple[ByNode, ...]:
        return self.below, self.above, self.weights, self.floors, self.ceilings, self.shares, self.tilts


def _columns(free: dict[int, Free]) -> tuple[ByNode, ByNode]:
    """The free numbers below and above ops."""
    below, above = ({at: part[i] for at, part in free.items() if len(part) > i} for i in (0, 1))
    return below, above


def places(images: ByNode, place: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Where a place [N] is, which counts the entries of all nodes in order: for each node, the index of an entry, and
    whether that is the place, [N, 1] each."""
    start = 0
    for at in sorted(images):
        size = math.prod(images[at].shape[1:])
        here = (place - start).clamp(0, size - 1).unsqueeze(1)
        yield at, here, ((place >= start) & (place < start + size)).unsqueeze(1)
        start += size


def put(images: ByNode, place: Tensor, value: Tensor) -> ByNode:
    """The images with one entry changed per sub-problem, at its place [N] (see `places`)."""
    return {
        at: _put(images[at], here, there, value.to(images[at].dtype).unsqueeze(1))
        for at, here, there in places(images, place)
    }


def _put(image: Tensor, here: Tensor, there: Tensor, value: Tensor) -> Tensor:
    """An image [N, *node] with other values [N, 1] of the entries `here`, where they are `there`."""
    flat = image.flatten(1)
    return flat.scatter(1, here, torch.where(there, value, flat.gather(1, here))).view_as(image)


@dataclass(frozen=True, eq=False)
class Bounds:
    """N bounds, and the forms that they were computed from."""

    values: Tensor  # [N]
    form: LinearForm  # over the input, [N, 1, *shape]
    relaxed: ByNode = field(default_factory=dict)  # coefficients of the output of each relaxed op, by its position


@dataclass(frozen=True, eq=False)
class Relaxation:
    """The relaxation of a network over the clipped boxes of N sub-problems, without the multipliers."""

    graph: Graph
    around: dict[int, Envelope]  # by the position of the relaxed op
    weights: dict[int, tuple[Tensor, Tensor]]  # the least and the greatest weight w that the known ranges allow
    pairs: dict[int, Pairs]
    ends_at_zero: frozenset[int]  # the nodes that only ReLUs read: w z is at least 0 there
    losses: Losses | None = None  # of an outward graph

    @classmethod
    def of(
        cls,
        graph: Graph,
        inner: Boxes,
        free: Multipliers,
        chosen: dict[int, Pairs],
        losses: Losses | None = None,
        whole: Boxes | None = None,
    ) -> Relaxation:
        relaxed = (at for at, node in enumerate(graph.nodes) if node.op.relaxed)
        around = {at: envelopes.envelope(graph.nodes[at], inner, whole) for at in relaxed}
        ends_at_zero = frozenset(
            at for at, each in split_readers(graph).items() if all(isinstance(graph.nodes[i].op, ReLU) for i in each)
        )
        weights = {at: _signs(floor, free.ceilings[at], at in ends_at_zero) for at, floor in free.floors.items()}
        couples = {at: part.within(inner[at]) for at, part in chosen.items()}
        return cls(graph, around, weights, couples, ends_at_zero, losses)

    def admitted(self, free: Multipliers) -> Multipliers:
        """The multipliers, with slopes and weights moved into their ranges."""
        weights = {at: weight.clamp(*self.weights[at]) for at, weight in free.weights.items()}
        slopes = {at: around.admitted(free.of(at)) for at, around in self.around.items()}
        return replace(free.with_slopes(slopes), weights=weights)

    def take(self, chosen: Tensor) -> Relaxation:
        around = {at: each.take(chosen) for at, each in self.around.items()}
        weights = {at: (least[chosen], greatest[chosen]) for at, (least, greatest) in self.weights.items()}
        couples = {at: each.take(chosen) for at, each in self.pairs.items()}
        lost = None if self.losses is None else [loss.take(chosen) for loss in self.losses]
        return Relaxation(self.graph, around, weights, couples, self.ends_at_zero, lost)

    def split(
        self, inner: Boxes, free: Multipliers, place: Tensor, low: Tensor, high: Tensor
    ) -> tuple[Relaxation, Multipliers]:
        """The relaxation where the entry at a place [N] (see `put`) is in [low, high], [N] each, with slopes for it.

        `inner` are the boxes of this relaxation. Weights stay as they are.
        """
        entry, around, slopes = Box(low.unsqueeze(1), high.unsqueeze(1)), dict(self.around), dict[int, Free]()
        readers = split_readers(self.graph)
        for at, here, there in places(free.weights, place):
            spot = functools.partial(_put, here=here, there=there)
            for reader in readers[at]:
                before, numbers = self.around[reader], free.of(reader)
                if isinstance(before, Lined):
                    alone = before.alone(entry, here)
                    own = alone.admitted(tuple(value.flatten(1).gather(1, here) for value in numbers))
                    around[reader] = before.put(spot, alone)
                    slopes[reader] = tuple(spot(old, value=new) for old, new in zip(numbers, own, strict=True))
        products = [at for at, each in around.items() if isinstance(each, ProductPlanes)]
        if products:
            boxes = clipped(self.graph, inner, free.with_range(place, low, high))
            around |= {at: envelopes.envelope(self.graph.nodes[at], boxes) for at in products}
        return replace(self, around=around), free.with_slopes(slopes)

    def bounds(self, region: Region, spec: Tensor, free: Multipliers) -> Bounds:
        """The bounds of N forms, spec [N, *output], over N regions, for admitted multipliers."""
        relaxed = dict[int, Tensor]()

        def relax(at: int, node: Node, form: Form) -> tuple[Form, ...]:
            relaxed[at] = form.dense().coefficients.squeeze(1)
            lines, read = self.around[at].around(free.of(at)), node.inputs[0]
            if read not in free.shares or not isinstance(node.op, ReLU):
                return backward.by_lines({at: lines})(at, node, form)
            assert isinstance(lines, Lines)
            losses = None if self.losses is None else (self.losses[read], self.losses[at])
            return (pairs.relaxed(form, lines, self.pairs[read], free.shares[read], free.tilts[read], losses),)

        step = backward.rule(relax, self.losses)

        def rule(at: int, node: Node, form: Form) -> backward.Shares:
            return step(at, node, form + self._ranges(at, free) if at in free.weights else form)

        end = len(self.graph.nodes) - 1
        start = rounding.begun(LinearForm(spec.unsqueeze(1), 0.0), end, self.losses)
        last = walk_backward(self.graph, rule, start)
        last = last + self._ranges(0, free) if 0 in free.weights else last
        last = rounding.ended(last, 0, self.losses).dense()
        return Bounds(last.minimum(region).squeeze(1), last, relaxed)

    def _ranges(self, at: int, free: Multipliers) -> Form:
        """A form of a node that is at most 0 where its known ranges hold: <-w, z> + sum (l if w > 0 else u) w."""
        weight = free.weights[at]
        if at in self.ends_at_zero:
            return rounding.begun(LinearForm(-weight.unsqueeze(1), 0.0), at, self.losses)
        terms = (weight * _edges(weight.detach(), free.floors[at], free.ceilings[at])).flatten(1)
        constant = terms.sum(1, keepdim=True)
        if self.losses is not None:
            constant = constant - rounding.of_sum(terms) - self.losses[at].floor
        return rounding.begun(LinearForm(-weight.unsqueeze(1), constant), at, self.losses)


def _signs(floor: Tensor, ceiling: Tensor, ends_at_zero: bool) -> tuple[Tensor, Tensor]:
    """The least and the greatest weight of entries with these ranges."""
    below, above = (0.0, 0.0) if ends_at_zero else (-torch.finfo(floor.dtype).max, torch.finfo(floor.dtype).max)
    none = torch.zeros_like(floor)
    return torch.where(ceiling <= above, -torch.inf, none), torch.where(floor >= below, torch.inf, none)


def _edges(weight: Tensor, floor: Tensor, ceiling: Tensor) -> Tensor:
    """The end of the range that a weight is about: the lower one if it is positive, and the upper one if negative.

    At 0 it is the middle: a gradient that increases the bound if the value lies outside the range.
    """
    low = torch.where(floor.isinf(), torch.where(ceiling.isinf(), 0.0, ceiling), floor)
    high = torch.where(ceiling.isinf(), low, ceiling)
    return torch.where(weight > 0, low, torch.where(weight < 0, high, (low + high) / 2))


def bounds_at(
    graph: Graph,
    region: Region,
    spec: Tensor,
    inner: Boxes,
    free: Multipliers,
    chosen: dict[int, Pairs] | None = None,
    losses: Losses | None = None,
    whole: Boxes | None = None,
) -> Bounds:
    """The bounds of N forms over N regions, for these multipliers.

    Args:
        graph: a frozen graph.
        region, spec, inner: N regions, N forms of the output [N, *output], and the clipped boxes.
        free: the multipliers.
        chosen: the pairs that the multipliers have parts for.
        losses: those of an outward graph, over the boxes before they were clipped.
        whole: these boxes, if there are losses.
    """
    assert graph.outward == (losses is not None)
    assert (whole is None) == (losses is None)
    relaxation = Relaxation.of(graph, inner, free, chosen or {}, losses, whole)
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
    relaxation = Relaxation.of(graph.rounded_outward(False), inner, free, chosen or {})
    now = relaxation.admitted(free)
    kept = now.map(torch.clone)
    moments = [(torch.zeros_like(value), torch.zeros_like(value)) for value in now.free]
    best = torch.full_like(spec.flatten(1)[:, 0], -torch.inf)
    on = torch.arange(len(best), device=best.device)  # the positions of the unfinished bounds
    rates = [slope_rate] * (len(now.below) + len(now.above)) + [weight_rate] * len(now.weights)
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

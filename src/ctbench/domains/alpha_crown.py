"""alpha-CROWN: CROWN whose free slopes are optimised. Xu et al. 2021, "Fast and complete".

    bound = max over alpha in [0, 1] of CROWN's, with the lower slope  least + alpha (greatest - least)

where [least, greatest] is the range of f' on the pre-activation bounds. Every form has its own slopes. Any slopes are
sound, so the ascent may end at any step, and the best bound of all steps counts. It begins at the adaptive slopes, so
the result is never below that of CROWN with the same pre-activation bounds.

    bounds = AlphaCrown(steps=20, intermediate=True).lower_bounds(graph, region, spec)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar, Self

import torch
from torch import Tensor

from ctbench import memory_budget, time_budget
from ctbench.domains import adam, backward, crown, interval, rounding
from ctbench.domains.base import Domain
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.relaxations import adaptive
from ctbench.domains.rounding import Losses
from ctbench.graph import Elementwise, Graph, Lines, Node, Twin
from ctbench.graph.ops import Max, Planes, Product
from ctbench.graph.ops.curves import Curve
from ctbench.regions import Box, Region

KEPT = 8  # tensors as large as the coefficients, per node: slopes, the moments of Adam, and tensors for gradients

Key = tuple[int, int]  # the node at which the forms begin, and the node at which they are relaxed


@dataclass(frozen=True, kw_only=True)
class AlphaCrown(Domain):
    """alpha-CROWN: the slopes are optimised for each form (Xu et al. 2021).

    Args:
        steps: the number of steps of Adam on the slopes.
        lr: the size of the first step; each later one is `decay` times as large.
        decay: see `lr`.
        intermediate: also optimise the slopes of the pre-activation bounds, for each unstable neuron and the sum of the
            bounds of its sample. This is much tighter, and needs much more time and memory.
        stop: a form with a bound above this is finished, and a sample is finished if all its forms are. None takes all
            steps; a certification then stops at 0.

    Raises:
        ValueError: steps, lr or decay is out of range.
    """

    name: ClassVar[str] = "alpha-crown"
    steps: int = 20
    lr: float = 0.1
    decay: float = 0.98
    intermediate: bool = False
    stop: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.lr < math.inf or not 0 < self.decay <= 1:
            raise ValueError(
                f"steps={self.steps}, lr={self.lr}, decay={self.decay}: take steps >= 0, lr > 0 and decay in (0, 1]"
            )

    def for_signs(self) -> AlphaCrown:
        return self if self.stop is not None else replace(self, stop=0.0)

    def footprint(self, graph: Graph, forms: int) -> int:
        """CROWN's, and for each form the tensors that autograd keeps at every node."""
        return crown.footprint(graph, forms) + KEPT * forms * sum(math.prod(node.shape) for node in graph.nodes)

    def boxes(self, graph: Graph, region: Region, *, memory: int = memory_budget.DEFAULT) -> list[Box]:
        """The boxes of CROWN: slopes are optimised for a specification, and those of the boxes only along with it."""
        return crown.boxes(graph, region, memory=memory)

    def lower_bounds(
        self,
        graph: Graph,
        region: Region,
        spec: Tensor,
        *,
        inner: list[Box] | None = None,
        memory: int = memory_budget.DEFAULT,
    ) -> Tensor:
        """Lower bounds [B, S].

        Raises:
            OutOfTime: before a pass, where `time_budget.until` set a moment that has come.
        """
        base = crown.boxes(graph, region, memory=memory) if inner is None else list(inner)
        if self.intermediate:
            forms = Forms(graph, region, spec, base)
            twin = Twin(forms, forms)
            return tightened(twin, steps=self.steps, lr=self.lr, decay=self.decay, stop=self.stop)[0]
        with torch.enable_grad():
            search = _Search(_searched(graph), region, _detached(base), spec.detach(), {})
            _, slopes = _ascend(search, self.steps, self.lr, self.decay, self.stop)
        return _Search.of(graph, region, base, spec, {}).bounds(slopes)[-1]


footprint, boxes, lower_bounds = AlphaCrown().footprint, AlphaCrown().boxes, AlphaCrown().lower_bounds


@dataclass(frozen=True, eq=False)
class Forms:
    """Linear forms of the output to bound over a region, with boxes of all nodes."""

    graph: Graph
    region: Region
    spec: Tensor  # [B, S, *output]
    inner: list[Box]


def tightened(
    forms: Twin[Forms],
    *,
    steps: int = 20,
    lr: float = 0.1,
    decay: float = 0.98,
    stop: float | None = None,
    end: float = math.inf,
) -> tuple[Tensor, list[Box]]:
    """Lower bounds [B, S], and the boxes that they use: all slopes are optimised for the specification.

    Slopes are searched for `forms.search`; bounds and boxes are computed with them for `forms.proof`, which may be in
    another precision. The options are those of `AlphaCrown`; no step begins after the moment `end`.
    """
    graph, region, spec, inner = forms.search.graph, forms.search.region, forms.search.spec, forms.search.inner
    targets = _targets(graph, region, inner)
    with torch.enable_grad():
        search = _Search(_searched(graph), region, _detached(inner), spec.detach(), targets)
        best, slopes = _ascend(search, steps, lr, decay, stop, end)
    if forms.proof is not forms.search:
        graph, region, spec, inner = forms.proof.graph, forms.proof.region, forms.proof.spec, forms.proof.inner
        slopes = {key: value.to(spec.dtype) for key, value in slopes.items()}
    if forms.proof is not forms.search or graph.outward:
        best = _Search.of(graph, region, inner, spec, targets).bounds(slopes)
    # the best slopes of a form were found with other boxes; with these, the slopes of CROWN may be better
    other = torch.maximum(best[-1], _Search.of(graph, region, inner, spec, {}).bounds({})[-1])
    boxes = list(inner)
    for at, node in enumerate(graph.nodes):
        if at in targets:
            boxes[at] = boxes[at].intersect(_box(targets[at], best[at], boxes[at]))
        elif backward.source(graph, at) in targets:
            boxes[at] = boxes[at].intersect(interval.moved(node.op, boxes[node.inputs[0]]))
    return torch.maximum(_Search.of(graph, region, boxes, spec, {}).bounds(slopes)[-1], other), boxes


def tightening_footprint(graph: Graph, region: Region, inner: list[Box]) -> int:
    """The largest number of numbers that `tightened` holds at once per sample; windows need less."""
    widths = [0, *accumulate(math.prod(node.shape) for node in graph.nodes)]
    forms = {at: 2 * index.shape[1] for at, index in _targets(graph, region, inner).items()}
    return KEPT * sum(count * widths[at] for at, count in forms.items())


def _searched(graph: Graph) -> Graph:
    """The graph for the search of slopes, without outward rounding: only the final bounds are rounded outward."""
    return graph.detach().rounded_outward(False)


def _detached(boxes: list[Box]) -> list[Box]:
    return [Box(box.lower.detach(), box.upper.detach()) for box in boxes]


@dataclass
class _Slopes:
    """The slopes of some forms at a node, as shares of the way from the least to the greatest slope, and their moments.

    All are [N, B, S, entries]; N is 1, or 2 if the upper line is also free.
    """

    value: Tensor
    best: Tensor
    mean: Tensor
    square: Tensor

    @classmethod
    def of(cls, value: Tensor) -> Self:
        return cls(value, value, torch.zeros_like(value), torch.zeros_like(value))

    def ascend(self, gradient: Tensor, step: int, size: float) -> None:
        """Take one step of Adam upward; the first one has the number 1."""
        direction, self.mean, self.square = adam.direction(gradient, self.mean, self.square, step)
        self.value = (self.value + size * direction).clamp(0, 1)

    def keep(self, better: Tensor) -> None:
        """Remember the current slopes of the forms that `better` [B, S] marks."""
        self.best = torch.where(better.unsqueeze(-1), self.value, self.best)

    def take(self, samples: Tensor) -> _Slopes:
        return _Slopes(*(tensor[:, samples] for tensor in (self.value, self.best, self.mean, self.square)))


def _ascend(
    search: _Search, steps: int, lr: float, decay: float, stop: float | None, end: float = math.inf
) -> tuple[dict[int, Tensor], dict[Key, Tensor]]:
    """The best bounds of the specification and of the targets, [B, S], and the best slopes of each form."""
    values = dict[Key, Tensor]()
    bounds = search.bounds(values)
    best = {at: bound.detach() for at, bound in bounds.items()}
    slopes = {key: _Slopes.of(value.detach()) for key, value in values.items()}
    result = {at: bound.clone() for at, bound in best.items()}
    kept = {key: value.detach().clone() for key, value in values.items()}
    samples = torch.arange(len(result[-1]), device=result[-1].device)  # the positions of the unfinished samples

    for step in range(1, steps + 1):
        done = torch.zeros_like(best[-1], dtype=torch.bool) if stop is None else best[-1] > stop
        gain = bounds[-1].masked_fill(done, 0.0).sum()
        if bool(done.all()) or not values or time_budget.now() >= end:
            break
        gradients = torch.autograd.grad(gain, list(values.values()), materialize_grads=True)
        for slope, gradient in zip(slopes.values(), gradients, strict=True):
            slope.ascend(gradient, step, lr * decay ** (step - 1))
        if bool(done.all(1).any()):
            on = ~done.all(1)
            samples, search = samples[on], search.take(on)
            slopes = {key: slope.take(on) for key, slope in slopes.items()}
            best = {at: bound[on] for at, bound in best.items()}
        # the slopes themselves must not require gradients: otherwise every step would keep all steps before it
        values = {key: slope.value.detach().requires_grad_() for key, slope in slopes.items()}
        bounds = search.bounds(values)
        for at, bound in bounds.items():
            better = bound.detach() > best[at]
            best[at] = torch.where(better, bound.detach(), best[at])
            result[at][samples] = best[at]
            for key, slope in slopes.items():
                if key[0] == at:
                    slope.keep(better)
        for key, slope in slopes.items():
            kept[key][:, samples] = slope.best.detach()
    return result, kept


@dataclass(frozen=True)
class _Search:
    """Bounds of a specification, and of the neurons that it depends on, as functions of slopes."""

    graph: Graph
    region: Region
    base: list[Box]
    spec: Tensor  # [B, S, *output]
    targets: dict[int, Tensor]  # the neurons to bound at a node, [B, P]
    losses: Losses | None = None  # of an outward graph

    @classmethod
    def of(cls, graph: Graph, region: Region, base: list[Box], spec: Tensor, targets: dict[int, Tensor]) -> _Search:
        return cls(graph, region, base, spec, targets, rounding.losses(graph, region, base))

    def take(self, samples: Tensor) -> _Search:
        base = [Box(box.lower[samples], box.upper[samples]) for box in self.base]
        targets = {at: index[samples] for at, index in self.targets.items()}
        lost = None if self.losses is None else [loss.take(samples) for loss in self.losses]
        return _Search(self.graph, self.region.take(samples), base, self.spec[samples], targets, lost)

    def bounds(self, slopes: dict[Key, Tensor]) -> dict[int, Tensor]:
        """Lower bounds [B, S] by node: of the target neurons and of their negatives, and of the specification at -1.

        Missing slopes are added, with the adaptive values.
        """
        boxes, bounds = list[Box](), dict[int, Tensor]()
        readers = backward.relaxed_readers(self.graph)
        for at, node in enumerate(self.graph.nodes):
            box = self.base[at]
            if at in self.targets:
                form = backward.neurons(self.targets[at], node.shape, box.lower.new_tensor([1.0, -1.0]))
                bounds[at] = self._back(form, at, boxes, slopes)
                # without an intersection with the old box: if the old box is better, slopes would get no gradient
                tightened = _box(self.targets[at], bounds[at], box)
                # but rounding losses were computed for slopes that the old boxes allow, and curves such as a logarithm
                # may not be defined beyond them
                inside = self.losses is not None or any(isinstance(op, Curve) for op in readers[at])
                box = tightened.intersect(box) if inside else tightened
            elif backward.source(self.graph, at) in self.targets:
                box = interval.moved(node.op, boxes[node.inputs[0]])
            boxes.append(box)
        bounds[-1] = self._back(LinearForm(self.spec, 0.0), len(boxes) - 1, boxes, slopes)
        return bounds

    def _back(self, form: Form, at: int, inner: list[Box], slopes: dict[Key, Tensor]) -> Tensor:
        time_budget.check()

        def relax(reader: int, node: Node, form: Form) -> tuple[Form, ...]:
            if isinstance(node.op, Max):
                return backward.by_lines({reader: backward.lines_of(node, inner, adaptive)})(reader, node, form)
            form, box = form.inside(), inner[node.inputs[0]]
            key = -1 if at == len(self.graph.nodes) - 1 else at, reader
            if isinstance(node.op, Product):
                planes = _planes(node.op, form, (box, inner[node.inputs[1]]), slopes, key)
                return form.between(planes.first), form.without_constant().between(planes.second)
            assert isinstance(node.op, Elementwise)
            whole = None if self.losses is None else self.base[node.inputs[0]]
            return (form.between(_lines(node.op, form, box, whole, slopes, key)),)

        return backward.back_to_input(self.graph, form, relax, self.losses, at).minimum(self.region)


def _box(index: Tensor, bounds: Tensor, other: Box) -> Box:
    """A box with these bounds [B, 2 P] of the neurons in `index` [B, P] and of their negatives; otherwise `other`."""
    least, most_negative = bounds.chunk(2, dim=1)
    box = backward.scattered(index, least, -most_negative, other.lower.shape)
    there = box.lower > -math.inf
    return Box(torch.where(there, box.lower, other.lower), torch.where(there, box.upper, other.upper))


def _targets(graph: Graph, region: Region, base: list[Box]) -> dict[int, Tensor]:
    """The neurons of each node whose bounds matter and can be better than those of intervals, [B, P]."""
    targets = dict[int, Tensor]()
    for at, readers in backward.relaxed_readers(graph).items():
        if not backward.exact_by_intervals(graph, at, region):
            chosen = backward.open_neurons(readers, base[at]).flatten(1)
            if bool(chosen.any()):
                targets[at] = backward.positions(chosen)
    return targets


def _lines(op: Elementwise, form: Form, box: Box, whole: Box | None, slopes: dict[Key, Tensor], key: Key) -> Lines:
    """The lines of an op with the slopes of a form; `whole` is the box for which rounding was bounded."""
    least, greatest = (form.view(slope) for slope in backward.slopes_within(op, box, whole))
    if key not in slopes:
        width = torch.where(greatest > least, greatest - least, 1.0)
        tightest = op.tightest(box.lower, box.upper)
        shares = [((form.view(slope) - least) / width).clamp(0, 1) for slope in tightest[: 1 if op.convex else 2]]
        start = torch.stack([share.expand(form.coefficients.shape) for share in shares])
        slopes[key] = start.reshape(len(start), len(start[0]), form.count, form.width).detach().requires_grad_()
    share = slopes[key].view(len(slopes[key]), *form.coefficients.shape)
    low = least + share[0] * (greatest - least)
    high = form.view(op.chord(box.lower, box.upper)) if op.convex else least + share[1] * (greatest - least)
    return op.seen_by(form.view, box.lower).lines(form.view(box.lower), form.view(box.upper), low, high)


def _planes(op: Product, form: Form, boxes: tuple[Box, Box], slopes: dict[Key, Tensor], key: Key) -> Planes:
    """The planes of a product with the shares of a form: how far each one lies between the two planes of McCormick."""
    if key not in slopes:
        start = torch.full_like(form.coefficients, 0.5).expand(2, *form.coefficients.shape)
        slopes[key] = start.reshape(2, len(start[0]), form.count, form.width).requires_grad_()
    low, high = slopes[key].view(2, *form.coefficients.shape)
    first, second = ((form.view(box.lower), form.view(box.upper)) for box in boxes)
    return op.planes(first, second, low, high)

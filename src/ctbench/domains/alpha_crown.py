"""alpha-CROWN: CROWN whose free slopes are optimised. Xu et al. 2021, "Fast and complete".

    bound = max over alpha in [0, 1] of CROWN's, with the lower slope  least + alpha (greatest - least)

where [least, greatest] is the range of f' on the pre-activation bounds. Every form has slopes of its own; any of them
are sound, so the ascent may end at any step, and the best bound of all steps counts. It begins at the adaptive slopes
and is therefore never below CROWN with the same pre-activation bounds.

    bounds = alpha_crown.lower_bounds(graph, region, spec, steps=20, intermediate=True)
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar, Self

import torch
from torch import Tensor

from ctbench import budget, deadline
from ctbench.domains import adam, backward, crown, rounding
from ctbench.domains.base import Domain
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.relaxations import adaptive
from ctbench.domains.rounding import Losses
from ctbench.graph import Elementwise, Graph, Lines, Node
from ctbench.graph.ops import Max
from ctbench.regions import Box, Region

KEPT = 8  # tensors as large as the coefficients, for each node: slopes, Adam's memory, and what gradients need

Key = tuple[int, int]  # the forms begin at the first node, and are relaxed at the second


@dataclass(frozen=True, kw_only=True)
class AlphaCrown(Domain):
    """alpha-CROWN: the slopes are optimised for each form (Xu et al. 2021).

    Args:
        steps: of Adam on the slopes.
        lr: the size of the first step; each later one is `decay` times as large.
        decay: see `lr`.
        intermediate: also optimise the slopes that the pre-activation bounds are made with: those of each unstable
            neuron, for the sum of the bounds of its sample. Much tighter, and much more to compute and to hold.
        stop: a form whose bound is above this is done; a sample whose forms all are is not worked on any more. None
            makes all steps, and in a certification stops at 0.

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
        _check_settings(self.steps, self.lr, self.decay)

    def for_signs(self) -> AlphaCrown:
        return self if self.stop is not None else replace(self, stop=0.0)

    def footprint(self, graph: Graph, forms: int) -> int:
        return footprint(graph, forms)

    def boxes(self, graph: Graph, region: Region, *, memory: int = budget.DEFAULT) -> list[Box]:
        return crown.boxes(graph, region, memory=memory)

    def lower_bounds(
        self,
        graph: Graph,
        region: Region,
        spec: Tensor,
        *,
        inner: list[Box] | None = None,
        memory: int = budget.DEFAULT,
    ) -> Tensor:
        return lower_bounds(
            graph,
            region,
            spec,
            inner=inner,
            steps=self.steps,
            lr=self.lr,
            decay=self.decay,
            intermediate=self.intermediate,
            stop=self.stop,
            memory=memory,
        )


def footprint(graph: Graph, forms: int) -> int:
    """How many numbers are held at once for a sample: CROWN's, and for each form what autograd keeps at every node."""
    return crown.footprint(graph, forms) + KEPT * forms * sum(math.prod(node.shape) for node in graph.nodes)


def boxes(graph: Graph, region: Region) -> list[Box]:
    """CROWN's boxes: the slopes are optimised for a specification, and those of the boxes only along with it."""
    return crown.boxes(graph, region)


def lower_bounds(
    graph: Graph,
    region: Region,
    spec: Tensor,
    *,
    inner: list[Box] | None = None,
    steps: int = 20,
    lr: float = 0.1,
    decay: float = 0.98,
    intermediate: bool = False,
    stop: float | None = None,
    memory: int = crown.DEFAULT_MEMORY,
) -> Tensor:
    """Lower bounds of S linear forms of the output over the region.

    Args:
        graph: a frozen graph.
        region: the inputs, for B samples.
        spec: the forms, [B, S, *output].
        inner: sound boxes of all nodes; None computes CROWN's.
        steps: of Adam on the slopes.
        lr: the size of the first step; each later one is `decay` times as large.
        decay: see `lr`.
        intermediate: also optimise the slopes that the pre-activation bounds are made with: those of each unstable
            neuron, for the sum of the bounds of its sample. Much tighter, and much more to compute and to hold.
        stop: a form whose bound is above this is done; a sample whose forms all are is not worked on any more.
        memory: as in `crown.boxes`, for the boxes that `inner` does not give.

    Returns:
        The bounds, [B, S].

    Raises:
        ValueError: steps, lr or decay is out of range.
        OutOfTime: before a pass, where `deadline.until` set a moment that has come.
    """
    _check_settings(steps, lr, decay)
    base = crown.boxes(graph, region, memory=memory) if inner is None else list(inner)
    if intermediate:
        return tightened(graph, region, spec, base, steps=steps, lr=lr, decay=decay, stop=stop)[0]
    with torch.enable_grad():
        search = _Search(_searched(graph), region, _detached(base), spec.detach(), {})
        _, slopes = _ascend(search, steps, lr, decay, stop)
    return _Search.of(graph, region, base, spec, {}).bounds(slopes)[-1]


def _check_settings(steps: int, lr: float, decay: float) -> None:
    if steps < 0 or not 0 < lr < math.inf or not 0 < decay <= 1:
        raise ValueError(f"steps={steps}, lr={lr}, decay={decay}: take steps >= 0, lr > 0 and decay in (0, 1]")


def tightened(
    graph: Graph,
    region: Region,
    spec: Tensor,
    inner: list[Box],
    *,
    steps: int = 20,
    lr: float = 0.1,
    decay: float = 0.98,
    stop: float | None = None,
    seconds: float = math.inf,
    exact: tuple[Graph, Region, Tensor, list[Box]] | None = None,
) -> tuple[Tensor, list[Box]]:
    """Lower bounds [B, S], and the boxes that they are made with: all slopes are optimised for the specification.

    Arguments are as in `lower_bounds`; and no step begins after so many seconds. With `exact`, the same in another
    precision, slopes are found in the first one, and the bounds and boxes that they give are computed in that.
    """
    targets = _targets(graph, region, inner)
    with torch.enable_grad():
        search = _Search(_searched(graph), region, _detached(inner), spec.detach(), targets)
        best, slopes = _ascend(search, steps, lr, decay, stop, seconds)
    if exact is not None:
        graph, region, spec, inner = exact
        slopes = {key: value.to(spec.dtype) for key, value in slopes.items()}
    if exact is not None or graph.outward:
        best = _Search.of(graph, region, inner, spec, targets).bounds(slopes)
    # a form's best slopes were found with other boxes, and need not be as good with these, or as those of CROWN
    other = torch.maximum(best[-1], _Search.of(graph, region, inner, spec, {}).bounds({})[-1])
    boxes = list(inner)
    for at, index in targets.items():
        boxes[at] = boxes[at].intersect(_box(index, best[at], boxes[at]))
    return torch.maximum(_Search.of(graph, region, boxes, spec, {}).bounds(slopes)[-1], other), boxes


def tightening_footprint(graph: Graph, region: Region, inner: list[Box]) -> int:
    """How many numbers `tightened` holds at once for a sample, at most: windows need less."""
    widths = [0, *accumulate(math.prod(node.shape) for node in graph.nodes)]
    forms = {at: 2 * index.shape[1] for at, index in _targets(graph, region, inner).items()}
    return KEPT * sum(count * widths[at] for at, count in forms.items())


def _searched(graph: Graph) -> Graph:
    """The graph on which slopes are sought: bounds are rounded outward where they count, once these are found."""
    return graph.detach().rounded_outward(False)


def _detached(boxes: list[Box]) -> list[Box]:
    return [Box(box.lower.detach(), box.upper.detach()) for box in boxes]


@dataclass
class _Slopes:
    """The slopes of some forms at a node, as shares of the way from the least to the greatest one, and Adam's memory of
    them. All are [N, B, S, entries]: N is 1, or 2 where the upper line is free, too."""

    value: Tensor
    best: Tensor
    mean: Tensor
    square: Tensor

    @classmethod
    def of(cls, value: Tensor) -> Self:
        return cls(value, value, torch.zeros_like(value), torch.zeros_like(value))

    def ascend(self, gradient: Tensor, step: int, size: float) -> None:
        """One step of Adam upward, the first of which is step 1."""
        way, self.mean, self.square = adam.direction(gradient, self.mean, self.square, step)
        self.value = (self.value + size * way).clamp(0, 1)

    def keep(self, better: Tensor) -> None:
        """Remember the slopes of the forms that are better than before, [B, S]."""
        self.best = torch.where(better.unsqueeze(-1), self.value, self.best)

    def take(self, samples: Tensor) -> _Slopes:
        return _Slopes(*(tensor[:, samples] for tensor in (self.value, self.best, self.mean, self.square)))


def _ascend(
    search: _Search, steps: int, lr: float, decay: float, stop: float | None, seconds: float = math.inf
) -> tuple[dict[int, Tensor], dict[Key, Tensor]]:
    """The best bounds of the specification and of the targets, [B, S], and the slopes that are best for each form."""
    end = time.monotonic() + seconds
    values = dict[Key, Tensor]()
    bounds = search.bounds(values)
    best = {at: bound.detach() for at, bound in bounds.items()}
    slopes = {key: _Slopes.of(value.detach()) for key, value in values.items()}
    result = {at: bound.clone() for at, bound in best.items()}
    kept = {key: value.detach().clone() for key, value in values.items()}
    samples = torch.arange(len(result[-1]), device=result[-1].device)  # those that are still worked on

    for step in range(1, steps + 1):
        done = torch.zeros_like(best[-1], dtype=torch.bool) if stop is None else best[-1] > stop
        gain = bounds[-1].masked_fill(done, 0.0).sum()
        if bool(done.all()) or not values or time.monotonic() > end:
            break
        gradients = torch.autograd.grad(gain, list(values.values()), materialize_grads=True)
        for slope, gradient in zip(slopes.values(), gradients, strict=True):
            slope.ascend(gradient, step, lr * decay ** (step - 1))
        if bool(done.all(1).any()):
            on = ~done.all(1)
            samples, search = samples[on], search.take(on)
            slopes = {key: slope.take(on) for key, slope in slopes.items()}
            best = {at: bound[on] for at, bound in best.items()}
        # the slopes themselves must not require gradients, or every step would keep the ones before it alive
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
    """Bounds of a specification, and of the neurons that it depends on, as a function of slopes."""

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
        """Lower bounds [B, S] of the specification at -1, and at each target's node those of the neurons and of their
        negatives. Slopes that are missing are put in, at the adaptive ones."""
        found, bounds = list[Box](), dict[int, Tensor]()
        for at, node in enumerate(self.graph.nodes):
            box = self.base[at]
            if at in self.targets:
                form = backward.neurons(self.targets[at], node.shape, box.lower.new_tensor([1.0, -1.0]))
                bounds[at] = self._back(form, at, found, slopes)
                # not the better of this and the old box: where the old one is better no slope would get a gradient
                tightened = _box(self.targets[at], bounds[at], box)
                # losses hold for slopes that the old boxes allow
                box = tightened if self.losses is None else tightened.intersect(box)
            found.append(box)
        bounds[-1] = self._back(LinearForm(self.spec, 0.0), len(found) - 1, found, slopes)
        return bounds

    def _back(self, form: Form, at: int, inner: list[Box], slopes: dict[Key, Tensor]) -> Tensor:
        deadline.check()

        def relax(reader: int, node: Node, form: Form) -> Form:
            if isinstance(node.op, Max):
                return backward.under_maximum(form, backward.lines_of(node, inner, adaptive))
            assert isinstance(node.op, Elementwise)
            form, box = form.inside(), inner[node.inputs[0]]
            begin = -1 if at == len(self.graph.nodes) - 1 else at
            return form.between(_lines(node.op, form, box, slopes, (begin, reader)))

        return backward.back_to_input(self.graph, form, relax, self.losses, at).minimum(self.region)


def _box(index: Tensor, bounds: Tensor, other: Box) -> Box:
    """A box of these bounds for the neurons `index` [B, P] and their negatives, [B, 2 P], and the other one's else."""
    least, most_negative = bounds.chunk(2, dim=1)
    box = backward.scattered(index, least, -most_negative, other.lower.shape)
    there = box.lower > -math.inf
    return Box(torch.where(there, box.lower, other.lower), torch.where(there, box.upper, other.upper))


def _targets(graph: Graph, region: Region, base: list[Box]) -> dict[int, Tensor]:
    """The neurons of each node whose bounds count and can be better than those of intervals, [B, P]."""
    found = dict[int, Tensor]()
    for at, box in enumerate(base):
        readers = [graph.nodes[reader].op for reader in graph.readers(at) if graph.nodes[reader].op.relaxed]
        if readers and not backward.exact_by_intervals(graph, at, region):
            chosen = backward.open_neurons(readers, box).flatten(1)
            if bool(chosen.any()):
                found[at] = backward.positions(chosen)
    return found


def _lines(op: Elementwise, form: Form, box: Box, slopes: dict[Key, Tensor], key: Key) -> Lines:
    """The lines at a form's own slopes."""
    least, greatest = (form.view(slope) for slope in op.slopes(box.lower, box.upper))
    if key not in slopes:
        width = torch.where(greatest > least, greatest - least, 1.0)
        tightest = op.tightest(box.lower, box.upper)
        shares = [(form.view(slope) - least) / width for slope in tightest[: 1 if op.convex else 2]]
        start = torch.stack([share.expand(form.coefficients.shape) for share in shares])
        slopes[key] = start.reshape(len(start), len(start[0]), form.count, form.width).detach().requires_grad_()
    share = slopes[key].view(len(slopes[key]), *form.coefficients.shape)
    low = least + share[0] * (greatest - least)
    high = form.view(op.chord(box.lower, box.upper)) if op.convex else least + share[1] * (greatest - least)
    return op.lines(form.view(box.lower), form.view(box.upper), low, high)

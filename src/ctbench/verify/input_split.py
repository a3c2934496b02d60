"""Branch and bound on the input box, for networks with few inputs.

Wang et al. 2018, "Formal security analysis of neural networks using symbolic intervals" (the refinement of ReluVal),
with the bounds of CROWN (Zhang et al. 2018) on every box:

    until no box is open:
        take the boxes with the lowest bounds, of all samples together
        bound their margins by CROWN, with inner boxes of their own, inside those of the box that was halved;
        a box is closed if all margins are positive
        falsified if a centre has a negative margin, or a point on a descent through the region that begins where the
        lowest form of a box is least
        halve each open box at the coordinate i of the largest (c_i / sum c + 1/16) width_i / whole_i

with whole_i the width of the region, and c_i = (s_i / sum s + g_i / sum g) whole_i: s_i is the sum of |a_i| over the
open margins, <a, x> + c the form that bounds a margin, and g_i the speed at which the interval bounds of these margins
fall as the radius grows. A coordinate that hardly counts in the forms may be the one that makes them loose; g sees it,
unless saturated ReLUs hide it from both. The 1/16 lets every coordinate be halved at last. Smaller boxes make every op
tighter, so this takes all ops that CROWN takes: tanh, sigmoid and maxima, not only ReLU. Its time is exponential in the
number of inputs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench import memory_budget
from ctbench.attacks import PGD
from ctbench.domains import Crown, Domain, backward, interval, rounding
from ctbench.domains.backward import Relaxed, relaxed_readers
from ctbench.domains.linear_form import LinearForm
from ctbench.domains.rounding import Losses
from ctbench.graph import Graph, Lines
from ctbench.graph.ops import Max, Shape
from ctbench.regions import Box, Polytope, Region
from ctbench.time_budget import OutOfTime
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.stages import Stage

LEAST_SHARE = 1 / 16  # of a coordinate, whatever its influence
FEWEST, AT_ONCE = 256, 2**18  # boxes of large networks, and values in the boxes of small ones, where calls cost most
MOST_ENTRIES = 64  # of a maximum at the output, of which means are searched for
MEAN_STEPS = 12  # of that search
# from one point of each box, by steps that begin as long as the radius of the region
DESCENT = PGD(steps=5, step_size=1.0, decay_at=(0.4, 0.8), decay=0.3, clean_start=True)
HELD_SHARE = 1 / 4  # of the memory, for the inner boxes of the open boxes


@dataclass(frozen=True, kw_only=True)
class InputSplit(Stage):
    """Branch and bound on the input boxes of all samples together, in double precision.

    The bound of a sample is the least bound of its boxes, so it holds wherever the search ends.

    Args:
        inputs: networks with more inputs than this are left open, and so are regions that are neither boxes nor
            polytopes.
        inner: the domain of the inner boxes. Those of CROWN take a pass back for each unstable neuron; those of a
            zonotope take one pass forward, which large networks can afford.
        least_values: networks with fewer values than this, in all nodes together, are left open.
        batch_subproblems: boxes that are bounded at once on a CPU, but at most 256 if the network has more than 1,024
            values; another device takes more according to its memory. If there is not enough memory, it is halved.
        max_subproblems: boxes that are bounded for a sample before it is given up.
        share: the share of a sample's time that the stage may take, in (0, 1].
    """

    name: ClassVar[str] = "input-split"
    proves: ClassVar[bool] = True
    batch_size: int = 16
    inputs: int = 20
    inner: Domain = field(default_factory=Crown)
    least_values: int = 0
    batch_subproblems: int = 1024
    max_subproblems: int = 100_000
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.batch_subproblems < 1 or self.max_subproblems < 1:
            raise ValueError(
                f"batch_subproblems is {self.batch_subproblems} and max_subproblems is {self.max_subproblems}: "
                f"give whole numbers >= 1"
            )
        if not (isinstance(self.inner, Domain) and self.inner.sound):
            raise ValueError(f"inner is {self.inner!r}: give a sound domain, e.g. Zonotope(fold=500)")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}: it is a share of a sample's time, give a number in (0, 1]")

    @property
    def title(self) -> str:
        return "input-split" if isinstance(self.inner, Crown) else f"input-split-{self.inner.name}"

    def applies(self, problem: Problem) -> bool:
        few = math.prod(problem.net.input_shape) <= self.inputs
        return few and isinstance(problem.region, Box | Polytope) and values(problem.net) >= self.least_values

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        proof = problem.proof
        if not self.applies(proof):
            return Findings()
        budget = problem.allotted(self.share)
        lowest = proof.x.new_full((len(proof),), torch.inf)
        counts, falsified = torch.zeros_like(lowest), torch.zeros_like(lowest, dtype=torch.bool)
        around = inner_boxes(self.inner, proof.net, proof.region)
        frontier, witness = Boxes.whole(proof, around[0]), proof.x.clone()
        most = min(self.batch_subproblems, max(FEWEST, AT_ONCE // values(proof.net)))
        size = memory_budget.grown(most, proof.x.device, self.memory)
        held = int(HELD_SHARE * memory_budget.of(proof.x.device, self.memory))
        while len(frontier):
            part, rest = frontier.worst(size)
            try:
                bound = functools.partial(bounded, part, proof, around, self.inner)
                result = memory_budget.attempt(bound, last=len(part) == 1)
            except OutOfTime:
                if bool(frontier.least.isneginf().any()):
                    raise  # before the first bounds
                lowest = frontier.lowest(lowest)
                budget = budget.charge(frontier.sample)
                break
            if result is None:
                size = (len(part) + 1) // 2
                budget = budget.charge(part.sample)
                continue
            part, influence, corner = result
            owners = proof.select(part.sample)
            for points in (part.box.center, DESCENT(owners.violation, owners.region, corner)):
                points, is_counterexample = owners.counterexamples(owners.region.project(points))
                samples = part.sample[is_counterexample]
                falsified[samples], witness[samples] = True, points[is_counterexample]
            place, is_divisible = part.place(influence, proof.region.hull)
            is_halved = is_divisible & (part.least <= 0)  # not NaN: no half would mend it
            lowest = part.take(~is_halved).lowest(lowest)
            halves = part.take(is_halved).halves(place[is_halved])
            frontier = rest.join(halves).within(held)
            budget = budget.charge(part.sample)
            counts += part.sample.bincount(minlength=len(counts))
            # a box that cannot be halved may have a bound that leaves its sample open for good
            ended = (falsified | (counts >= self.max_subproblems) | budget.is_late | ~(lowest > 0))[frontier.sample]
            if bool(ended.any()):
                lowest, frontier = frontier.take(ended).lowest(lowest), frontier.take(~ended)
        late = budget.is_late | (frontier.sample.bincount(minlength=len(counts)) > 0)
        return Findings(bound=lowest, witness=witness, late=late, seconds=budget.spent)


@dataclass(frozen=True, eq=False)
class Boxes:
    """N boxes in the regions of some samples, and lower bounds of the margins there."""

    sample: Tensor  # [N]
    box: Box  # [N, *shape]
    bounds: Tensor  # [N, S]; a half begins with those of the whole
    inner: Mapping[int, Box] = field(default_factory=dict)  # [N, *node], of pre-activations; likewise; {}: not kept

    @classmethod
    def whole(cls, problem: Problem, boxes: list[Box]) -> Boxes:
        """The regions of all samples of a problem, with the boxes of all nodes."""
        sample = torch.arange(len(problem), device=problem.x.device)
        inner = {at: boxes[at] for at in relaxed_readers(problem.net)}
        return cls(sample, problem.region.hull, torch.full_like(problem.spec[..., 0], -torch.inf), inner)

    def __len__(self) -> int:
        return len(self.sample)

    def region(self, problem: Problem) -> Region:
        """The parts of the regions in the boxes."""
        whole = problem.region
        return whole.take(self.sample).within(self.box) if isinstance(whole, Polytope) else self.box

    @property
    def least(self) -> Tensor:
        """The lowest bound of each box, [N]."""
        return self.bounds.amin(1)

    def lowest(self, before: Tensor) -> Tensor:
        """The lowest bound of each sample, [B], from these boxes and from the bounds before, [B]."""
        return before.scatter_reduce(0, self.sample, self.least, "amin")

    def take(self, chosen: Tensor) -> Boxes:
        inner = {at: box.take(chosen) for at, box in self.inner.items()}
        return Boxes(self.sample[chosen], self.box.take(chosen), self.bounds[chosen], inner)

    def join(self, other: Boxes) -> Boxes:
        """These boxes, and then the others; both or neither have inner boxes."""
        inner = {at: joined(box, other.inner[at]) for at, box in self.inner.items()}
        sample, bounds = torch.cat([self.sample, other.sample]), torch.cat([self.bounds, other.bounds])
        return Boxes(sample, joined(self.box, other.box), bounds, inner)

    def within(self, memory: int) -> Boxes:
        """These boxes, without their inner boxes if these take more bytes than `memory`."""
        ends = [end for box in self.inner.values() for end in (box.lower, box.upper)]
        return self if sum(end.nbytes for end in ends) <= memory else replace(self, inner={})

    def worst(self, count: int) -> tuple[Boxes, Boxes]:
        """The boxes with the lowest bounds, at most `count`, and the others."""
        chosen = self.least.topk(min(count, len(self)), largest=False).indices
        others = torch.ones_like(self.sample, dtype=torch.bool).index_fill(0, chosen, False)
        return self.take(chosen), self.take(others)

    def place(self, influence: Tensor, regions: Box) -> tuple[Tensor, Tensor]:
        """The coordinate to halve each box at, [N], by the influence of each, [N, n]; and whether there is one, [N].

        `regions` are the boxes of all samples.
        """
        box = self.box
        # the middle of two neighbouring numbers is one of them
        width = torch.where((box.lower < box.center) & (box.center < box.upper), box.upper - box.lower, 0.0).flatten(1)
        whole = (regions.upper - regions.lower).flatten(1)[self.sample]
        share = width / torch.where(whole > 0, whole, 1.0)
        return ((F.normalize(influence * whole, p=1) + LEAST_SHARE) * share).argmax(1), width.amax(1) > 0

    def halves(self, place: Tensor) -> Boxes:
        """Both halves of each box."""
        here = F.one_hot(place, self.box.lower.flatten(1).shape[1]).bool().view_as(self.box.lower)
        below = Box(self.box.lower, torch.where(here, self.box.center, self.box.upper))
        above = Box(torch.where(here, self.box.center, self.box.lower), self.box.upper)
        return replace(self, box=below).join(replace(self, box=above))


def joined(first: Box, second: Box) -> Box:
    """The boxes of two batches."""
    return Box(torch.cat([first.lower, second.lower]), torch.cat([first.upper, second.upper]))


def values(graph: Graph) -> int:
    """The number of values in all nodes."""
    return sum(math.prod(node.shape) for node in graph.nodes)


def inner_boxes(
    domain: Domain, graph: Graph, region: Region, around: tuple[list[Box], Losses] | None = None
) -> tuple[list[Box], Losses]:
    """The boxes of all nodes of an outward graph, and their rounding losses.

    `around` has those of regions that contain these, if they are known: the boxes lie inside.
    """
    if isinstance(domain, Crown):
        boxes, losses = domain.bounded(graph, region, around=around)
    else:
        boxes = domain.boxes(graph, region)
        boxes = boxes if around is None else [box.intersect(outer) for box, outer in zip(boxes, around[0], strict=True)]
        losses = rounding.losses(graph, region, boxes)
    assert losses is not None, "what double precision proves is rounded outward"
    return boxes, losses


def bounded(
    part: Boxes, problem: Problem, around: tuple[list[Box], Losses], domain: Domain
) -> tuple[Boxes, Tensor, Tensor]:
    """Boxes with the bounds of CROWN, if these are better, and what its forms say.

    `around` has inner boxes and losses over the whole regions of the samples. `domain` bounds those of the parts, which
    lie inside the ones that `part` begins with.

    Returns:
        The boxes; how much each coordinate counts in the open margins, [N, n]; and the points at which the lowest forms
        are least, [N, *shape].
    """
    is_closed = part.bounds > 0
    # open margins first, padded with closed ones to the largest count in the batch
    rows = is_closed.to(torch.int8).argsort(dim=1, stable=True)[:, : int((~is_closed).sum(1).max())]
    spec = problem.spec[part.sample.unsqueeze(1), rows]
    boxes, losses = around
    outer = [part.inner[at] if at in part.inner else box.take(part.sample) for at, box in enumerate(boxes)]
    own = inner_boxes(domain, problem.net, part.box, (outer, [loss.take(part.sample) for loss in losses]))
    form = crown_forms(problem.net, part.box, spec, own)
    bounds = torch.maximum(part.bounds.gather(1, rows), form.minimum(part.region(problem)))
    a, is_open = form.coefficients.flatten(2), (~(bounds > 0)).to(spec.dtype).unsqueeze(2)
    slopes = (a.abs() * is_open).sum(1)
    speeds = widening(problem.net.rounded_outward(False), part.box, spec * is_open)
    influence = F.normalize(slopes, p=1) + F.normalize(speeds, p=1)
    lowest = a[torch.arange(len(part), device=a.device), bounds.argmin(1)].view_as(part.box.lower)
    corner = torch.where(lowest > 0, part.box.lower, part.box.upper)
    inner = {at: own[0][at] for at in part.inner}
    return replace(part, bounds=part.bounds.scatter(1, rows, bounds), inner=inner), influence, corner


def crown_forms(graph: Graph, box: Box, spec: Tensor, own: tuple[list[Box], Losses]) -> LinearForm:
    """The forms of the input by which CROWN bounds the forms `spec` of the output, with inner boxes and their losses.

    If the output is a maximum, its bound is the best mean of its entries, with weights for each box: better than one
    entry alone where different entries are positive in different parts of the box.
    """
    inner, losses = own
    lines, end = backward.all_lines(graph, inner), graph.nodes[-1]
    if isinstance(end.op, Max) and math.prod(graph.nodes[end.inputs[0]].shape) <= MOST_ENTRIES:
        outer = lines[len(graph.nodes) - 1]
        assert isinstance(outer, Lines)
        weights = best_mean(entry_forms(graph, box, end.inputs[0], lines), box, graph.nodes[end.inputs[0]].shape)
        lines[len(graph.nodes) - 1] = outer._replace(lower_slope=weights)
    return backward.back_to_input(graph, LinearForm(spec, 0.0), backward.by_lines(lines), losses).dense()


def entry_forms(graph: Graph, box: Box, at: int, lines: dict[int, Relaxed]) -> LinearForm:
    """Forms of the input that bound each entry of node `at` from below: [N, entries, *input], not rounded outward."""
    shape = graph.nodes[at].shape
    every = torch.eye(math.prod(shape), dtype=box.lower.dtype, device=box.lower.device).view(1, -1, *shape)
    start = LinearForm(every.expand(len(box.lower), *[-1] * (len(shape) + 1)), 0.0)
    return backward.back_to_input(graph.rounded_outward(False), start, backward.by_lines(lines), None, at).dense()


def best_mean(forms: LinearForm, box: Box, shape: Shape) -> Tensor:
    """Weights of the mean of some forms that has a large minimum over each box: at least that of the best form alone.

    The forms are those of entries [n, *shape]; each of `shape` has weights of its own, [N, n, *shape], which sum to 1.
    The ascent multiplies weights by exponentials of the values at the point where the mean is least.
    """
    a = forms.coefficients.flatten(2).unflatten(1, (shape[0], -1)).movedim(1, 2)  # [N, outputs, n, inputs]
    constant = (forms.constant + a.new_zeros(())).expand(len(a), -1)
    at_center = constant.unflatten(1, (shape[0], -1)).mT + (a @ box.center.flatten(1)[:, None, :, None]).squeeze(-1)
    radius = box.radius.flatten(1)[:, None, None, :]
    weights = torch.softmax(torch.zeros_like(at_center), dim=-1)
    alone = at_center - (a.abs() * radius).sum(-1)
    single = F.one_hot(alone.argmax(-1), weights.shape[-1]).to(weights.dtype)
    best, best_weights = torch.full_like(weights[..., 0], -torch.inf), single  # also if all minima are NaN
    for step in range(MEAN_STEPS + 1):
        tried = weights if step else single
        mean = (tried.unsqueeze(-2) @ a).squeeze(-2)  # [N, outputs, inputs]
        values = at_center - (a * (mean.sign() * radius.squeeze(2)).unsqueeze(-2)).sum(-1)
        least = (tried * values).sum(-1)
        better = least > best
        best, best_weights = torch.where(better, least, best), torch.where(better.unsqueeze(-1), tried, best_weights)
        if step:
            spread = (values - least.unsqueeze(-1)).abs().amax(-1, keepdim=True).clamp(min=torch.finfo(a.dtype).tiny)
            weights = torch.softmax(weights.log() + (2 / step**0.5) * (values - least.unsqueeze(-1)) / spread, dim=-1)
    return best_weights.mT.reshape(len(a), *shape)


def widening(graph: Graph, box: Box, spec: Tensor) -> Tensor:
    """How fast the sum of the interval bounds of some forms falls as the radius of each coordinate grows, [N, n]."""
    with torch.enable_grad():
        radius = box.radius.clone().requires_grad_()
        total = interval.lower_bounds(graph, Box.around(box.center, radius), spec).sum()
        return -torch.autograd.grad(total, radius)[0].flatten(1)

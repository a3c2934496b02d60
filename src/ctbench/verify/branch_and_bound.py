"""Branch and bound on the signs of pre-activations, for ReLU networks.

Bunel et al. 2020, "Branch and bound for piecewise linear neural network verification", with the bounds of Wang et al.
2021 (beta-CROWN), and a filtered choice of what to split (De Palma et al. 2021, "Improved branch and bound for neural
network verification"):

    until nothing is open:
        take the sub-problems with the lowest bounds, of all samples and margins together
        falsified where the point that minimises a bound, or one near it, has a negative margin
        split each on the sign of one neuron, and bound both halves
        keep the halves whose bounds are not positive

A sub-problem is a margin of a sample, and the signs that are known in it. Bounds are searched for in the network's
precision; a sub-problem is closed by the bound that the numbers found there give in double precision.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ctbench import budget
from ctbench.deadline import OutOfTime
from ctbench.domains import alpha_crown, beta_crown, crown, pairs, rounding
from ctbench.domains.beta_crown import Bounds, Boxes, Multipliers, Relaxation
from ctbench.domains.pairs import Pairs
from ctbench.domains.rounding import Loss
from ctbench.graph import walk_forward
from ctbench.regions import Box
from ctbench.verify.problem import Findings, Problem, checked
from ctbench.verify.raised import Raised
from ctbench.verify.stages import Stage
from ctbench.verify.watch import Watch

ROOT_RATE, ROOT_DECAY = 0.5, 0.8  # of the ascent at the root: few steps go far
ROOT_SHARE = 1 / 4  # of a sample's time, after which no step begins there
MANY = 100  # sub-problems of a sample, before pairs are looked for
PATIENCE = 1 / 20, 3.0  # of a sample's time, and in seconds, before another stage is asked
LEAF_STEPS = 100  # of the optimisation where all signs are known
MOVES = (0.5, 0.25, 0.125)  # of the attack that begins where a bound is taken, as shares of the radius
AT_ONCE = 2**23  # values of the network in the sub-problems that are split at once, at most
TINY = 1e-30  # so that an unstable neuron without influence can be split, last of all


@dataclass(frozen=True, kw_only=True)
class BranchAndBound(Stage):
    """Branch and bound, on the open samples of a batch together, each for the seconds that it has.

    Args:
        parts: sub-problems that are split at once; fewer of a network of more than 32,768 values. Like `numbers` this
            is for a CPU, and grows with the memory of another device. Where memory does not suffice, it is halved.
        steps: of the optimisation of each bound; `root_steps` of that of all pre-activation bounds, which comes first.
        candidates: neurons of each of two rankings that are tried out, with cheap bounds, before one is split.
        pairs: of ReLUs of a layer that are bounded together, once the search takes long; 0 for none.
        nodes: sub-problems of a sample, after which it is given up.
        numbers: that all open sub-problems may hold; where they are more, the samples with most are given up. About
            as many may be held at the root.
        aside: a stage that is asked once about each sample that has taken a twentieth of its time or 3 seconds, or
            that would be given up before that; the search goes on where it cannot tell. Its bounds must be proofs.
    """

    name: ClassVar[str] = "branch-and-bound"
    proves: ClassVar[bool] = True
    batch_size: int = 16
    parts: int = 256
    steps: int = 6
    root_steps: int = 8
    candidates: int = 3
    pairs: int = 100
    nodes: int = 1_000_000
    numbers: int = 2**28
    aside: Stage | None = None

    def __post_init__(self) -> None:
        if min(self.parts, self.nodes, self.numbers, self.candidates) < 1 or min(self.steps, self.root_steps) < 0:
            raise ValueError(f"{self}: parts, nodes, numbers and candidates must be >= 1, and steps >= 0")
        if self.aside is not None and not self.aside.proves:
            raise ValueError(f"aside is {self.aside}, whose bounds are no proofs: take a stage that computes in double")

    @property
    def title(self) -> str:
        return "branch-and-bound"

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        watch = Watch(problem.seconds, len(problem), device=problem.x.device)
        scale = budget.scale(problem.x.device, self.memory)
        numbers = max(1, int(scale * self.numbers))
        search, lowest, frontier = Search.begin(
            problem, self.root_steps, numbers, budget.of(problem.x.device, self.memory)
        )
        known = Known(problem.exact, lowest)
        watch.charge(torch.arange(len(problem), device=problem.x.device))
        values = sum(math.prod(node.shape) for node in problem.net.nodes)
        parts = max(1, int(scale * min(self.parts, AT_ONCE // values)))
        try:
            while True:
                given_up = watch.late() | (known.nodes >= self.nodes) | known.stuck
                given_up |= frontier.crowded(numbers, len(problem))
                slow = given_up | watch.beyond(*PATIENCE)
                hard = known.stuck | frontier.among(len(problem)) & slow
                hard &= ~known.asked & ~known.falsified & ~watch.late()
                if self.aside is not None and self.aside.applies(problem) and bool(hard.any()):
                    known.asked |= hard
                    self._ask(self.aside, problem, hard.nonzero().squeeze(1), known, watch, generator)
                over = (given_up | known.proved | known.falsified)[frontier.sample]
                known.count(frontier.take(over & ~known.proved[frontier.sample]))
                frontier = frontier.take(~over)
                if not len(frontier):
                    break
                order = frontier.bound.argsort()
                part, rest = frontier.take(order[:parts]), frontier.take(order[parts:])
                halves = budget.attempt(functools.partial(self._split, part, search, known), last=len(part) == 1)
                if halves is None:
                    parts = (len(part) + 1) // 2
                    watch.charge(part.sample)
                    continue
                frontier = rest.join(halves)
                if self.pairs and known.nodes.sum() >= MANY * len(problem):
                    search, frontier = search.paired(frontier, self.pairs)
                watch.charge(part.sample)
        except OutOfTime:
            known.count(frontier)
            watch.charge(frontier.sample)
        late = watch.late() | frontier.among(len(problem))
        return Findings(bound=known.lowest, witness=known.witness, late=late, seconds=watch.spent, failed=known.failed)

    def _split(self, part: Frontier, search: Search, known: Known) -> Frontier:
        """Split sub-problems, each on the sign of one neuron: the halves that stay open."""
        place, splittable, points = search.choose(part, self.candidates)
        points = search.attacked(part, points)
        known.witnessed(part.sample, points)
        leaves = search.leaves(part.take(~splittable))
        halves = search.ascend(search.halves(part.take(splittable), place[splittable]), self.steps)
        closed = search.proved(halves)
        known.count(leaves)
        known.count(closed.take(search.positive(closed)))
        known.count(closed.take(closed.bound.isnan()))
        known.nodes += torch.bincount(halves.sample, minlength=len(known.nodes))
        return closed.take(~search.positive(closed))

    def _ask(
        self, aside: Stage, problem: Problem, samples: Tensor, known: Known, watch: Watch, generator: torch.Generator
    ) -> None:
        """Let another stage look at some samples, [N] indices; by halves where it raises for them together."""
        raised, before = None, list(known.failed)
        try:
            self._heed(aside, problem, samples, known, watch, generator)
        except OutOfTime:
            raise
        except Exception as error:  # it concerns these samples alone, and the search goes on for them, too
            raised = Raised.of(error)
        watch.charge(samples)
        if raised is None:
            return
        alone = len(samples) == 1 or bool(watch.late()[samples].all())
        try:
            for half in () if alone else samples.tensor_split(2):
                self._ask(aside, problem, half, known, watch, generator)
        finally:
            if alone or (before == known.failed and not raised.memory):  # or it would be told nowhere
                known.failing(samples, {aside.title: raised.message})

    def _heed(
        self, aside: Stage, problem: Problem, samples: Tensor, known: Known, watch: Watch, generator: torch.Generator
    ) -> None:
        """Keep what another stage finds out about some samples, [N] indices."""
        asked = replace(problem.select(samples), seconds=watch.left[samples])
        found = checked(aside(asked, generator), len(samples))
        if found.bound is not None:
            known.failing(samples[found.bound.isnan()], {aside.title: "the bound is NaN"})
            positive = found.bound > 0
            known.proved[samples] = positive
            known.lowest[samples] = torch.where(positive, found.bound, known.lowest[samples])
        if found.witness is not None:
            known.witnessed(samples, found.witness)


class Known:
    """What a search has found out about each of B samples."""

    def __init__(self, exact: Problem, lowest: Tensor) -> None:
        self.exact = exact
        self.lowest = lowest  # the least bound of what is closed or given up
        self.witness = exact.x.clone()
        self.nodes = torch.zeros_like(lowest, dtype=torch.long)  # sub-problems
        self.failed = [dict[str, str]() for _ in range(len(exact))]  # messages of other stages, by title
        self.asked, self.proved, self.falsified = (torch.zeros_like(lowest, dtype=torch.bool) for _ in range(3))

    @property
    def stuck(self) -> Tensor:
        """Which samples have a sub-problem that is given up with a bound that proves nothing."""
        return ~(self.lowest > 0) & ~self.proved

    def count(self, part: Frontier) -> None:
        """Add sub-problems that are closed or given up."""
        self.lowest = self.lowest.scatter_reduce(0, part.sample, part.bound, "amin")

    def failing(self, samples: Tensor, failed: dict[str, str]) -> None:
        """Another stage failed on some samples, [N] indices."""
        for sample in samples.tolist():
            self.failed[sample] = {**self.failed[sample], **failed}

    def witnessed(self, samples: Tensor, points: Tensor) -> None:
        """Keep those of some points, [N, *shape], that are counterexamples for their samples [N]."""
        owner = self.exact.select(samples)
        points = owner.region.project(points.double())
        points, turned = owner.judged(points)
        turned = turned.nonzero().squeeze(1)
        self.witness[samples[turned]], self.falsified[samples[turned]] = points[turned], True


@dataclass(frozen=True, eq=False)
class Frontier:
    """Sub-problems: margin `row` of a sample, with what is known and a lower bound."""

    sample: Tensor  # [N]
    row: Tensor  # [N]
    bound: Tensor  # [N] in double precision
    free: Multipliers

    def __len__(self) -> int:
        return len(self.sample)

    def take(self, chosen: Tensor) -> Frontier:
        if chosen.dtype == torch.bool:
            chosen = chosen.nonzero().squeeze(1)  # once, as each index of truth values waits for the device
        return Frontier(self.sample[chosen], self.row[chosen], self.bound[chosen], self.free.take(chosen))

    def join(self, other: Frontier) -> Frontier:
        pairs = ((self.sample, other.sample), (self.row, other.row), (self.bound, other.bound))
        sample, row, bound = (torch.cat(pair) for pair in pairs)
        return Frontier(sample, row, bound, self.free.join(other.free))

    def among(self, samples: int) -> Tensor:
        """Which samples have sub-problems here, [B] bool."""
        return torch.bincount(self.sample, minlength=samples) > 0

    def crowded(self, numbers: int, samples: int) -> Tensor:
        """The samples with most sub-problems, [B] bool, without which the others hold no more numbers than these."""
        each = sum(value.shape[1:].numel() for value in self.free.free)
        counts, order = torch.bincount(self.sample, minlength=samples).sort()
        over = torch.zeros_like(order, dtype=torch.bool)
        over[order] = counts.cumsum(0) * each > numbers
        return over


@dataclass(frozen=True, eq=False)
class Search:
    """What all sub-problems of a batch of samples share."""

    problem: Problem
    inner: Boxes  # over the whole regions, [B, *node]
    inner_exact: Boxes  # the same in double precision
    losses: list[Loss]  # what rounding can cost there
    pairs: dict[int, Pairs] = field(default_factory=dict)  # over the whole regions, of each of the B samples
    pairs_exact: dict[int, Pairs] = field(default_factory=dict)
    pairs_are_chosen: bool = False

    @classmethod
    def begin(
        cls, problem: Problem, steps: int, numbers: int, memory: int = budget.DEFAULT
    ) -> tuple[Search, Tensor, Frontier]:
        """Bound everything at the root: what is shared, the least of the positive bounds [B], and what is open."""
        exact = problem.exact
        boxes = crown.boxes(problem.net, problem.region, memory=memory)
        boxes_exact = boxes if exact is problem else crown.boxes(exact.net, exact.region, memory=memory)
        each = alpha_crown.tightening_footprint(problem.net, problem.region, boxes)
        every = torch.arange(len(problem), device=problem.x.device)

        def root(start: int, stop: int) -> tuple[Tensor, Boxes, list[Loss]]:
            part = every[start:stop]
            return cls._root(problem.select(part), _take(boxes, part), _take(boxes_exact, part), steps)

        roots = budget.halving(root, len(problem), max(1, numbers // max(1, each)))
        bounds = torch.cat([bound for bound, _, _ in roots])
        inner_exact = {
            at: Box(
                torch.cat([found[at].lower for _, found, _ in roots]),
                torch.cat([found[at].upper for _, found, _ in roots]),
            )
            for at in roots[0][1]
        }
        lost = [Loss.joined(each) for each in zip(*(found for _, _, found in roots), strict=True)]
        inner = {at: box.to(problem.x.dtype) for at, box in inner_exact.items()}
        positive = bounds > 0
        sample, row = (~positive).nonzero().unbind(1)
        free = Multipliers.begin(problem.net, {at: box.take(sample) for at, box in inner.items()})
        # NaN gives its sample up: no split would mend it
        lowest = bounds.masked_fill(bounds <= 0, torch.inf).amin(1)
        return cls(problem, inner, inner_exact, lost), lowest, Frontier(sample, row, bounds[sample, row], free)

    @staticmethod
    def _root(
        problem: Problem, boxes: list[Box], boxes_exact: list[Box], steps: int
    ) -> tuple[Tensor, Boxes, list[Loss]]:
        """Bounds of all margins, and of the pre-activations, in double precision; and what rounding can cost there."""
        exact = problem.exact
        left = torch.inf if problem.seconds is None else float(problem.seconds.sum())
        bounds, found = alpha_crown.tightened(
            problem.net,
            problem.region,
            problem.spec,
            boxes,
            steps=steps,
            lr=ROOT_RATE,
            decay=ROOT_DECAY,
            stop=0.0,
            seconds=ROOT_SHARE * left,
            exact=(exact.net, exact.region, exact.spec, boxes_exact),
        )
        lost = rounding.losses(exact.net, exact.region, found)
        assert lost is not None
        return bounds, beta_crown.needed(exact.net, found), lost

    def ascend(self, part: Frontier, steps: int) -> Frontier:
        """The sub-problems with the free numbers, and the bounds in the network's precision, that some steps find."""
        problem = self.problem
        region, spec = problem.region.take(part.sample), problem.spec[part.sample, part.row]
        inner = self._inner(self.inner, part)
        bound, free = beta_crown.ascend(
            problem.net,
            region,
            spec,
            inner,
            part.free,
            steps=steps,
            chosen=self.pairs_of(self.pairs, part),
            enough=0.0,
        )
        return replace(part, bound=torch.maximum(bound.double(), part.bound), free=free)

    def proved(self, part: Frontier) -> Frontier:
        """The sub-problems, the bounds of those that seem to be positive computed in double precision."""
        closing = part.bound > 0
        chosen = part.take(closing)
        if not len(chosen):
            return part
        return replace(part, bound=part.bound.masked_scatter(closing, self.bounds(chosen, exact=True).values))

    def positive(self, part: Frontier) -> Tensor:
        """Which bounds are positive, and finite."""
        return (part.bound > 0) & torch.isfinite(part.bound)

    def leaves(self, part: Frontier) -> Frontier:
        """Sub-problems in which all is linear: their bounds are only to be found, in more steps."""
        return self.proved(self.ascend(part, LEAF_STEPS)) if len(part) else part

    def bounds(self, part: Frontier, *, exact: bool = False) -> Bounds:
        """The bounds that the free numbers give."""
        problem = self.problem.exact if exact else self.problem
        region, spec = problem.region.take(part.sample), problem.spec[part.sample, part.row]
        free = part.free.map(lambda value: value.to(spec.dtype))
        inner = self._inner(self.inner_exact if exact else self.inner, part)
        chosen = self.pairs_of(self.pairs_exact if exact else self.pairs, part)
        lost = [loss.take(part.sample) for loss in self.losses] if exact else None
        graph = problem.net if exact else problem.net.rounded_outward(False)
        return beta_crown.bounds_at(graph, region, spec, inner, free, chosen, lost)

    def _inner(self, inner: Boxes, part: Frontier) -> Boxes:
        return beta_crown.clipped({at: box.take(part.sample) for at, box in inner.items()}, part.free.signs)

    def pairs_of(self, chosen: dict[int, Pairs], part: Frontier) -> dict[int, Pairs]:
        return {at: each.take(part.sample) for at, each in chosen.items()}

    def paired(self, frontier: Frontier, most: int) -> tuple[Search, Frontier]:
        """The same with pairs of ReLUs that promise most for the margins which are open; they are chosen once."""
        if self.pairs_are_chosen or not len(frontier):
            return self, frontier
        exact = self.problem.exact
        standing = torch.zeros_like(exact.spec[..., :1])
        standing[frontier.sample, frontier.row] = 1.0
        spec = standing * exact.spec
        found = pairs.choose(exact.net, exact.region, spec, self.inner_exact, most=most, losses=self.losses)
        rough = {at: each.to(self.problem.x.dtype) for at, each in found.items()}
        search = replace(self, pairs=rough, pairs_exact=found, pairs_are_chosen=True)
        return search, replace(frontier, free=frontier.free.with_pairs(search.pairs_of(rough, frontier)))

    def points(self, part: Frontier, found: Bounds) -> Tensor:
        """The points of the regions nearest to where the bounds are taken in their hulls, [N, *shape]."""
        region = self.problem.region.take(part.sample)
        box = region.hull
        return region.project(torch.where(found.form.coefficients.squeeze(1) > 0, box.lower, box.upper))

    def attacked(self, part: Frontier, points: Tensor) -> Tensor:
        """The points, that of the first sub-problem of each sample moved to where the sample's least margin is less."""
        _, order = part.sample.unique(return_inverse=True)
        place = torch.arange(len(part), device=order.device)
        first = torch.full_like(part.sample, len(part)).scatter_reduce(0, order, place, "amin")
        first = first[first < len(part)]
        problem, x = self.problem.select(part.sample[first]), points[first]
        for size in MOVES:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(problem.violation(x.unsqueeze(0)).sum(), x)
            x = problem.region.ascend(x.detach(), gradient, size)
        return points.index_copy(0, first, x)

    def choose(self, part: Frontier, candidates: int) -> tuple[Tensor, Tensor, Tensor]:
        """The neuron to split of each sub-problem, by its place among those of all nodes; whether there is one; and the
        points where the bounds are taken, [N, *shape]."""
        net = self.problem.net.rounded_outward(False)
        relaxation = Relaxation.of(net, self._inner(self.inner, part), self.pairs_of(self.pairs, part))
        region, spec = self.problem.region.take(part.sample), self.problem.spec[part.sample, part.row]
        free = relaxation.admitted(part.free)
        found = relaxation.bounds(region, spec, free)
        points = self.points(part, found)
        if not free.signs:
            return torch.zeros_like(part.row), torch.zeros_like(part.row, dtype=torch.bool), points
        losses, heights = self._scores(relaxation, free, found, points)
        splittable = heights.amax(1) > 0
        count = min(candidates, heights.shape[1])
        tried = torch.cat([losses.topk(count).indices, heights.topk(count).indices], dim=1)  # [N, C]

        def gain(place: Tensor) -> Tensor:
            """The lower of the two halves' bounds, without optimisation, and a little of the higher one."""
            signs = (torch.ones_like(splittable), torch.zeros_like(splittable))
            halves = (relaxation.split(free, place, sign) for sign in signs)
            first, second = (half.bounds(region, spec, numbers).values.clamp(max=0) for half, numbers in halves)
            return torch.minimum(first, second) + 1e-3 * torch.maximum(first, second)

        gains = torch.stack([gain(place) for place in tried.unbind(1)], dim=1)
        gains = gains.masked_fill(heights.gather(1, tried) <= 0, -torch.inf)
        return tried.gather(1, gains.argmax(1, keepdim=True)).squeeze(1), splittable, points

    def _scores(
        self, relaxation: Relaxation, free: Multipliers, found: Bounds, points: Tensor
    ) -> tuple[Tensor, Tensor]:
        """For each neuron of all nodes, [N, M]: how much its relaxation loses at the points, and how much it can lose.

        The first sum up to the distance between bound and margin there; both are 0 for a neuron of known sign.
        """
        values = walk_forward(self.problem.net, lambda node, *inputs: node.op(*inputs), points)
        losses = {at: torch.zeros_like(values[at]) for at in free.signs}
        heights = dict(losses)
        for place, a in found.relaxed.items():
            (at,) = self.problem.net.nodes[place].inputs
            unstable = relaxation.least[at] < relaxation.greatest[at]
            below = a.clamp(min=0) * (values[place] - free.slopes[at] * values[at])
            slope, offset = relaxation.upper_slope[at], relaxation.upper_offset[at]
            above = a.clamp(max=0) * (values[place] - slope * values[at] - offset)
            losses[at] = losses[at] + torch.where(unstable, below + above, 0.0)
            heights[at] = heights[at] + torch.where(unstable, a.abs() * offset + TINY, 0.0)
        flat = [torch.cat([part[at].flatten(1) for at in sorted(part)], dim=1) for part in (losses, heights)]
        return flat[0], flat[1]

    def halves(self, part: Frontier, place: Tensor) -> Frontier:
        """Both halves of each sub-problem, all positive ones first: the neurons at these places get a sign."""
        twice = torch.arange(len(part), device=place.device).repeat(2)
        both, sign = part.take(twice), torch.ones_like(twice)
        sign[len(part) :] = -1
        return replace(both, free=replace(both.free, signs=beta_crown.put(both.free.signs, place.repeat(2), sign)))


def _take(boxes: list[Box], samples: Tensor) -> list[Box]:
    return [box.take(samples) for box in boxes]

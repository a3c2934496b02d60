"""Branch and bound on the signs of pre-activations, for ReLU networks.

Bunel et al. 2020, "Branch and bound for piecewise linear neural network verification", with the bounds of Wang et al.
2021 (beta-CROWN), and a filtered choice of what to split (De Palma et al. 2021, "Improved branch and bound for neural
network verification"):

    until nothing is open or time is up:
        take the sub-problems with the lowest bounds, of all samples and margins together
        falsified where the point that minimises a bound has a negative margin
        split each on the sign of one neuron, and bound both halves
        keep the halves whose bounds are not positive

A sub-problem is a margin of a sample, and the signs that are known in it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctbench.domains import beta_crown, crown
from ctbench.domains.beta_crown import Bounds, Multipliers
from ctbench.graph import Graph, walk_forward
from ctbench.regions import Box, Region
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.stages import Stage

LEAF_STEPS = 100  # of the optimisation where all signs are known
TINY = 1e-30  # so that an unstable neuron without influence can be split, last of all


@dataclass(frozen=True, kw_only=True)
class BranchAndBound(Stage):
    """Branch and bound, on the open samples of a batch together.

    Args:
        timeout: seconds for each sample; a round's are shared by the sub-problems in it.
        parts: sub-problems that are split at once.
        steps: of the optimisation of each bound; `root_steps` of the first one.
        candidates: neurons of each of two rankings that are tried out, with cheap bounds, before one is split.
    """

    batch_size: int = 16
    timeout: float = 60.0
    parts: int = 64
    steps: int = 10
    root_steps: int = 20
    candidates: int = 3

    @property
    def title(self) -> str:
        return "branch-and-bound"

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        search = Search(problem, crown.boxes(problem.net, problem.region))
        watch = Watch(len(problem))
        frontier = search.root(self.root_steps)
        watch.charge(torch.arange(len(problem)))
        lowest = _least(problem.x.new_full((len(problem),), torch.inf), frontier.take(frontier.bound > 0))
        frontier = frontier.take(~(frontier.bound > 0))
        witness, falsified = problem.x.clone(), torch.zeros_like(problem.y, dtype=torch.bool)
        while len(frontier):
            order = frontier.bound.argsort()
            part, frontier = frontier.take(order[: self.parts]), frontier.take(order[self.parts :])
            found = search.bounds(part)
            points = search.points(part, found)
            turned = search.violated(part, points)
            witness[part.sample[turned]], falsified[part.sample[turned]] = points[turned], True
            place, splittable = search.choose(part, found, points, self.candidates)
            # what cannot be split is linear, but for its bound to be found: in more steps, or given up
            given_up = part.take(~splittable)
            if len(given_up):
                given_up = search.ascend(given_up, LEAF_STEPS)
            if bool(splittable.any()):
                halves = search.ascend(search.halves(part.take(splittable), place[splittable]), self.steps)
                lowest = _least(lowest, halves.take(halves.bound > 0))
                frontier = frontier.join(halves.take(~(halves.bound > 0)))
            watch.charge(part.sample)
            over = (watch.late(self.timeout).to(falsified.device) | falsified)[frontier.sample]
            # what is given up counts with the bound that it has
            lowest = _least(_least(lowest, given_up), frontier.take(over))
            frontier = frontier.take(~over)
        return Findings(bound=lowest, witness=witness)


class Watch:
    """The seconds that each sample has taken: those since the last charge are shared by the sub-problems charged."""

    def __init__(self, samples: int) -> None:
        self.spent = torch.zeros(samples, dtype=torch.float64)
        self.last = time.perf_counter()

    def charge(self, samples: Tensor) -> None:
        """Charge the samples, [N], one of each sub-problem."""
        now = time.perf_counter()
        shares = torch.bincount(samples.cpu(), minlength=len(self.spent)) / len(samples)
        self.spent += shares * (now - self.last)
        self.last = now

    def late(self, timeout: float) -> Tensor:
        return self.spent > timeout


@dataclass(frozen=True, eq=False)
class Frontier:
    """Sub-problems: margin `row` of a sample, with what is known and a lower bound."""

    sample: Tensor  # [N]
    row: Tensor  # [N]
    bound: Tensor  # [N]
    free: Multipliers

    def __len__(self) -> int:
        return len(self.sample)

    def take(self, chosen: Tensor) -> Frontier:
        return Frontier(self.sample[chosen], self.row[chosen], self.bound[chosen], self.free.take(chosen))

    def join(self, other: Frontier) -> Frontier:
        pairs = ((self.sample, other.sample), (self.row, other.row), (self.bound, other.bound))
        sample, row, bound = (torch.cat(pair) for pair in pairs)
        return Frontier(sample, row, bound, self.free.join(other.free))


@dataclass(frozen=True, eq=False)
class Search:
    """What all sub-problems of a batch of samples share."""

    problem: Problem
    inner: list[Box]  # of every node over the whole regions, [B, *node]

    @property
    def graph(self) -> Graph:
        return self.problem.net

    def root(self, steps: int) -> Frontier:
        """Every margin of every sample."""
        samples, rows = self.problem.spec.shape[:2]
        sample = torch.arange(samples, device=self.problem.y.device).repeat_interleave(rows)
        row = torch.arange(rows, device=sample.device).repeat(samples)
        free = Multipliers.begin(self.graph, self.inner).take(sample)
        start = Frontier(sample, row, self.problem.x.new_full((len(sample),), -torch.inf), free)
        return self.ascend(start, steps)

    def ascend(self, part: Frontier, steps: int) -> Frontier:
        """The sub-problems with the bounds that some steps find, or those of before where these are better."""
        bound, free = beta_crown.ascend(*self._given(part), part.free, steps=steps)
        return replace(part, bound=torch.maximum(bound, part.bound), free=free)

    def bounds(self, part: Frontier) -> Bounds:
        return beta_crown.bounds(*self._given(part), part.free)

    def _given(self, part: Frontier) -> tuple[Graph, Region, Tensor, list[Box]]:
        region, spec = self.problem.region.take(part.sample), self.problem.spec[part.sample, part.row]
        inner = [box.take(part.sample) for box in self.inner]
        return self.graph, region, spec, beta_crown.clipped(inner, part.free.signs)

    def points(self, part: Frontier, found: Bounds) -> Tensor:
        """The points of the regions nearest to where the bounds are taken in their hulls, [N, *shape]."""
        region = self.problem.region.take(part.sample)
        box = region.hull
        return region.project(torch.where(found.form.coefficients.squeeze(1) > 0, box.lower, box.upper))

    def violated(self, part: Frontier, points: Tensor) -> Tensor:
        """Which points have a negative margin."""
        outputs = self.graph(points).flatten(1).unsqueeze(-1)
        return (self.problem.spec[part.sample].flatten(2) @ outputs).flatten(1).amin(1) < 0

    def choose(self, part: Frontier, found: Bounds, points: Tensor, candidates: int) -> tuple[Tensor, Tensor]:
        """The neuron to split of each sub-problem, by its place among those of all nodes, and whether there is one."""
        if not part.free.signs:
            return torch.zeros_like(part.row), torch.zeros_like(part.row, dtype=torch.bool)
        losses, heights = self._scores(part, found, points)
        splittable = heights.amax(1) > 0
        count = min(candidates, heights.shape[1])
        tried = torch.cat([losses.topk(count).indices, heights.topk(count).indices], dim=1)  # [N, C]
        gains = torch.stack([self._gain(part, place) for place in tried.unbind(1)], dim=1)
        gains = gains.masked_fill(heights.gather(1, tried) <= 0, -torch.inf)
        return tried.gather(1, gains.argmax(1, keepdim=True)).squeeze(1), splittable

    def _gain(self, part: Frontier, place: Tensor) -> Tensor:
        """The lower of the two halves' bounds, without optimisation, and a little of the higher one."""
        first, second = self.bounds(self.halves(part, place)).values.clamp(max=0).chunk(2)
        return torch.minimum(first, second) + 1e-3 * torch.maximum(first, second)

    def _scores(self, part: Frontier, found: Bounds, points: Tensor) -> tuple[Tensor, Tensor]:
        """For each neuron of all nodes, [N, M]: how much its relaxation loses at the points, and how much it can lose.

        The first sum up to the distance between bound and margin there; both are 0 for a neuron of known sign.
        """
        values = walk_forward(self.graph, lambda node, *inputs: node.op(*inputs), points)
        _, _, _, inner = self._given(part)
        losses = {at: torch.zeros_like(sign) for at, sign in part.free.signs.items()}
        heights = dict(losses)
        for place, (a, lines) in found.relaxed.items():
            (at,) = self.graph.nodes[place].inputs
            box, x = inner[at], values[at]
            unstable = (box.lower < 0) & (box.upper > 0)
            below = a.clamp(min=0) * (values[place] - lines.lower_slope * x)
            above = a.clamp(max=0) * (values[place] - lines.upper_slope * x - lines.upper_offset)
            losses[at] = losses[at] + torch.where(unstable, below + above, 0.0)
            heights[at] = heights[at] + torch.where(unstable, a.abs() * lines.upper_offset + TINY, 0.0)
        flat = [torch.cat([part[at].flatten(1) for at in sorted(part)], dim=1) for part in (losses, heights)]
        return flat[0], flat[1]

    def halves(self, part: Frontier, place: Tensor) -> Frontier:
        """Both halves of each sub-problem, all positive ones first: the neurons at these places get a sign."""
        twice = torch.arange(len(part), device=place.device).repeat(2)
        both, sign = part.take(twice), place.new_ones(len(twice))
        sign[len(part) :] = -1
        signs, start = dict(both.free.signs), 0
        for at in sorted(signs):
            old = signs[at].flatten(1)
            index = place.repeat(2) - start
            start += old.shape[1]
            here = (index >= 0) & (index < old.shape[1])
            new = old.scatter(1, index.clamp(0, old.shape[1] - 1).unsqueeze(1), sign.unsqueeze(1).to(old.dtype))
            signs[at] = torch.where(here.unsqueeze(1), new, old).view_as(signs[at])
        return replace(both, free=replace(both.free, signs=signs))


def _least(lowest: Tensor, part: Frontier) -> Tensor:
    """The lowest bound of each sample, [B], with those of some sub-problems."""
    return lowest.scatter_reduce(0, part.sample, part.bound, "amin")

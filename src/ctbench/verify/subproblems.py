"""The sub-problems of branch and bound: what they share, how they are bounded, and how they are attacked.

A sub-problem is a margin of a sample, with ranges of pre-activations that are known. Free numbers are searched in the
network's precision. A sub-problem is closed by the bound that these numbers give in double precision, rounded outward,
over boxes that were computed in double precision as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ctbench import memory_budget
from ctbench.domains import alpha_crown, beta_crown, crown, pairs, rounding
from ctbench.domains.alpha_crown import Forms
from ctbench.domains.beta_crown import Bounds, Multipliers
from ctbench.domains.envelopes import Boxes
from ctbench.domains.pairs import Pairs
from ctbench.domains.rounding import Loss
from ctbench.graph import Graph, Twin
from ctbench.regions import Box, Region
from ctbench.verify.problem import Problem

ROOT_RATE, ROOT_DECAY = 0.5, 0.8  # of the ascent at the root: few steps go far
ROOT_SHARE = 1 / 4  # of a sample's time, after which no step begins at the root
LEAF_STEPS = 100  # of the optimisation where nothing is left to split
MOVES = (0.5, 0.25, 0.125)  # the steps of the attack on the point where a bound is taken, in radii


@dataclass(frozen=True, eq=False)
class Subproblems:
    """N sub-problems: a margin of a sample each, with the ranges that are known and a lower bound."""

    sample: Tensor  # [N]
    row: Tensor  # [N]: the margin, by its place in the sample's specification
    bound: Tensor  # [N], in double precision
    free: Multipliers  # the known ranges, and the free numbers of the bounds

    def __len__(self) -> int:
        return len(self.sample)

    def take(self, chosen: Tensor) -> Subproblems:
        """Some of them: a mask [N] or indices."""
        if chosen.dtype == torch.bool:
            chosen = chosen.nonzero().squeeze(1)  # once: each index with truth values waits for the device
        return Subproblems(self.sample[chosen], self.row[chosen], self.bound[chosen], self.free.take(chosen))

    def join(self, other: Subproblems) -> Subproblems:
        columns = ((self.sample, other.sample), (self.row, other.row), (self.bound, other.bound))
        sample, row, bound = (torch.cat(column) for column in columns)
        return Subproblems(sample, row, bound, self.free.join(other.free))

    def of_samples(self, count: int) -> Tensor:
        """Which of `count` samples have a sub-problem here, [count] bool."""
        return torch.bincount(self.sample, minlength=count) > 0

    def crowded(self, max_elements: int, count: int) -> Tensor:
        """The samples to give up, [count] bool, so that the others hold at most `max_elements` free numbers.

        These are the samples with the most sub-problems.
        """
        elements = sum(value.shape[1:].numel() for value in self.free.free)
        counts, order = torch.bincount(self.sample, minlength=count).sort()
        crowded = torch.zeros_like(order, dtype=torch.bool)
        crowded[order] = counts.cumsum(0) * elements > max_elements
        return crowded


@dataclass(frozen=True, eq=False)
class Setting:
    """Everything that the sub-problems of B samples share, in one precision."""

    problem: Problem
    boxes: Boxes  # of the pre-activations, over the whole regions, [B, *node]
    losses: list[Loss] | None = None  # what rounding can cost a proof; None in a search
    pairs: dict[int, Pairs] = field(default_factory=dict)  # over the whole regions, for each sample

    @property
    def graph(self) -> Graph:
        """The network; its bounds are rounded outward if they are proofs."""
        return self.problem.net.rounded_outward(self.losses is not None)

    def region(self, part: Subproblems) -> Region:
        return self.problem.region.take(part.sample)

    def spec(self, part: Subproblems) -> Tensor:
        """The margins, [N, *output]."""
        return self.problem.spec[part.sample, part.row]

    def whole(self, part: Subproblems) -> Boxes:
        """The boxes over the whole region of each sub-problem's sample."""
        return {at: box.take(part.sample) for at, box in self.boxes.items()}

    def inner(self, part: Subproblems) -> Boxes:
        """The boxes within the known ranges."""
        return beta_crown.clipped(self.graph, self.whole(part), part.free)

    def pairs_of(self, part: Subproblems) -> dict[int, Pairs]:
        """The pairs of each sub-problem's sample."""
        return {at: each.take(part.sample) for at, each in self.pairs.items()}

    def bounds(self, part: Subproblems) -> Bounds:
        """The bounds that the free numbers give."""
        spec = self.spec(part)
        free, whole = part.free.to(spec.dtype), self.whole(part)
        losses = None if self.losses is None else [loss.take(part.sample) for loss in self.losses]
        return beta_crown.bounds_at(
            self.graph,
            self.region(part),
            spec,
            beta_crown.clipped(self.graph, whole, free),
            free,
            self.pairs_of(part),
            losses,
            None if losses is None else whole,
        )


@dataclass(frozen=True, eq=False)
class Root(Twin[Setting]):
    """What is computed once, at the root of the search, and how sub-problems are bounded and attacked with it."""

    pairs_are_chosen: bool = False

    def ascend(self, part: Subproblems, steps: int) -> Subproblems:
        """The sub-problems after some steps of the optimisation: with its free numbers, and the bounds of a search."""
        setting = self.search
        bound, free = beta_crown.ascend(
            setting.problem.net,
            setting.region(part),
            setting.spec(part),
            setting.inner(part),
            part.free,
            steps=steps,
            chosen=setting.pairs_of(part),
            enough=0.0,
        )
        return replace(part, bound=torch.maximum(bound.double(), part.bound), free=free)

    def proved(self, part: Subproblems) -> Subproblems:
        """The sub-problems; where a bound seems to be positive it is computed in double precision."""
        closing = part.bound > 0
        chosen = part.take(closing)
        if not len(chosen):
            return part
        return replace(part, bound=part.bound.masked_scatter(closing, self.proof.bounds(chosen).values))

    def leaves(self, part: Subproblems) -> Subproblems:
        """Sub-problems in which everything is linear, bounded in more steps: there is nothing to split."""
        return self.proved(self.ascend(part, LEAF_STEPS)) if len(part) else part

    def paired(self, part: Subproblems, most: int) -> tuple[Root, Subproblems]:
        """The same with pairs of ReLUs, those that promise most for the open margins. They are chosen once."""
        if self.pairs_are_chosen or not len(part):
            return self, part
        proof = self.proof.problem
        is_open = torch.zeros_like(proof.spec[..., :1])
        is_open[part.sample, part.row] = 1.0
        chosen = pairs.choose(
            proof.net, proof.region, is_open * proof.spec, self.proof.boxes, most=most, losses=self.proof.losses
        )
        rounded = {at: each.to(self.search.problem.x.dtype) for at, each in chosen.items()}
        root = Root(replace(self.search, pairs=rounded), replace(self.proof, pairs=chosen), pairs_are_chosen=True)
        return root, replace(part, free=part.free.with_pairs(root.search.pairs_of(part)))

    def points(self, part: Subproblems, bounds: Bounds) -> Tensor:
        """The points of the regions nearest to where the bounds are taken in their hulls, [N, *shape]."""
        region = self.search.region(part)
        box = region.hull
        return region.project(torch.where(bounds.form.coefficients.squeeze(1) > 0, box.lower, box.upper))

    def attacked(self, part: Subproblems, points: Tensor) -> Tensor:
        """The points, [N, *shape], after an attack: that of the first sub-problem of each sample is moved to where
        the sample's least margin is smaller."""
        _, order = part.sample.unique(return_inverse=True)
        place = torch.arange(len(part), device=order.device)
        first = torch.full_like(part.sample, len(part)).scatter_reduce(0, order, place, "amin")
        first = first[first < len(part)]
        problem, x = self.search.problem.select(part.sample[first]), points[first]
        for size in MOVES:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(problem.violation(x.unsqueeze(0)).sum(), x)
            x = problem.region.ascend(x.detach(), gradient, size)
        return points.index_copy(0, first, x)


def is_positive(bound: Tensor) -> Tensor:
    """Which bounds are positive and finite: they close a sub-problem."""
    return (bound > 0) & torch.isfinite(bound)


def begin(
    problem: Problem, steps: int, max_elements: int, memory: int = memory_budget.DEFAULT
) -> tuple[Root, Tensor, Subproblems]:
    """Bound everything at the root.

    Args:
        problem: B samples.
        steps: of the optimisation of all pre-activation bounds.
        max_elements: how many numbers may be held for it; about.
        memory: in bytes, as in `crown.boxes`.

    Returns:
        What all sub-problems share; the least of the positive bounds of each sample, [B], inf if there is none and NaN
        if a bound is NaN; and the sub-problems that are open, one for each other margin.
    """
    proof = problem.proof
    boxes = crown.boxes(problem.net, problem.region, memory=memory)
    proof_boxes = boxes if proof is problem else crown.boxes(proof.net, proof.region, memory=memory)
    footprint = alpha_crown.tightening_footprint(problem.net, problem.region, boxes)
    every = torch.arange(len(problem), device=problem.x.device)

    def tightened(start: int, stop: int) -> tuple[Tensor, Boxes, list[Loss]]:
        part = every[start:stop]
        return _tightened(problem.select(part), Twin(_take(boxes, part), _take(proof_boxes, part)), steps)

    roots = memory_budget.halving(tightened, len(problem), max(1, max_elements // max(1, footprint)))
    bounds = torch.cat([bound for bound, _, _ in roots])
    needed = {
        at: Box(
            torch.cat([part[at].lower for _, part, _ in roots]),
            torch.cat([part[at].upper for _, part, _ in roots]),
        )
        for at in roots[0][1]
    }
    losses = [Loss.joined(each) for each in zip(*(losses for _, _, losses in roots), strict=True)]
    rounded = {at: box.to(problem.x.dtype) for at, box in needed.items()}
    positive = bounds > 0
    sample, row = (~positive).nonzero().unbind(1)
    free = Multipliers.begin(problem.net, {at: box.take(sample) for at, box in rounded.items()})
    # a NaN stays, and gives its sample up: no split would mend it
    lowest = bounds.masked_fill(bounds <= 0, torch.inf).amin(1)
    root = Root(Setting(problem, rounded), Setting(proof, needed, losses))
    return root, lowest, Subproblems(sample, row, bounds[sample, row], free)


def _tightened(problem: Problem, boxes: Twin[list[Box]], steps: int) -> tuple[Tensor, Boxes, list[Loss]]:
    """Bounds of all margins [B, S], boxes of the pre-activations, and what rounding can cost; in double precision."""
    proof = problem.proof
    forms = Twin(
        Forms(problem.net, problem.region, problem.spec, boxes.search),
        Forms(proof.net, proof.region, proof.spec, boxes.proof),
    )
    end = problem.allotted(ROOT_SHARE).end
    bounds, tight = alpha_crown.tightened(forms, steps=steps, lr=ROOT_RATE, decay=ROOT_DECAY, stop=0.0, end=end)
    losses = rounding.losses(proof.net, proof.region, tight)
    assert losses is not None
    return bounds, beta_crown.needed(proof.net, tight), losses


def _take(boxes: list[Box], samples: Tensor) -> list[Box]:
    return [box.take(samples) for box in boxes]

"""What branch and bound splits: the sign of one neuron of each sub-problem, chosen by trial.

De Palma et al. 2021, "Improved branch and bound for neural network verification" (filtered smart branching): two
rankings of the unstable neurons give the candidates. The first one is how much a neuron's relaxation loses at the point
where the bound is taken; the second one is the height of its triangle, in the coefficients of the bound. Both halves of
each candidate are bounded without optimisation. The candidate whose lower half has the highest bound is split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctbench.domains import beta_crown
from ctbench.domains.beta_crown import Bounds, Multipliers, Relaxation
from ctbench.graph import walk_forward
from ctbench.verify.subproblems import Root, Subproblems

TINY = 1e-30  # so that an unstable neuron without influence can be split, after all others


@dataclass(frozen=True, eq=False)
class Choice:
    """What to split of N sub-problems."""

    neuron: Tensor  # [N]: by its place among the entries of all nodes, in order
    is_splittable: Tensor  # [N]: whether there is an unstable neuron
    points: Tensor  # [N, *shape]: the points of the regions where the bounds are taken


def choose(root: Root, part: Subproblems, candidates: int) -> Choice:
    """The neuron to split of each sub-problem; `candidates` of each of two rankings are tried."""
    setting = root.search
    relaxation = Relaxation.of(setting.graph, setting.inner(part), setting.pairs_of(part))
    region, spec = setting.region(part), setting.spec(part)
    free = relaxation.admitted(part.free)
    bounds = relaxation.bounds(region, spec, free)
    points = root.points(part, bounds)
    if not free.signs:
        return Choice(torch.zeros_like(part.row), torch.zeros_like(part.row, dtype=torch.bool), points)
    losses, heights = _scores(relaxation, free, bounds, points)
    is_splittable = heights.amax(1) > 0
    count = min(candidates, heights.shape[1])
    tried = torch.cat([losses.topk(count).indices, heights.topk(count).indices], dim=1)  # [N, C]

    def gain(neuron: Tensor) -> Tensor:
        """The lower of the two halves' bounds, without optimisation, plus a little of the higher one, [N]."""
        signs = (torch.ones_like(is_splittable), torch.zeros_like(is_splittable))
        split = (relaxation.split(free, neuron, sign) for sign in signs)
        first, second = (half.bounds(region, spec, numbers).values.clamp(max=0) for half, numbers in split)
        return torch.minimum(first, second) + 1e-3 * torch.maximum(first, second)

    gains = torch.stack([gain(neuron) for neuron in tried.unbind(1)], dim=1)
    gains = gains.masked_fill(heights.gather(1, tried) <= 0, -torch.inf)
    return Choice(tried.gather(1, gains.argmax(1, keepdim=True)).squeeze(1), is_splittable, points)


def halves(part: Subproblems, neuron: Tensor) -> Subproblems:
    """Both halves of each sub-problem, the positive ones first: its neuron, by its place [N], gets a sign."""
    twice = torch.arange(len(part), device=neuron.device).repeat(2)
    both, sign = part.take(twice), torch.ones_like(twice)
    sign[len(part) :] = -1
    return replace(both, free=replace(both.free, signs=beta_crown.put(both.free.signs, neuron.repeat(2), sign)))


def _scores(relaxation: Relaxation, free: Multipliers, bounds: Bounds, points: Tensor) -> tuple[Tensor, Tensor]:
    """For each neuron of all nodes, [N, M]: how much its relaxation loses at the points, and how much it can lose.

    The losses sum up to the distance between bound and margin at a point. Both are 0 for a neuron of known sign.
    """
    nodes = relaxation.graph.nodes
    values = walk_forward(relaxation.graph, lambda node, *inputs: node.op(*inputs), points)
    losses = {at: torch.zeros_like(values[at]) for at in free.signs}
    heights = dict(losses)
    for place, a in bounds.relaxed.items():
        (at,) = nodes[place].inputs
        unstable = relaxation.least[at] < relaxation.greatest[at]
        below = a.clamp(min=0) * (values[place] - free.slopes[at] * values[at])
        slope, offset = relaxation.upper_slope[at], relaxation.upper_offset[at]
        above = a.clamp(max=0) * (values[place] - slope * values[at] - offset)
        losses[at] = losses[at] + torch.where(unstable, below + above, 0.0)
        heights[at] = heights[at] + torch.where(unstable, a.abs() * offset + TINY, 0.0)
    flat = [torch.cat([scores[at].flatten(1) for at in sorted(scores)], dim=1) for scores in (losses, heights)]
    return flat[0], flat[1]

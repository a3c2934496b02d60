"""Constraints on pairs of ReLUs, as terms of CROWN's dual. Singh et al. 2019, "Beyond the single neuron convex barrier
for neural network certification" (k-ReLU, k = 2); in the dual as Ferrari et al. 2022, "Complete verification via
multi-neuron relaxation guided branch-and-bound" (MN-BaB).

For two ReLUs y = relu(z) of a layer, an octagon P of their possible (z_1, z_2), and any numbers a, b in R^2,

    <a, y> - <b, z>  <=  h(a, b)  =  max over z in P of <a, relu(z)> - <b, z>

Between the axes the right side is linear, so its maximum lies at a vertex of P, where an axis leaves P, or at 0. A form
with the coefficients c of y gives shares w of these to the pairs, and the lines of CROWN bound the rest:

    <c, y>  >=  <c - w c, y> + <w t c, z> - h(-w c, -w t c)        for all w and t, where products go by entries

With t in [0, 1] and w = 1 this is no worse than lines with the slopes t; it is better where P lacks corners of the box.

They stand in beta-CROWN (`beta_crown.ascend`), which optimises w and t along with everything else:

    chosen = pairs.choose(graph, region, spec, inner, most=100)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ctbench import budget
from ctbench.domains import backward, crown, rounding
from ctbench.domains.backward import Relax
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.rounding import Loss, Losses
from ctbench.graph import Graph, Lines, Node
from ctbench.graph.ops import ReLU
from ctbench.regions import Box, Region

ROUNDING = 16  # units in the last place of the largest coordinate
NEURONS = 64  # of a layer, among which pairs are looked for
BEGIN = 0.5  # the share of a coefficient that all pairs of its neuron begin with


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of ReLUs of a layer, for each of B samples, and the octagons that their inputs lie in."""

    index: Tensor  # [B, P, 2], into the flat node
    lower: Tensor  # [B, P, 4], of z_1, z_2, z_1 + z_2 and z_1 - z_2
    upper: Tensor

    @classmethod
    def of(cls, index: Tensor, box: Box, least: Tensor) -> Pairs:
        """From a box of the node and the least values of z_1 + z_2, z_1 - z_2 and of their negatives, [B, 4, P]."""
        corners = (_pick(corner, index) for corner in (box.lower, box.upper))
        rest = least[:, :2].mT, -least[:, 2:].mT
        return cls(index, *(torch.cat(pair, dim=-1) for pair in zip(corners, rest, strict=True)))

    def take(self, chosen: Tensor) -> Pairs:
        return Pairs(self.index[chosen], self.lower[chosen], self.upper[chosen])

    def to(self, dtype: torch.dtype) -> Pairs:
        return Pairs(self.index, self.lower.to(dtype), self.upper.to(dtype))

    def within(self, box: Box) -> Pairs:
        """The octagons cut with a box of the node, [B, *node], in which more signs may be known."""
        lower, upper = self.lower.clone(), self.upper.clone()
        lower[..., :2] = torch.maximum(lower[..., :2], _pick(box.lower, self.index))
        upper[..., :2] = torch.minimum(upper[..., :2], _pick(box.upper, self.index))
        return Pairs(self.index, lower, upper)

    def spread(self, values: Tensor, like: Tensor) -> Tensor:
        """The sum of the pairs' values at each neuron, [B, P, 2] to the shape of `like`, [B, ...]."""
        zeros = torch.zeros_like(like).flatten(1)
        return zeros.scatter_add(1, self.index.flatten(1), values.flatten(1)).view_as(like)

    def begin(self) -> tuple[Tensor, Tensor]:
        """Shares and slopes to begin with, [B, P, 2]: the same for all pairs of a neuron, and those of the chords."""
        flat = self.index.flatten(1)
        count = (flat.unsqueeze(2) == flat.unsqueeze(1)).sum(2).view(self.index.shape)
        return BEGIN / count.to(self.lower.dtype), ReLU().chord(self.lower[..., :2], self.upper[..., :2])

    @cached_property
    def corners(self) -> Tensor:
        """(relu(z), -z) for the points z of P of which one is a maximum, [B, P, 13, 4].

        They are the ends of what P has of six lines: the axes, and z_1 and z_2 at their least and greatest in P. Where
        an axis misses P the line next to it in P is as good, and so is any point if P is empty.
        """
        first, second, total, gap = zip(self.lower.split(1, dim=-1), self.upper.split(1, dim=-1), strict=True)
        across, low, high = _segments(first, second, total, gap)
        up, left, right = _segments(second, first, total, (-gap[1], -gap[0]))
        middle = torch.zeros_like(low[..., 2:]).maximum(low[..., 2:]).minimum(high[..., 2:])
        z_1 = torch.cat([across, across, across[..., 2:], left, right], dim=-1)
        z_2 = torch.cat([low, high, middle, up, up], dim=-1)
        return torch.stack([z_1.relu(), z_2.relu(), -z_1, -z_2], dim=-1)

    @cached_property
    def rounding(self) -> Tensor:
        """More than twice what rounding can cost for weights that sum up to 1, [B, P].

        A coordinate is off by one unit in the last place of the largest one, and a sum of four products by at most
        two: those of the best point and of the one that seems the best, and that one's once more.
        """
        return ROUNDING * torch.finfo(self.corners.dtype).eps * self.corners.abs().amax((2, 3))


Range = tuple[Tensor, Tensor]


def _segments(one: Range, other: Range, total: Range, gap: Range) -> tuple[Tensor, Tensor, Tensor]:
    """Where P is cut by z_1 at its least, greatest and nearest to 0: z_1, and the least and greatest z_2, [B, P, 3].

    From ranges [B, P, 1] of z_1, z_2, z_1 + z_2 and z_1 - z_2, by eliminating z_2 (Fourier and Motzkin).
    """
    least = one[0].maximum((total[0] + gap[0]) / 2).maximum(total[0] - other[1]).maximum(gap[0] + other[0])
    most = one[1].minimum((total[1] + gap[1]) / 2).minimum(total[1] - other[0]).minimum(gap[1] + other[1])
    at = torch.cat([least, most, torch.zeros_like(least).maximum(least).minimum(most)], dim=-1)
    return (
        at,
        other[0].maximum(total[0] - at).maximum(at - gap[1]),
        other[1].minimum(total[1] - at).minimum(at - gap[0]),
    )


def support(pairs: Pairs, a: Tensor, b: Tensor) -> Tensor:
    """h(a, b) of each pair, [B, P] from [B, P, 2] each, and a little more, so that rounding never makes it less."""
    weights = torch.cat([a, b], dim=-1)
    with torch.no_grad():
        best = (pairs.corners @ weights.unsqueeze(-1)).argmax(-2, keepdim=True)
    corner = pairs.corners.gather(-2, best.expand(*best.shape[:-1], 4)).squeeze(-2)
    return (corner * weights).sum(-1) + pairs.rounding * weights.abs().sum(-1)


def relaxed(
    form: Form,
    lines: Lines,
    pairs: Pairs,
    shares: Tensor,
    slopes: Tensor,
    losses: tuple[Loss, Loss] | None = None,
) -> Form:
    """A bound over z of one form a sample over relu(z), by lines and, for shares of it, by pairs, [B, P, 2].

    `losses` are those of z and of relu(z), in an outward graph.
    """
    c = form.dense().coefficients
    taken = shares * _pick(c, pairs.index)
    tilted = slopes * taken
    left = form + LinearForm(-pairs.spread(taken, c), 0.0)
    terms = support(pairs, -taken, -tilted)
    loss = terms.sum(1, keepdim=True)
    if losses is not None:
        before, behind = losses
        loss = loss + rounding.of_sum(terms)
        loss = loss + rounding.of_coefficients(pairs.spread(taken.abs(), c), behind, terms.shape[1])
        loss = loss + rounding.of_coefficients(pairs.spread(tilted.abs(), c), before, terms.shape[1])
    return left.relaxed(lines) + LinearForm(pairs.spread(tilted, c), -loss)


@torch.no_grad()
def choose(
    graph: Graph,
    region: Region,
    spec: Tensor,
    inner: list[Box] | dict[int, Box],
    *,
    most: int = 100,
    memory: int = budget.DEFAULT,
    losses: Losses | None = None,
) -> dict[int, Pairs]:
    """The pairs of each layer that promise most for some forms of the output, by the node that its ReLU reads.

    Among the neurons whose lines lose most, all pairs are tried: with octagons made of the forms that bound single
    neurons, and for CROWN's coefficients and lines, `support` is less than over the box by the gain of a pair; gains
    for several forms add up. Octagons of the pairs that are chosen are bounded by CROWN. A layer where no pair gains
    anything has none.

    Args:
        graph: a frozen graph.
        region: the inputs, for B samples.
        spec: the forms, [B, S, *output]; one of zeros has no say.
        inner: sound boxes of all nodes.
        most: pairs of a layer.
        memory: as in `crown.boxes`, for the octagons.
        losses: those of an outward graph.

    Raises:
        ValueError: most is not positive.
    """
    if most < 1:
        raise ValueError(f"most={most}: choose at least one pair of a layer")
    lines = backward.all_lines(graph, inner)
    relax, found = backward.by_lines(lines), dict[int, Pairs]()

    def chosen(reader: int, node: Node, form: Form) -> Form:
        at = node.inputs[0]
        if isinstance(node.op, ReLU) and at > 0:
            c = form.dense().coefficients
            relaxed_away = -c.clamp(max=0).sum(1) * lines[reader].upper_offset
            tried = _among(graph, region, inner[at], at, relaxed_away.flatten(1), relax, losses)
            gain = _gain(tried, c, lines[reader])
            count = min(most, int((gain > 0).sum(1).amax()))
            if count:
                index = tried.index.gather(1, gain.topk(count).indices.unsqueeze(-1).expand(-1, -1, 2))
                found[at] = _bounded(graph, region, inner[at], at, index, relax, memory, losses)
        return relax(reader, node, form)

    backward.back_to_input(graph, LinearForm(spec, 0.0), chosen, losses)
    return found


def _among(
    graph: Graph, region: Region, box: Box, at: int, score: Tensor, relax: Relax, losses: Losses | None
) -> Pairs:
    """All pairs of the neurons of highest score, [B, size], with octagons from the forms that bound each neuron."""
    top = score.topk(min(NEURONS, score.shape[1])).indices
    count = top.shape[1]
    start = backward.neurons(top, box.lower.shape[1:], score.new_tensor([1.0, -1.0]))
    ends = backward.back_to_input(graph, start, relax, losses, at).dense()
    constant = ends.constant + score.new_zeros(len(top), ends.count)
    least = torch.stack([region.minimum(ends.coefficients + one) for one in ends.coefficients.split(1, dim=1)], dim=1)
    least = least + constant.unsqueeze(1) + constant.unsqueeze(2)  # of sums of two forms
    i, j = torch.triu_indices(count, count, 1, device=top.device)
    sums = [least[:, i, j], least[:, i, count + j], least[:, count + i, count + j], least[:, count + i, j]]
    return Pairs.of(torch.stack([top[:, i], top[:, j]], dim=-1), box, torch.stack(sums, dim=1))


def _gain(pairs: Pairs, coefficients: Tensor, lines: Lines) -> Tensor:
    """How much less is lost for the forms [B, S, *node] than by lines of the same slopes, [B, P]."""
    low, high, upper_offset = (
        _pick(x, pairs.index) for x in (lines.lower_slope, lines.upper_slope, lines.upper_offset)
    )
    gain = torch.zeros_like(pairs.lower[..., 0])
    for c in coefficients.unbind(1):
        c = _pick(c, pairs.index)
        gain = gain - (c.clamp(max=0) * upper_offset).sum(-1) - support(pairs, -c, -c * torch.where(c > 0, low, high))
    return gain


def _bounded(
    graph: Graph, region: Region, box: Box, at: int, index: Tensor, relax: Relax, memory: int, losses: Losses | None
) -> Pairs:
    """Pairs of a node's neurons, [B, P, 2], with octagons bounded by CROWN."""
    widest = max(math.prod(node.shape) for node in graph.nodes)
    row = crown.LIVE_COPIES * 4 * len(index) * widest * box.lower.element_size()

    def bounds(part: Tensor) -> Tensor:
        zeros = torch.zeros_like(box.lower).flatten(1).unsqueeze(1).expand(-1, part.shape[1], -1)
        first, second = (zeros.scatter(2, one, 1.0) for one in part.split(1, dim=2))
        rows = torch.stack([first + second, first - second, -first - second, second - first], dim=1)
        form = LinearForm(rows.view(len(rows), 4 * part.shape[1], *box.lower.shape[1:]), 0.0)
        return backward.back_to_input(graph, form, relax, losses, at).minimum(region).view(*rows.shape[:3])

    return Pairs.of(index, box, torch.cat([bounds(part) for part in index.split(max(1, memory // row), dim=1)], dim=2))


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """The entries of neurons: values [B, *node] or [B, 1, *node] at index [B, P, 2]."""
    return values.flatten(1).gather(1, index.flatten(1)).view(index.shape)

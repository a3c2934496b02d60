"""Constraints on pairs of ReLUs, as terms of CROWN's dual. Singh et al. 2019, "Beyond the single neuron convex barrier
for neural network certification" (k-ReLU, k = 2); in the dual as Ferrari et al. 2022, "Complete verification via
multi-neuron relaxation guided branch-and-bound" (MN-BaB).

For two ReLUs y = relu(z) of a layer, an octagon P of their possible (z_1, z_2), and any numbers a, b in R^2,

    <a, y> - <b, z>  <=  h(a, b)  =  max over z in P of <a, relu(z)> - <b, z>

Between the axes the right side is linear, so its maximum is at a vertex of P, where an axis leaves P, or at 0. Of a
form with coefficients c of y, shares w of the coefficients go to the pairs, and the lines of CROWN bound the rest:

    <c, y>  >=  <c - w c, y> + <w t c, z> - h(-w c, -w t c)        for all w and t, with products entry by entry

With t in [0, 1] and w = 1 this is no worse than lines with the slopes t. It is better if P lacks corners of the box.

beta-CROWN (`beta_crown.ascend`) optimises w and t along with its other multipliers:

    chosen = pairs.choose(graph, region, spec, inner, most=100)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ctbench import memory_budget
from ctbench.domains import backward, crown, rounding
from ctbench.domains.backward import Relax
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.rounding import Loss, Losses
from ctbench.graph import Graph, Lines, Node
from ctbench.graph.ops import ReLU
from ctbench.regions import Box, Region

ROUNDING = 16  # units in the last place of the largest coordinate
NEURONS = 64  # the number of neurons of a layer among which pairs are chosen
BEGIN = 0.5  # the share of a coefficient that all pairs of its neuron have together at the start


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of ReLUs of a layer, for each of B samples, and the octagons that contain their inputs."""

    index: Tensor  # [B, P, 2], into the flat node
    lower: Tensor  # [B, P, 4], of z_1, z_2, z_1 + z_2 and z_1 - z_2
    upper: Tensor

    @classmethod
    def of(cls, index: Tensor, box: Box, least: Tensor) -> Pairs:
        """Pairs from a box of the node and the minima of z_1 + z_2, z_1 - z_2 and of their negatives, [B, 4, P]."""
        corners = (_pick(corner, index) for corner in (box.lower, box.upper))
        rest = least[:, :2].mT, -least[:, 2:].mT
        return cls(index, *(torch.cat(pair, dim=-1) for pair in zip(corners, rest, strict=True)))

    def take(self, chosen: Tensor) -> Pairs:
        return Pairs(self.index[chosen], self.lower[chosen], self.upper[chosen])

    def to(self, dtype: torch.dtype) -> Pairs:
        return Pairs(self.index, self.lower.to(dtype), self.upper.to(dtype))

    def within(self, box: Box) -> Pairs:
        """The octagons intersected with a box of the node, [B, *node], in which more signs may be fixed."""
        lower, upper = self.lower.clone(), self.upper.clone()
        lower[..., :2] = torch.maximum(lower[..., :2], _pick(box.lower, self.index))
        upper[..., :2] = torch.minimum(upper[..., :2], _pick(box.upper, self.index))
        return Pairs(self.index, lower, upper)

    def spread(self, values: Tensor, like: Tensor) -> Tensor:
        """At each neuron, the sum of the values of its pairs: [B, P, 2] to the shape of `like`, [B, ...]."""
        zeros = torch.zeros_like(like).flatten(1)
        return zeros.scatter_add(1, self.index.flatten(1), values.flatten(1)).view_as(like)

    def begin(self) -> tuple[Tensor, Tensor]:
        """The initial shares, equal for all pairs of a neuron, and the slopes of the chords, [B, P, 2] each."""
        flat = self.index.flatten(1)
        count = (flat.unsqueeze(2) == flat.unsqueeze(1)).sum(2).view(self.index.shape)
        return BEGIN / count.to(self.lower.dtype), ReLU().chord(self.lower[..., :2], self.upper[..., :2])

    @cached_property
    def corners(self) -> Tensor:
        """(relu(z), -z) for the points z of P at which the maximum can be, [B, P, 13, 4].

        They are the ends of the parts in P of six lines: the axes, and the lines where z_1 or z_2 is at its minimum or
        maximum in P. If an axis misses P, the nearest such line replaces it. If P is empty, any points will do.
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
        """More than twice the rounding error for weights with the sum 1, [B, P].

        The error of a coordinate is one unit in the last place of the largest one, and that of a sum of four products
        at most two: for the best point, for the point that seems to be the best, and again for the latter.
        """
        return ROUNDING * torch.finfo(self.corners.dtype).eps * self.corners.abs().amax((2, 3))


Range = tuple[Tensor, Tensor]


def _segments(one: Range, other: Range, total: Range, gap: Range) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of P where z_1 is minimal, maximal and nearest to 0: z_1 and the range of z_2, [B, P, 3] each.

    Computed from ranges [B, P, 1] of z_1, z_2, z_1 + z_2 and z_1 - z_2, by eliminating z_2 (Fourier and Motzkin).
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
    """h(a, b) of each pair, [B, P] from [B, P, 2] each, plus an upper bound of its rounding error."""
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
    """A bound of one form per sample over relu(z), as a form over z: by lines and, for shares of it, by pairs.

    Args:
        form: the form over relu(z).
        lines: the lines of the ReLUs.
        pairs: P pairs for each sample.
        shares: w, [B, P, 2].
        slopes: t, [B, P, 2].
        losses: those of z and of relu(z), for an outward graph.
    """
    c = form.dense().coefficients
    shared = shares * _pick(c, pairs.index)
    tilted = slopes * shared
    rest = form + LinearForm(-pairs.spread(shared, c), 0.0)
    terms = support(pairs, -shared, -tilted)
    loss = terms.sum(1, keepdim=True)
    if losses is not None:
        before, after = losses
        loss = loss + rounding.of_sum(terms)
        loss = loss + rounding.of_coefficients(pairs.spread(shared.abs(), c), after, terms.shape[1])
        loss = loss + rounding.of_coefficients(pairs.spread(tilted.abs(), c), before, terms.shape[1])
    return rest.relaxed(lines) + LinearForm(pairs.spread(tilted, c), -loss)


@torch.no_grad()
def choose(
    graph: Graph,
    region: Region,
    spec: Tensor,
    inner: list[Box] | dict[int, Box],
    *,
    most: int = 100,
    memory: int = memory_budget.DEFAULT,
    losses: Losses | None = None,
) -> dict[int, Pairs]:
    """The pairs of each layer with the largest gain for some forms of the output, by the node that its ReLU reads.

    All pairs of the neurons whose lines lose most are candidates. The gain of a pair is the difference of `support`
    between the box and an octagon, for the coefficients and lines of CROWN; the octagon is computed from the forms that
    bound single neurons. Gains for several forms add up. The octagons of the chosen pairs are then bounded by CROWN. A
    layer without a pair that gains has no entry.

    Args:
        graph: a frozen graph.
        region: the inputs, for B samples.
        spec: the forms, [B, S, *output]; forms of zeros do not affect the choice.
        inner: sound boxes of all nodes.
        most: the largest number of pairs of a layer.
        memory: bytes that the coefficients of one pass may take, for the octagons.
        losses: those of an outward graph.

    Raises:
        ValueError: most is not positive.
    """
    if most < 1:
        raise ValueError(f"most={most}: choose at least one pair of a layer")
    lines = backward.all_lines(graph, inner)
    relax, pairs = backward.by_lines(lines), dict[int, Pairs]()

    def chosen(reader: int, node: Node, form: Form) -> tuple[Form, ...]:
        at, around = node.inputs[0], lines[reader]
        if isinstance(node.op, ReLU) and at > 0:
            assert isinstance(around, Lines)
            c = form.dense().coefficients
            lost = -c.clamp(max=0).sum(1) * around.upper_offset
            candidates = _among(graph, region, inner[at], at, lost.flatten(1), relax, losses)
            gain = _gain(candidates, c, around)
            count = min(most, int((gain > 0).sum(1).amax()))
            if count:
                index = candidates.index.gather(1, gain.topk(count).indices.unsqueeze(-1).expand(-1, -1, 2))
                pairs[at] = _bounded(graph, region, inner[at], at, index, relax, memory, losses)
        return relax(reader, node, form)

    backward.back_to_input(graph, LinearForm(spec, 0.0), chosen, losses)
    return pairs


def _among(
    graph: Graph, region: Region, box: Box, at: int, score: Tensor, relax: Relax, losses: Losses | None
) -> Pairs:
    """All pairs of the neurons with the highest scores [B, size], with octagons from the forms that bound neurons."""
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
    """How much less pairs lose for the forms [B, S, *node] than lines with the same slopes, [B, P]."""
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

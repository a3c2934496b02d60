"""Zonotopes (DeepZ): Singh et al. 2018, "Fast and effective robustness certification".

The value of a node is affine in error terms e_i in [-1, 1] that all nodes share, plus one e of its own per neuron:

    z           = c + sum_i e_i g_i + e r                       so |z - c| <= sum_i |g_i| + r
    affine        c' = W c + b,    g' = W g,    r' = |W| r
    product       see its rule: what both factors share counts once
    elementwise   c' = s c + m,    g' = s g and a new term h,    r' = |s| r      where |f(z) - s z - m| <= h on [l, u]
    ReLU          s = u / (u - l), m = h = -s l / 2 if l < 0 < u;   s = 0 or 1, m = h = 0 otherwise

s is the slope of the chord, for any f. Affine ops, and branches that meet, are exact. So with `pure` and without `fold`
these are the bounds of CROWN with parallel slopes, computed in one forward pass.

    margins = Zonotope().lower_bounds(graph, region, spec)
    cheaper = Zonotope(fold=200).lower_bounds(graph, region, spec)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench import memory_budget, time_budget
from ctbench.domains import interval, rounding
from ctbench.domains.backward import positions
from ctbench.domains.base import Domain
from ctbench.domains.linear_form import LinearForm
from ctbench.domains.relaxations import parallel
from ctbench.domains.rounding import Loss
from ctbench.domains.unsupported import no_rule
from ctbench.graph import Affine, Elementwise, Graph, Op
from ctbench.graph.ops import Add, Concat, Max, Product, Refined
from ctbench.graph.ops.refined import FACTS
from ctbench.regions import Box, Region

NO_TERM = -1  # the term of rows that pad a sample with fewer error terms


@dataclass(frozen=True, kw_only=True)
class Zonotope(Domain):
    """DeepZ: values are affine in error terms that all nodes share (Singh et al. 2018).

    Of a region that is not a box, its hull is taken.

    Args:
        fold: the number of error terms that a node keeps, at least 1. The smallest ones are folded into the radius r,
            which is sound and cheaper, but loses much if `fold` is below the number of inputs. None keeps all terms.
        pure: the version of the paper: do not intersect the boxes with interval images of the boxes before.

    Raises:
        ValueError: fold is below 1.
    """

    name: ClassVar[str] = "zonotope"
    fold: int | None = None
    pure: bool = False

    def __post_init__(self) -> None:
        if self.fold is not None and self.fold < 1:
            raise ValueError(f"fold is {self.fold}: keep at least one error term, or give None to keep all")

    def footprint(self, graph: Graph, forms: int) -> int:
        """The generators, if every neuron is unstable."""
        terms = math.prod(graph.input_shape) + sum(math.prod(node.shape) for node in graph.nodes if node.op.relaxed)
        return 3 * terms * max(math.prod(node.shape) for node in graph.nodes)

    def boxes(self, graph: Graph, region: Region, *, memory: int = memory_budget.DEFAULT) -> list[Box]:
        return self._propagate(graph, region, None)[1]

    def lower_bounds(
        self,
        graph: Graph,
        region: Region,
        spec: Tensor,
        *,
        inner: list[Box] | None = None,
        memory: int = memory_budget.DEFAULT,
    ) -> Tensor:
        """Lower bounds [B, S]: those of the zonotopes or, unless `pure`, those of the boxes alone if better."""
        zonotopes, inner = self._propagate(graph, region, inner)
        losses = rounding.losses(graph, region, inner)
        merged, at = interval.merge_last_layer(graph, LinearForm(spec, 0.0), losses)
        form = merged.dense()
        bound = zonotopes[at].minimum(form.coefficients, outward=graph.outward) + form.constant
        if self.pure:
            return bound
        return torch.maximum(bound, rounding.ended(form, at, losses).minimum(region if at == 0 else inner[at]))

    def _propagate(self, graph: Graph, region: Region, inner: list[Box] | None) -> tuple[list[ZonotopeSet], list[Box]]:
        """The zonotopes of all nodes, and `inner` or, without it, their boxes."""
        start, losses = region.hull, list[Loss]()
        if graph.outward:
            losses.append(rounding.loss(graph, 0, start, [], [], region))
            start = rounding.widened(start, losses[0])
        begin = ZonotopeSet.of(start).widened(torch.zeros_like(start.lower)) if graph.outward else ZonotopeSet.of(start)
        zonotopes, boxes, first = [begin.folded(self.fold)], [start], math.prod(graph.input_shape)
        for at, node in enumerate(graph.nodes[1:], 1):
            time_budget.check()
            inputs, read = [zonotopes[i] for i in node.inputs], [boxes[i] for i in node.inputs]
            pre_activation = (boxes if inner is None else inner)[node.inputs[0]]
            band = Band.around(node.op, pre_activation) if isinstance(node.op, Elementwise | Max) else None
            zonotope, box = _image(node.op, band, first, *inputs), interval.forward(node, *read)
            if graph.outward:
                losses.append(rounding.loss(graph, at, box, boxes, losses, region))
                box = rounding.widened(box, losses[at])
                zonotope = zonotope.widened(
                    rounding.of_op(node, pre_activation, [each.size for each in inputs], zonotope.terms.shape[1])
                )
            zonotopes.append(zonotope.folded(self.fold))
            alone = self.pure and not isinstance(node.op, FACTS)
            boxes.append(zonotopes[at].box if alone else zonotopes[at].box.intersect(box))
            first += math.prod(node.shape)
        return zonotopes, boxes if inner is None else inner


footprint, boxes, lower_bounds = Zonotope().footprint, Zonotope().boxes, Zonotope().lower_bounds


@dataclass(frozen=True, eq=False)
class ZonotopeSet:
    """All center + sum_i e_i generators_i + r with e_i in [-1, 1] and |r| <= radius.

    `terms` holds the error term of each generator: the number of the neuron that introduced it, counted over all nodes.
    So branches that meet can match the terms that they share.
    """

    center: Tensor  # [B, *node]
    generators: Tensor  # [B, E, *node]
    terms: Tensor  # integers [B, E]
    radius: Tensor  # [B, *node]

    @classmethod
    def of(cls, box: Box) -> ZonotopeSet:
        """A box; its error terms have the first numbers."""
        return cls(box.center, *_new_terms(box.radius, 0), torch.zeros_like(box.radius))

    @property
    def box(self) -> Box:
        return Box.around(self.center, self.generators.abs().sum(1) + self.radius)

    @property
    def size(self) -> Tensor:
        """The sum of the |terms| of a value, [B, *node]."""
        return self.center.abs() + self.generators.abs().sum(1) + self.radius

    def minimum(self, a: Tensor, *, outward: bool = False) -> Tensor:
        """The minimum of <a, z>, for S linear forms per sample: [B, S, *node] to [B, S]."""
        spread = a.flatten(2) @ self.generators.flatten(2).transpose(1, 2)
        least = Box.around(self.center, self.radius).minimum(a) - spread.abs().sum(2)
        return least - rounding.of_minimum(a, self.size, self.terms.shape[1]) if outward else least

    def widened(self, lost: Tensor) -> ZonotopeSet:
        """The zonotope, wider by a rounding error and by the rounding errors of sums over its terms."""
        return replace(self, radius=self.radius + lost + rounding.of_terms(self.size, 2 * self.terms.shape[1]))

    def within(self, band: Band, first: int) -> ZonotopeSet:
        """The image under a relaxed op; the numbers of its error terms start at `first`."""
        center, radius = (band.linear(value.unsqueeze(1)).squeeze(1) for value in (self.center, self.radius))
        generators, terms = _new_terms(band.half, first)
        return ZonotopeSet(
            center + band.middle,
            torch.cat([band.linear(self.generators), generators], dim=1),
            torch.cat([self.terms, terms], dim=1),
            radius.abs(),
        )

    def folded(self, most: int | None) -> ZonotopeSet:
        """A zonotope around this one with at most `most` error terms: the smallest ones become part of the radius."""
        if most is None or self.terms.shape[1] <= most:
            return self
        order = self.generators.abs().flatten(2).sum(2).argsort(dim=1, descending=True)
        kept, rest = order[:, :most], order[:, most:]
        return replace(
            self,
            generators=_rows(self.generators, kept),
            terms=self.terms.gather(1, kept),
            radius=self.radius + _rows(self.generators, rest).abs().sum(1),
        )


class Band(NamedTuple):
    """|f(z) - slope z - middle| <= half for all z in a box: the two lines of a relaxation have the same slope."""

    slope: Tensor  # [B, *input]; for a maximum of n entries [B, n, *node], one of them 1
    middle: Tensor  # [B, *node]
    half: Tensor  # [B, *node]

    def linear(self, rows: Tensor) -> Tensor:
        """slope z for N values z per sample, [B, N, *input] to [B, N, *node]."""
        scaled = self.slope.unsqueeze(1) * rows
        return scaled.sum(2) if self.slope.dim() > self.half.dim() else scaled

    @classmethod
    def around(cls, op: Op, box: Box) -> Band:
        """The band of an elementwise op along its chord, or of a maximum along the entry with the greatest lower bound.

        The maximum exceeds that entry by at most the largest other upper bound minus the entry's lower bound.
        """
        if isinstance(op, Max):
            first = op.lines(box.lower, box.upper).lower_slope
            floor = (first * box.lower).sum(1)
            half = (torch.where(first > 0, floor.unsqueeze(1), box.upper).amax(1) - floor) / 2
            return cls(first, half, half)
        if not isinstance(op, Elementwise):
            raise no_rule("a relaxation by one slope", op)
        slope, lower_offset, _, upper_offset = op.lines(box.lower, box.upper, *parallel(op, box.lower, box.upper))
        return (
            cls(slope, upper_offset / 2, upper_offset / 2)
            if lower_offset is None
            else cls(slope, (upper_offset + lower_offset) / 2, (upper_offset - lower_offset) / 2)
        )


def by_row(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """A function of batches, for N values per sample: [B, N, *input] to [B, N, *node]."""
    values: Tensor = function(*(each.flatten(0, 1) for each in rows))
    return values.view(*rows[0].shape[:2], *values.shape[1:])


@singledispatch
def _image(op: Op, band: Band | None, first: int, *zonotopes: ZonotopeSet) -> ZonotopeSet:
    raise no_rule("zonotope", op)


@_image.register
def _(op: Affine, band: Band | None, first: int, z: ZonotopeSet) -> ZonotopeSet:
    return ZonotopeSet(op(z.center), by_row(op.linear, z.generators), z.terms, op.magnitude(z.radius))


@_image.register
def _(op: Elementwise | Max, band: Band, first: int, z: ZonotopeSet) -> ZonotopeSet:
    return z.within(band, first)


@_image.register
def _(op: Product, band: Band | None, first: int, x: ZonotopeSet, y: ZonotopeSet) -> ZonotopeSet:
    """c_x c_y + c_x (y - c_y) + c_y (x - c_x), and a new term for (x - c_x) (y - c_y).

    With x - c_x = sum_i e_i g_i and y - c_y = sum_i e_i h_i, the squares e_i^2 of this product lie in [0, 1], so it is
    sum_i g_i h_i / 2, to within sum_ij |g_i h_j| - sum_i |g_i h_i| / 2.
    """
    terms, (g, h) = _aligned((x, y))
    squares = g * h
    both = (g.abs().sum(1) + x.radius) * (h.abs().sum(1) + y.radius)
    generators, new = _new_terms((both - squares.abs().sum(1) / 2).clamp(min=0), first)
    return ZonotopeSet(
        x.center * y.center + squares.sum(1) / 2,
        torch.cat([x.center.unsqueeze(1) * h + y.center.unsqueeze(1) * g, generators], dim=1),
        torch.cat([terms, new], dim=1),
        x.center.abs() * y.radius + y.center.abs() * x.radius,
    )


@_image.register
def _(op: Refined, band: Band | None, first: int, z: ZonotopeSet, *others: ZonotopeSet) -> ZonotopeSet:
    return z


@_image.register
def _(op: Add | Concat, band: Band | None, first: int, *zonotopes: ZonotopeSet) -> ZonotopeSet:
    terms, generators = _aligned(zonotopes)
    center, radius = op(*(z.center for z in zonotopes)), op(*(z.radius for z in zonotopes))
    return ZonotopeSet(center, by_row(op, *generators), terms, radius)


def _new_terms(half: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """A generator for every neuron that needs an error term, from half-widths [B, *node]; and the terms."""
    flat = half.flatten(1)
    batch, size = flat.shape
    index = positions(flat != 0)  # NaN is kept: it certifies nothing
    if not index.shape[1]:
        index = index.new_full((batch, 1), size)  # one row of padding: torch infers no shape from an empty batch
    flat, at = F.pad(flat, (0, 1)), index.unsqueeze(2)
    rows = flat.new_zeros(*index.shape, size + 1).scatter(2, at, flat.gather(1, index).unsqueeze(2))
    return rows[:, :, :size].reshape(*index.shape, *half.shape[1:]), torch.where(index < size, first + index, NO_TERM)


def _rows(rows: Tensor, index: Tensor) -> Tensor:
    """Some of the rows of each sample: [B, N, *node] and [B, M] to [B, M, *node]."""
    return rows.gather(1, index.view(*index.shape, *[1] * (rows.dim() - 2)).expand(-1, -1, *rows.shape[2:]))


def _aligned(zonotopes: tuple[ZonotopeSet, ...]) -> tuple[Tensor, list[Tensor]]:
    """The union of the error terms of zonotopes, [B, E], and for each zonotope its generators for all these terms."""
    terms = torch.cat([z.terms for z in zonotopes], dim=1)
    ordered, order = terms.sort(dim=1)
    rank = F.pad((ordered.diff(dim=1) > 0).long(), (1, 0)).cumsum(1)  # equal terms have one place
    place, count = rank.scatter(1, order, rank), int(rank.max()) + 1
    sample = torch.arange(len(terms), device=terms.device).unsqueeze(1) * count

    def spread(z: ZonotopeSet, at: Tensor) -> Tensor:
        shape = z.generators.shape[2:]
        rows = z.generators.new_zeros(len(terms) * count, *shape)
        return rows.index_add(0, (sample + at).flatten(), z.generators.flatten(0, 1)).view(len(terms), count, *shape)

    places = place.split([z.terms.shape[1] for z in zonotopes], dim=1)
    together = terms.new_full((len(terms), count), NO_TERM).scatter(1, place, terms)
    return together, [spread(z, at) for z, at in zip(zonotopes, places, strict=True)]

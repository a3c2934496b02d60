"""COAP, the convex outer adversarial polytope: Wong & Kolter 2018, "Provable defenses against adversarial examples".

A feasible point of the dual of the network's linear relaxation bounds <c, z> from below (Theorem 1, there for linf):

    nu_K   = -c,   nu^_i = W_i^T nu_{i+1},   nu_i = D_i nu^_i    with D = 0, 1 or, where l < 0 < u, u / (u - l)
    J(nu)  = -sum_i <nu_{i+1}, b_i> + sum over unstable (i, j) of l_ij [nu_ij]_+ - <nu^_1, x> - eps ||nu^_1||_dual
    [l, u] : J and -J of every hidden neuron and of its negative, layer by layer

-nu are the coefficients that CROWN carries backward if both lines of a ReLU have the slope of the chord, which is D.
Only negative coefficients meet the offset -D l of the upper line, hence [.]_+, and the terms with x and eps are the
minimum over the region. So these are the bounds of CROWN with parallel slopes in all layers, without intervals, for any
region:

    margins  = COAP().lower_bounds(graph, region, spec)
    estimate = COAP(projections=50, generator=generator).lower_bounds(graph, region, spec)      # NOT sound

With `projections` the radii of the hidden [l, u] are estimated (Wong et al. 2018, "Scaling provable adversarial
defenses", section 3.2). Forward, the relaxed network is a zonotope z = center + sum_i e_i g_i, whose radius is the l1
norm of the g_i, over inputs and unstable neurons. It needs no g_i: r sums of them with random factors go through the
network, and

    radius = median over r of |sum_i cauchy_ri g_i|;   the inputs of an l2 ball are bounded together: their part is the
                                                       l2 norm, the root mean square over r of sum_i normal_ri g_i

One set of sums serves the terms of all layers (Wong et al. take one per layer), so all radii cost r forward passes. The
bound of the specification is then one exact backward pass. An estimated radius is too small about as often as too
large, so these bounds are for training and for measurements, and prove nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import singledispatch
from typing import ClassVar

import torch
from torch import Tensor

from ctbench import memory_budget
from ctbench.domains import backward, crown, interval
from ctbench.domains.base import Domain
from ctbench.domains.crown import Crown
from ctbench.domains.relaxations import parallel
from ctbench.domains.unsupported import no_rule
from ctbench.domains.zonotope import Band, by_row
from ctbench.graph import Affine, Graph, Op
from ctbench.graph.ops import Add, Concat, Refined
from ctbench.regions import Box, L2Ball, Region


@dataclass(frozen=True, kw_only=True)
class COAP(Domain):
    """The dual bound of Wong & Kolter 2018: CROWN with parallel slopes, without intervals.

    Args:
        projections: the number of random sums that estimate a radius; the bounds are then NOT sound. None computes the
            radii exactly.
        generator: the source of the random sums, which are the same for all samples of a batch.

    Raises:
        ValueError: projections is below 1.
    """

    name: ClassVar[str] = "coap"
    projections: int | None = None
    generator: torch.Generator | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.projections is not None and self.projections < 1:
            raise ValueError(
                f"projections is {self.projections}: take at least one random sum, or None for exact bounds"
            )

    @property
    def sound(self) -> bool:
        """With projections, bounds are estimates."""
        return self.projections is None

    def footprint(self, graph: Graph, forms: int) -> int:
        return crown.footprint(graph, forms)

    def boxes(self, graph: Graph, region: Region, *, memory: int = memory_budget.DEFAULT) -> list[Box]:
        """A box for each node, [B, *node]; those of nodes that no relaxation reads are interval images.

        Raises:
            ValueError: `projections` is set, and the region is neither a box nor an l2 ball without a data range.
        """
        if self.projections is None:
            return EXACT.boxes(graph, region, memory=memory)
        return _estimated_boxes(graph, region, self.projections, self.generator)

    def lower_bounds(
        self,
        graph: Graph,
        region: Region,
        spec: Tensor,
        *,
        inner: list[Box] | None = None,
        memory: int = memory_budget.DEFAULT,
    ) -> Tensor:
        """Lower bounds J, [B, S]; with `projections`, estimates of J. Raises ValueError like `boxes`."""
        inner = self.boxes(graph, region, memory=memory) if inner is None else inner
        return EXACT.lower_bounds(graph, region, spec, inner=inner)


EXACT = Crown(slope=parallel, pure=True)
boxes, lower_bounds = COAP().boxes, COAP().lower_bounds


@dataclass(frozen=True, eq=False)
class Sketch:
    """Random sums of the generators of a zonotope: with Cauchy factors; for those of an l2 ball, with Gaussian ones."""

    center: Tensor  # [B, *node]
    sums: Tensor  # [B, r, *node]; [B, 2 r, *node] if the region is a ball
    projections: int  # r

    @property
    def box(self) -> Box:
        """The box of the center and the estimated radius."""
        free, ball = self.sums[:, : self.projections], self.sums[:, self.projections :]
        return Box.around(self.center, _median(free.abs()) + ball.norm(dim=1) / math.sqrt(self.projections))

    def within(self, band: Band, generator: torch.Generator | None) -> Sketch:
        """The image under a relaxed op, with a new error term for each neuron."""
        sums = band.linear(self.sums)
        noise = torch.zeros_like(sums[:1])
        noise[:, : self.projections].cauchy_(generator=generator)
        center = band.linear(self.center.unsqueeze(1)).squeeze(1) + band.middle
        return Sketch(center, sums + band.half.unsqueeze(1) * noise, self.projections)


def _median(x: Tensor) -> Tensor:
    """The median over the r rows of [B, r, *node]; for even r, the mean of the two middle values."""
    return (x.median(dim=1).values - (-x).median(dim=1).values) / 2


def _start(region: Region, projections: int, generator: torch.Generator | None) -> Sketch:
    """The sketch of a region."""
    center = region.center if isinstance(region, Box | L2Ball) else region.hull.center
    noise = center.new_empty(1, projections, *center.shape[1:])
    if isinstance(region, Box):
        return Sketch(center, noise.cauchy_(generator=generator) * region.radius.unsqueeze(1), projections)
    if isinstance(region, L2Ball) and region.clip is None:
        sums = torch.cat([torch.zeros_like(noise), noise.normal_(generator=generator) * region.radius], dim=1)
        return Sketch(center, sums.expand(len(center), *sums.shape[1:]), projections)
    kind = "an l2 ball that a data range cuts" if isinstance(region, L2Ball) else f"a {type(region).__name__}"
    raise ValueError(
        f"the region is {kind}: random projections support boxes, and l2 balls with clip=None; give projections=None "
        f"for exact bounds"
    )


def _estimated_boxes(graph: Graph, region: Region, projections: int, generator: torch.Generator | None) -> list[Box]:
    sketches, boxes = [_start(region, projections, generator)], [region.hull]
    read = {i for node in graph.nodes if node.op.relaxed for i in node.inputs}
    for at, node in enumerate(graph.nodes[1:], 1):
        inputs = [sketches[i] for i in node.inputs]
        if node.op.relaxed:
            sketch = inputs[0].within(Band.around(node.op, boxes[node.inputs[0]]), generator)
        else:
            sketch = _image(node.op, *inputs)
        estimated = at in read and not backward.exact_by_intervals(graph, at, region)
        boxes.append(sketch.box if estimated else interval.forward(node, *(boxes[i] for i in node.inputs)))
        sketches.append(sketch)
    return boxes


@singledispatch
def _image(op: Op, *sketches: Sketch) -> Sketch:
    raise no_rule("COAP", op)


@_image.register
def _(op: Affine, z: Sketch) -> Sketch:
    return Sketch(op(z.center), by_row(op.linear, z.sums), z.projections)


@_image.register
def _(op: Refined, z: Sketch, *others: Sketch) -> Sketch:
    return z


@_image.register
def _(op: Add | Concat, *sketches: Sketch) -> Sketch:
    center, sums = op(*(z.center for z in sketches)), by_row(op, *(z.sums for z in sketches))
    return Sketch(center, sums, sketches[0].projections)

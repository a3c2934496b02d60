"""COAP, the convex outer adversarial polytope: Wong & Kolter 2018, "Provable defenses against adversarial examples".

A feasible point of the dual of the network's linear relaxation bounds <c, z> from below (Theorem 1, there for linf):

    nu_K   = -c,   nu^_i = W_i^T nu_{i+1},   nu_i = D_i nu^_i    with D = 0, 1 or, where l < 0 < u, u / (u - l)
    J(nu)  = -sum_i <nu_{i+1}, b_i> + sum over unstable (i, j) of l_ij [nu_ij]_+ - <nu^_1, x> - eps ||nu^_1||_dual
    [l, u] : J and -J of every hidden neuron and of its negative, layer by layer

-nu are the coefficients that CROWN carries backward where both lines of a ReLU have the slope of the chord, which is D.
Negative coefficients alone meet the upper line's offset -D l, hence [.]_+, and the terms with x and eps are the minimum
over the region. So these are CROWN's bounds with parallel slopes in all layers, no intervals, and any region:

    margins  = coap.lower_bounds(graph, region, spec)
    estimate = coap.lower_bounds(graph, region, spec, projections=50, generator=generator)      # NOT sound

With `projections` the radii of the hidden [l, u] are estimated (Wong et al. 2018, "Scaling provable adversarial
defenses", section 3.2). Forward, the relaxed network is a zonotope z = center + sum_i e_i g_i, whose radius is the l1
norm of the g_i, over inputs and unstable neurons. No g_i is needed for it: r sums of them with random factors go
through the network, and

    radius = median over r of |sum_i cauchy_ri g_i|;   the inputs of an l2 ball, bounded together, count apart by their
                                                       l2 norm, the root mean square over r of sum_i normal_ri g_i

One set of sums serves the terms of all layers (Wong et al. take one for each), so all radii cost r forward passes. The
bound of the specification is then one exact backward pass. A radius comes out too small about as often as too large, so
these bounds are for training and for measurements, and prove nothing.
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
from ctbench.domains.relaxations import parallel
from ctbench.domains.unsupported import no_rule
from ctbench.domains.zonotope import Band, by_row
from ctbench.graph import Affine, Graph, Op
from ctbench.graph.ops import Add, Concat
from ctbench.regions import Box, L2Ball, Region


@dataclass(frozen=True, kw_only=True)
class COAP(Domain):
    """The dual bound of Wong & Kolter 2018: CROWN with parallel slopes, and no intervals.

    Args:
        projections: how many random sums estimate a radius; the bounds are then NOT sound. None computes them exactly.
        generator: of the random sums, which are the same for all samples of the batch.

    Raises:
        ValueError: projections is below 1.
    """

    name: ClassVar[str] = "coap"
    projections: int | None = None
    generator: torch.Generator | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.projections is not None:
            _check_projections(self.projections)

    @property
    def sound(self) -> bool:
        """With projections, bounds are estimates."""
        return self.projections is None

    def footprint(self, graph: Graph, forms: int) -> int:
        return crown.footprint(graph, forms)

    def boxes(self, graph: Graph, region: Region, *, memory: int = memory_budget.DEFAULT) -> list[Box]:
        return boxes(graph, region, projections=self.projections, generator=self.generator, memory=memory)

    def lower_bounds(
        self,
        graph: Graph,
        region: Region,
        spec: Tensor,
        *,
        inner: list[Box] | None = None,
        memory: int = memory_budget.DEFAULT,
    ) -> Tensor:
        return lower_bounds(
            graph, region, spec, inner=inner, projections=self.projections, generator=self.generator, memory=memory
        )


def boxes(
    graph: Graph,
    region: Region,
    *,
    projections: int | None = None,
    generator: torch.Generator | None = None,
    memory: int = crown.DEFAULT_MEMORY,
) -> list[Box]:
    """A box for each node of a frozen graph, [B, *node]; those of nodes that no relaxation reads are interval images.

    Args:
        graph: a frozen graph.
        region: the inputs, for B samples.
        projections: how many random sums estimate a radius; the boxes are then NOT sound. None computes them exactly.
        generator: of the random sums, which are the same for all samples of the batch.
        memory: as in `crown.boxes`, for exact boxes.

    Raises:
        ValueError: projections is below 1, or the region is neither a box nor an l2 ball without a data range.
    """
    if projections is None:
        return crown.boxes(graph, region, slope=parallel, pure=True, memory=memory)
    return _estimated_boxes(graph, region, projections, generator)


def lower_bounds(
    graph: Graph,
    region: Region,
    spec: Tensor,
    *,
    inner: list[Box] | None = None,
    projections: int | None = None,
    generator: torch.Generator | None = None,
    memory: int = crown.DEFAULT_MEMORY,
) -> Tensor:
    """Lower bounds J of S linear forms of the output over the region; with `projections`, estimates of J.

    Args:
        graph: a frozen graph.
        region: the inputs, for B samples.
        spec: the forms, [B, S, *output].
        inner: boxes of all nodes; None computes those of `boxes`.
        projections: as in `boxes`; the bounds are then NOT sound.
        generator: as in `boxes`.
        memory: as in `boxes`.

    Returns:
        The bounds, [B, S].

    Raises:
        ValueError: as in `boxes`.
    """
    if inner is None:
        inner = boxes(graph, region, projections=projections, generator=generator, memory=memory)
    return crown.lower_bounds(graph, region, spec, inner=inner, slope=parallel)


@dataclass(frozen=True, eq=False)
class Sketch:
    """Random sums of a zonotope's generators: with Cauchy factors, and with Gaussian ones for those of an l2 ball."""

    center: Tensor  # [B, *node]
    sums: Tensor  # [B, r, *node], then r more if there is a ball
    projections: int  # r

    @property
    def box(self) -> Box:
        """The center, and an estimate of the radius."""
        free, ball = self.sums[:, : self.projections], self.sums[:, self.projections :]
        return Box.around(self.center, _median(free.abs()) + ball.norm(dim=1) / math.sqrt(self.projections))

    def within(self, band: Band, generator: torch.Generator | None) -> Sketch:
        """The values of a relaxed op, with a new error term for each neuron."""
        sums = band.linear(self.sums)
        noise = torch.zeros_like(sums[:1])
        noise[:, : self.projections].cauchy_(generator=generator)
        center = band.linear(self.center.unsqueeze(1)).squeeze(1) + band.middle
        return Sketch(center, sums + band.half.unsqueeze(1) * noise, self.projections)


def _median(x: Tensor) -> Tensor:
    """Over the rows of [B, r, *node]; for even r the mean of the two in the middle."""
    return (x.median(dim=1).values - (-x).median(dim=1).values) / 2


def _check_projections(projections: int) -> None:
    if projections < 1:
        raise ValueError(f"projections is {projections}: take at least one random sum, or None for exact bounds")


def _start(region: Region, projections: int, generator: torch.Generator | None) -> Sketch:
    """The sketch of a region."""
    _check_projections(projections)
    center = region.center if isinstance(region, Box | L2Ball) else region.hull.center
    noise = center.new_empty(1, projections, *center.shape[1:])
    if isinstance(region, Box):
        return Sketch(center, noise.cauchy_(generator=generator) * region.radius.unsqueeze(1), projections)
    if isinstance(region, L2Ball) and region.clip is None:
        sums = torch.cat([torch.zeros_like(noise), noise.normal_(generator=generator) * region.radius], dim=1)
        return Sketch(center, sums.expand(len(center), *sums.shape[1:]), projections)
    given = "an l2 ball that a data range cuts" if isinstance(region, L2Ball) else f"a {type(region).__name__}"
    raise ValueError(
        f"the region is {given}: random projections know boxes, and l2 balls with clip=None; give projections=None for "
        f"exact bounds"
    )


def _estimated_boxes(graph: Graph, region: Region, projections: int, generator: torch.Generator | None) -> list[Box]:
    sketches, found = [_start(region, projections, generator)], [region.hull]
    read = {i for node in graph.nodes if node.op.relaxed for i in node.inputs}
    for at, node in enumerate(graph.nodes[1:], 1):
        inputs = [sketches[i] for i in node.inputs]
        if node.op.relaxed:
            sketch = inputs[0].within(Band.around(node.op, found[node.inputs[0]]), generator)
        else:
            sketch = _image(node.op, *inputs)
        estimated = at in read and not backward.exact_by_intervals(graph, at, region)
        found.append(sketch.box if estimated else interval.forward(node, *(found[i] for i in node.inputs)))
        sketches.append(sketch)
    return found


@singledispatch
def _image(op: Op, *sketches: Sketch) -> Sketch:
    raise no_rule("COAP", op)


@_image.register
def _(op: Affine, z: Sketch) -> Sketch:
    return Sketch(op(z.center), by_row(op.linear, z.sums), z.projections)


@_image.register
def _(op: Add | Concat, *sketches: Sketch) -> Sketch:
    center, sums = op(*(z.center for z in sketches)), by_row(op, *(z.sums for z in sketches))
    return Sketch(center, sums, sketches[0].projections)

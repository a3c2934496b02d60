"""Interval bound propagation (IBP): Gowal et al. 2018, "On the effectiveness of interval bound propagation".

A box [c - r, c + r] goes through the network node by node:

    affine        c' = W c + b,  r' = |W| r
    elementwise   [min f, max f] on [l, u]
    output        the last affine layer is merged with the specification first, which is exact for that layer
    l2 ball       while layers only scale coordinates, an ellipsoid along the axes; after the first affine layer that
                  mixes them, r_j <= eps sqrt(sum_i W_ji^2 s_i^2), with s_i the scale of coordinate i so far

    boxes = interval.boxes(graph, region)
    margins = interval.lower_bounds(graph, region, spec, inner=boxes)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import ClassVar

import torch
from torch import Tensor

from ctbench import memory_budget, waiting
from ctbench.domains import rounding
from ctbench.domains.base import Domain
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.rounding import Losses
from ctbench.domains.unsupported import no_rule
from ctbench.graph import Affine, Elementwise, Graph, Node, Op, walk_forward
from ctbench.graph.ops import (
    Add,
    AlongAxis,
    Concat,
    Conv2d,
    Linear,
    Max,
    Product,
    Refined,
    Reshape,
    Scale,
    Select,
    Shift,
)
from ctbench.regions import Box, L2Ball, Region

# the last layer is merged once per distinct set of forms if at least this many samples share a set on average, and if
# the merged forms of all samples have at least this many coefficients
MIN_SHARED, MIN_MERGED = 4, 2**19

VANISHED = 2.0**-1020  # more than the square of a number, and a product with it, lose by underflow


@dataclass(frozen=True, kw_only=True)
class Interval(Domain):
    """Interval bound propagation (IBP): boxes, node by node (Gowal et al. 2018)."""

    name: ClassVar[str] = "interval"

    def footprint(self, graph: Graph, forms: int) -> int:
        """For each node, the four tensors of a box; and the forms, before and after the last layer."""
        merged = graph.nodes[_last_layer(graph)[1]]
        return 4 * sum(math.prod(node.shape) for node in graph.nodes) + 2 * forms * math.prod(merged.shape)

    def boxes(self, graph: Graph, region: Region, *, memory: int = memory_budget.DEFAULT) -> list[Box]:
        return bounded(graph, region)[0]

    def lower_bounds(
        self,
        graph: Graph,
        region: Region,
        spec: Tensor,
        *,
        inner: list[Box] | None = None,
        memory: int = memory_budget.DEFAULT,
    ) -> Tensor:
        if inner is None:
            inner, losses = bounded(graph, region)
        else:
            losses = rounding.losses(graph, region, inner)
        at = _last_layer(graph)[1]
        return _merged(graph, spec, region if at == 0 else inner[at], losses)


footprint, boxes, lower_bounds = Interval().footprint, Interval().boxes, Interval().lower_bounds


def bounded(graph: Graph, region: Region) -> tuple[list[Box], Losses | None]:
    """The boxes of all nodes, [B, *node], and their rounding losses if the graph is outward."""
    if not graph.outward and not isinstance(region, L2Ball):
        return walk_forward(graph, forward, region.hull), None
    start = _Reached.of(region) if isinstance(region, L2Ball) else _Reached(region.hull)
    if not graph.outward:
        return [reached.box for reached in walk_forward(graph, _forward_from_ball, start)], None
    sets, boxes, losses = list[_Reached](), list[Box](), list[rounding.Loss]()
    for at, node in enumerate(graph.nodes):
        reached = _forward_from_ball(node, *(sets[i] for i in node.inputs)) if at else start
        losses.append(rounding.loss(graph, at, reached.box, boxes, losses, region))
        sets.append(reached.widened(losses[at]))
        boxes.append(sets[at].box)
    return boxes, losses


def at_points(graph: Graph, points: Box, spec: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of the forms spec [B, S, *output] at single points, or in tiny boxes around them, [B, S].

    Bounds of an outward graph hold in exact arithmetic.
    """
    boxes, losses = list[Box](), list[rounding.Loss]()
    for at, node in enumerate(graph.nodes):
        box = forward(node, *(boxes[i] for i in node.inputs)) if at else points
        losses.append(rounding.loss(graph, at, box, boxes, losses, points))
        boxes.append(rounding.widened(box, losses[at]) if at else box)
    at = _last_layer(graph)[1]
    both = _merged(graph, torch.cat([spec, -spec], dim=1), boxes[at], losses)
    return both[:, : spec.shape[1]], -both[:, spec.shape[1] :]


@dataclass(frozen=True, eq=False)
class _Ellipsoid:
    """All center + m with sum_i (m_i / scales_i)^2 <= radius^2, and m_i = 0 where scales_i is 0."""

    center: Tensor  # [B, *node]
    scales: Tensor  # [1, *node]
    radius: float
    error: Tensor | float = 0.0  # [B, *node]: a bound of the rounding error of the center

    def through(self, op: Affine) -> _Ellipsoid:
        """The image under an op that mixes no coordinates; otherwise an ellipsoid as wide as the image in each one."""
        center, error = op(self.center), self.error
        error = op.magnitude(error) if isinstance(error, Tensor) else error
        if not op.mixes:
            return replace(self, center=center, scales=op.magnitude(self.scales), error=error)
        greatest = self.scales.amax().clamp(min=torch.finfo(center.dtype).tiny)
        squares = op.map(torch.square).linear((self.scales / greatest).square())
        squares = squares.clamp(min=torch.finfo(squares.dtype).tiny)  # the slope of a root of 0 is infinite
        if center.dtype == torch.float64:
            squares = squares + VANISHED * self.scales.numel()
        return replace(self, center=center, scales=greatest * squares.sqrt(), error=error)

    @property
    def box(self) -> Box:
        """The smallest box around it."""
        return Box.around(self.center, (self.radius * self.scales).expand_as(self.center) + self.error)


@dataclass(frozen=True, eq=False)
class _Reached:
    """A set around the values of a node: a box, and until an op mixes coordinates, also an ellipsoid."""

    box: Box
    ellipsoid: _Ellipsoid | None = None

    @classmethod
    def of(cls, ball: L2Ball) -> _Reached:
        return cls(ball.hull, _Ellipsoid(ball.center, torch.ones_like(ball.center[:1]), ball.radius))

    def widened(self, loss: rounding.Loss) -> _Reached:
        """The set, larger by its rounding errors."""
        ellipsoid = self.ellipsoid and replace(self.ellipsoid, error=self.ellipsoid.error + loss.below)
        return _Reached(rounding.widened(self.box, loss), ellipsoid)


def _forward_from_ball(node: Node, *inputs: _Reached) -> _Reached:
    """The set of a node if the region is an l2 ball: with an ellipsoid until the first op that mixes coordinates."""
    op, box, before = node.op, forward(node, *(reached.box for reached in inputs)), inputs[0].ellipsoid
    if before is None or not isinstance(op, Linear | Conv2d | Scale | Shift | Reshape):
        return _Reached(box)
    image = before.through(op)
    return _Reached(box.intersect(image.box)) if op.mixes else _Reached(box, image)


def _merged(graph: Graph, spec: Tensor, region: Region, losses: Losses | None) -> Tensor:
    """Lower bounds [B, S] of forms of the output, from the region of the values that the last affine layer reads."""
    size = spec.shape[0] * spec.shape[1] * math.prod(graph.nodes[_last_layer(graph)[1]].shape)
    if isinstance(region, Box) and not spec.requires_grad and size >= MIN_MERGED and waiting.is_free(spec):
        kinds, which, counts = spec.unique(dim=0, return_inverse=True, return_counts=True)
        if len(kinds) <= len(spec) / MIN_SHARED:
            return _kind_by_kind(graph, kinds, which, counts.tolist(), region, losses)
    form, at = merge_last_layer(graph, LinearForm(spec, 0.0), losses)
    return rounding.ended(form, at, losses).minimum(region)


def _kind_by_kind(
    graph: Graph, kinds: Tensor, which: Tensor, counts: list[int], box: Box, losses: Losses | None
) -> Tensor:
    """`_merged` if many samples share their forms, e.g. those of a class: each distinct set is merged once."""
    order, bounds = which.argsort(), list[Tensor]()
    for forms, samples in zip(kinds, order.split(counts), strict=True):
        lost = None if losses is None else [loss.take(samples) for loss in losses]
        form, at = merge_last_layer(graph, LinearForm(forms.unsqueeze(0), 0.0), lost)
        bounds.append(rounding.ended(form, at, lost).minimum(Box.around(box.center[samples], box.radius[samples])))
    return torch.cat(bounds)[order.argsort()]


def merge_last_layer(graph: Graph, form: Form, losses: Losses | None) -> tuple[Form, int]:
    """The form of the output, carried back through the last affine layer, and the position of the node it reached."""
    at = len(graph.nodes) - 1
    form = rounding.begun(form, at, losses)
    for op in _last_layer(graph)[0]:
        form = rounding.through(form, at, losses).through(op)
        (at,) = graph.nodes[at].inputs
    return form, at


def _last_layer(graph: Graph) -> tuple[list[Affine], int]:
    """The ops from the output back to the last affine layer (reshapes, then the layer), and the node before them."""
    ops, at = list[Affine](), len(graph.nodes) - 1
    while isinstance(op := graph.nodes[at].op, Affine):
        ops.append(op)
        (at,) = graph.nodes[at].inputs
        if not isinstance(op, Reshape):
            break
    return ops, at


def forward(node: Node, *inputs: Box) -> Box:
    """The box of a node, from the boxes of its inputs."""
    return _image(node.op, *inputs)


def moved(op: Op, box: Box) -> Box:
    """The box of a node that only moves entries. Ends that are known are copied: those of a centre may be rounded."""
    assert isinstance(op, Affine), "moves are affine"
    if "lower" in vars(box):
        return Box(op(box.lower), op(box.upper))
    return Box.around(op(box.center), op.magnitude(box.radius))


@singledispatch
def _image(op: Op, *inputs: Box) -> Box:
    raise no_rule("interval", op)


@_image.register
def _(op: Affine, box: Box) -> Box:
    return Box.around(op(box.center), op.magnitude(box.radius))


@_image.register
def _(op: AlongAxis, box: Box) -> Box:
    """A centre would lose the small end of a large exponential, of which softmaxes take sums."""
    return Box(op(box.lower), op(box.upper)) if op.rises else Box.around(op(box.center), op.magnitude(box.radius))


@_image.register
def _(op: Reshape | Select, box: Box) -> Box:
    return moved(op, box)


@_image.register
def _(op: Elementwise, box: Box) -> Box:
    return Box(*op.image(box.lower, box.upper))


@_image.register
def _(op: Product, first: Box, second: Box) -> Box:
    return Box(*op.image((first.lower, first.upper), (second.lower, second.upper)))


@_image.register
def _(op: Refined, box: Box, *others: Box) -> Box:
    return box.intersect(Box(*op.around(*((other.lower, other.upper) for other in others))))


@_image.register
def _(op: Add, first: Box, second: Box) -> Box:
    return Box(first.lower + second.lower, first.upper + second.upper)


@_image.register
def _(op: Concat | Max, *boxes: Box) -> Box:
    return Box(op(*(box.lower for box in boxes)), op(*(box.upper for box in boxes)))

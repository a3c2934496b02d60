"""Interval bound propagation (IBP): Gowal et al. 2018, "On the effectiveness of interval bound propagation".

A box [c - r, c + r] goes through the network node by node:

    affine        c' = W c + b,  r' = |W| r
    elementwise   [min f, max f] on [l, u]
    output        the last affine layer is merged with the specification first, which is exact for that layer

    boxes = interval.boxes(graph, region)
    margins = interval.lower_bounds(graph, region, spec, inner=boxes)
"""

from __future__ import annotations

import math
from functools import singledispatch

import torch
from torch import Tensor

from ctbench.domains.linear_form import LinearForm
from ctbench.domains.unsupported import no_rule
from ctbench.graph import Affine, Elementwise, Graph, Node, Op, walk_forward
from ctbench.graph.ops import Add, Concat, Max, Reshape
from ctbench.regions import Box, Region

ALIKE = 4  # from so many samples with the same forms on, on average, these are merged once,
LARGE = 2**19  # if the merged forms of all samples would have so many coefficients


def footprint(graph: Graph, forms: int) -> int:
    """How many numbers are held at once for a sample: both pairs that a box is made of, at each node, and forms."""
    merged = graph.nodes[_last_layer(graph)[1]]
    return 4 * sum(math.prod(node.shape) for node in graph.nodes) + 2 * forms * math.prod(merged.shape)


def boxes(graph: Graph, region: Region) -> list[Box]:
    """A box for each node of a frozen graph, [B, *node]."""
    return walk_forward(graph, forward, region.hull)


def lower_bounds(graph: Graph, region: Region, spec: Tensor, *, inner: list[Box] | None = None) -> Tensor:
    """Lower bounds of S linear forms of the output over the region.

    Args:
        graph: a frozen graph.
        region: the inputs, for B samples.
        spec: the forms, [B, S, *output].
        inner: the boxes of all nodes, where they are at hand.

    Returns:
        The bounds, [B, S].
    """
    inner = boxes(graph, region) if inner is None else inner
    at = _last_layer(graph)[1]
    return _merged(graph, spec, region if at == 0 else inner[at])


def _merged(graph: Graph, spec: Tensor, region: Region) -> Tensor:
    """Lower bounds [B, S] of forms of the output, from what the last affine layer is given."""
    size = spec.shape[0] * spec.shape[1] * math.prod(graph.nodes[_last_layer(graph)[1]].shape)
    if isinstance(region, Box) and not spec.requires_grad and size >= LARGE:
        kinds, which, counts = spec.unique(dim=0, return_inverse=True, return_counts=True)
        if len(kinds) <= len(spec) / ALIKE:
            return _kind_by_kind(graph, kinds, which, counts.tolist(), region)
    return merge_last_layer(graph, LinearForm(spec, 0.0))[0].minimum(region)


def _kind_by_kind(graph: Graph, kinds: Tensor, which: Tensor, counts: list[int], box: Box) -> Tensor:
    """The same where many samples have the same forms, as those of a class: merged once, and not for each."""
    order = which.argsort()
    centers, radii = box.center[order].split(counts), box.radius[order].split(counts)
    bounds = [
        merge_last_layer(graph, LinearForm(forms.unsqueeze(0), 0.0))[0].minimum(Box.around(center, radius))
        for forms, center, radius in zip(kinds, centers, radii, strict=True)
    ]
    return torch.cat(bounds)[order.argsort()]


def merge_last_layer(graph: Graph, form: LinearForm) -> tuple[LinearForm, int]:
    """Carry a form of the output back through the last affine layer; also says to which node."""
    ops, at = _last_layer(graph)
    for op in ops:
        form = form.through(op)
    return form, at


def _last_layer(graph: Graph) -> tuple[list[Affine], int]:
    """The last affine layer and what reshapes follow it, from the output on; and the node before."""
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


@singledispatch
def _image(op: Op, *inputs: Box) -> Box:
    raise no_rule("interval", op)


@_image.register
def _(op: Affine, box: Box) -> Box:
    return Box.around(op(box.center), op.magnitude(box.radius))


@_image.register
def _(op: Elementwise, box: Box) -> Box:
    return Box(*op.image(box.lower, box.upper))


@_image.register
def _(op: Add, first: Box, second: Box) -> Box:
    return Box(first.lower + second.lower, first.upper + second.upper)


@_image.register
def _(op: Concat | Max, *boxes: Box) -> Box:
    return Box(op(*(box.lower for box in boxes)), op(*(box.upper for box in boxes)))

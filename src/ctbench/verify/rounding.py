"""What rounding in double precision can add to a bound.

Each node of a network adds an error of UNIT times the largest sum of |terms| that its values can be made of, and hands
on those of its inputs. Errors of different entries have nothing to do with each other, so their squares add up:

    affine        e'^2 = (W^2) e^2 + (UNIT (|W| |x| + |b|))^2
    elementwise   e' = max |f'| e
    sum           e' = e_1 + e_2

UNIT is some hundreds of units in the last place, which leaves room for what is more than independent, and for the sums
of a backward pass, which are made of the same terms. A bound that exceeds this is positive as far as one can tell
without interval arithmetic, which would cost the speed of torch.
"""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from ctbench.domains import interval
from ctbench.graph import Affine, Elementwise, Graph, Op
from ctbench.graph.ops import Add, Concat, Max
from ctbench.regions import Box, Region

UNIT = 1e-13


def rounding(graph: Graph, region: Region, spec: Tensor) -> Tensor:
    """The error of the margins, spec [B, S, K] times the output, anywhere on a region: [B]."""
    boxes = interval.boxes(graph, region)
    errors = [UNIT * _reach(boxes[0])]
    for node in graph.nodes[1:]:
        inputs = [(boxes[i], errors[i]) for i in node.inputs]
        errors.append(_error(node.op, *inputs))
    last = errors[-1].flatten(1).unsqueeze(-1)
    margins = (spec.square() @ last.square()).sqrt().amax((1, 2))
    largest = torch.stack([_reach(box).flatten(1).amax(1) for box in boxes]).amax(0)
    return margins + UNIT * (1 + largest)


def _reach(box: Box) -> Tensor:
    """The greatest |value| in a box, coordinate by coordinate."""
    return torch.maximum(box.lower.abs(), box.upper.abs())


@singledispatch
def _error(op: Op, *inputs: tuple[Box, Tensor]) -> Tensor:
    raise TypeError(f"there is no rounding error for {type(op).__name__}")


@_error.register
def _(op: Affine, *inputs: tuple[Box, Tensor]) -> Tensor:
    ((box, error),) = inputs
    reach = _reach(box)
    terms = op.magnitude(reach) + op(torch.zeros_like(reach[:1])).abs()
    squared = op.map(lambda tensor: tensor.square() if tensor.is_floating_point() else tensor)
    assert isinstance(squared, Affine)
    return (squared.magnitude(error.square()) + (UNIT * terms).square()).sqrt()


@_error.register
def _(op: Elementwise, *inputs: tuple[Box, Tensor]) -> Tensor:
    ((box, error),) = inputs
    least, greatest = op.slopes(box.lower, box.upper)
    return torch.maximum(least.abs(), greatest.abs()) * error


@_error.register
def _(op: Add, *inputs: tuple[Box, Tensor]) -> Tensor:
    return sum((error for _, error in inputs[1:]), inputs[0][1])


@_error.register
def _(op: Concat, *inputs: tuple[Box, Tensor]) -> Tensor:
    return op(*(error for _, error in inputs))


@_error.register
def _(op: Max, *inputs: tuple[Box, Tensor]) -> Tensor:
    return op(*(error for _, error in inputs))

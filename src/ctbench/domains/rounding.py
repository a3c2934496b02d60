"""Rounding errors of bounds in double precision, and bounds that are rounded outward by more than these errors.

The network is a function of real numbers: its stored weights, and exact sums and products. torch computes sums in any
order, blocked, vectorised and with fused products. In every order, a sum of n products satisfies (Higham 2002,
"Accuracy and stability of numerical algorithms", section 3.1), with u = 2^-53 the unit roundoff,

    |computed - exact|  <=  gamma_n sum |terms|,      gamma_n = n u / (1 - n u)

Errors may all have one sign, so the errors are added, not their squares. Every node y of a graph has a loss, a bound of
its rounding errors, with |x| from boxes of the inputs of the node over the whole region:

    below,    the errors of the ends of its interval:  affine   gamma_n (|W| |x| + |b|)
    above                                              f(x)     a few u |f|, and the error of libm, at each end
    step      the error of one step backward of a linear form <a, y> + c, for each unit of |a|. The computed
              coefficients are taken as they are; the error is their difference from W^T a (or from the lines):
                  |<fl(W^T a) - W^T a, x>|  <=  gamma_m <|a|, |W| |x|>,      the sum for the offset <a, b> likewise
    minimum   the error of the minimum of a form over a box of y, for each unit of |a|: gamma_n |y|

So a form loses <|a|, step> at each node on its way, a few u of its constant, and <|a|, minimum> at its end. In
y = W_2 relu(z), z = W_1 x + b, a form of y loses at y for W_2, at relu(z) for the lines and for W_1, and at x for the
minimum. The loss of an affine node that only one relaxed op f reads is part of the loss of f, because the coefficients
of z are at most max |f'| times those of f(z). A form that starts at z itself has its own loss for W_1 (`start`).

The underflow in a step of a form is less than `floor`, and boxes are widened by a similar amount. If sums may have
overflowed, the loss is NaN, which proves nothing. `outward` graphs are bounded with these losses. Bounds of other
graphs have ordinary rounding errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from ctbench.domains.linear_form import Form
from ctbench.graph import Affine, Elementwise, Graph, Node, Op
from ctbench.graph.ops import (
    Add,
    AlongAxis,
    AvgPool2d,
    Clamp,
    ClampEach,
    Concat,
    Convolution,
    ConvTranspose,
    Known,
    Linear,
    Max,
    Mean,
    Product,
    Refined,
    ReLU,
    Reshape,
    Scale,
    Select,
    Shape,
    Shift,
)
from ctbench.regions import Box, Polytope, Region
from ctbench.regions.base import inner

UNIT = 1.01 * 2.0**-53  # the unit roundoff, and 1 / (1 - n u) for sums of up to 10^13 terms
MORE = 16  # the number of roundings of a step besides those of its longest sum
FLOOR = 1e-290  # more than the underflows of a step, for values of about 1
VANISHED = 2.0**-1021  # more than a product loses if it underflows, or is flushed to 0
MOST = 1e270  # the largest error: if it is exceeded, sums may have overflowed


@dataclass(frozen=True, eq=False)
class Loss:
    """A bound of the rounding errors at one node, for each of B samples."""

    # [B, *node]: how far the computed lower and upper ends of its interval may lie inside the exact interval
    below: Tensor
    above: Tensor
    # [B, *node]: the loss of a form in its step through the node, for each unit of |coefficient|; None if it is part of
    # the loss of the op that reads the node
    step: Tensor | None
    start: Tensor  # [B, *node]: likewise for a form that starts at the node
    minimum: Tensor  # [B, *node]: the loss of the minimum over the box of the node, for each unit of |coefficient|
    floor: Tensor  # [B, 1]: the loss by underflow

    def take(self, samples: Tensor) -> Loss:
        step = None if self.step is None else self.step[samples]
        below, above = self.below[samples], self.above[samples]
        return Loss(below, above, step, self.start[samples], self.minimum[samples], self.floor[samples])

    @classmethod
    def joined(cls, parts: Sequence[Loss]) -> Loss:
        """The losses of the samples of several batches."""
        steps = [part.step for part in parts if part.step is not None]
        below, above, start, minimum, floor = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("below", "above", "start", "minimum", "floor")
        )
        return cls(below, above, torch.cat(steps) if steps else None, start, minimum, floor)


Losses = Sequence[Loss]  # by the position of the node; None for a graph that is not outward


def losses(graph: Graph, region: Region, boxes: Sequence[Box]) -> list[Loss] | None:
    """The losses of all nodes, from sound boxes of all nodes; None if the graph is not outward."""
    if not graph.outward:
        return None
    result = list[Loss]()
    for at in range(len(graph.nodes)):
        result.append(loss(graph, at, boxes[at], boxes, result, region))
    return result


@torch.no_grad()
def loss(graph: Graph, at: int, own: Box, boxes: Sequence[Box], before: Losses, region: Region) -> Loss:
    """The loss of a node, from its own box and from the boxes and losses of the nodes before it."""
    node = graph.nodes[at]
    reach, size = greatest(own), math.prod(node.shape)
    minimum = UNIT * (size + MORE) * reach
    if not at:
        # the minimum over a region that is not a box takes a few sums over the input
        sums = 1 if isinstance(region, Box) else 4
        minimum = sums * minimum + 4 * UNIT * MORE * reach
        # the ends are rounded inward, and their centre and radius are rounded again; 0 times NaN is NaN
        ends = _in_range(8 * UNIT * reach + VANISHED)
        if isinstance(region, Box | Polytope):  # a single number is its own centre; of a ball it may be the hull
            ends = ends * (own.lower != own.upper)
        return Loss(ends, ends, None, minimum, minimum, _floor(reach))
    inputs = [greatest(boxes[i]) for i in node.inputs]
    floor = _floor(*inputs, reach)
    if isinstance(node.op, Elementwise):
        return _relaxed(graph, at, boxes, before, minimum, floor)
    box = _value(node.op, node.shape, *inputs)
    if isinstance(node.op, Max):
        # planes: sums over the entries, offsets from their ends, and the sum over the coefficients of the forms
        entries = inputs[0].shape[1]
        step = UNIT * (size + 2 * entries + 4 * MORE) * 3 * (inputs[0].sum(1) + reach)
        return Loss(box, box, step, step, minimum, floor)
    if isinstance(node.op, Product):
        # planes p x + q y + t with |p| <= |y| and |q| <= |x|: two terms of at most |x| |y|, and |t| <= 3 |x| |y|
        step = UNIT * (size + 4 * MORE) * 8 * inputs[0] * inputs[1] + 2 * box
        return Loss(box, box, step, step, minimum, floor)
    start = box + UNIT * MORE * reach
    if isinstance(node.op, Reshape | Select):  # the ends are copied
        box = torch.zeros_like(box)
    return Loss(box, box, None if _is_charged_later(graph, at) else start, start, minimum, floor)


def _relaxed(graph: Graph, at: int, boxes: Sequence[Box], before: Losses, minimum: Tensor, floor: Tensor) -> Loss:
    """The loss of an elementwise op, including that of the affine node before it if no other op reads that node."""
    op, (source,), size = graph.nodes[at].op, graph.nodes[at].inputs, math.prod(graph.nodes[at].shape)
    assert isinstance(op, Elementwise)
    read = boxes[source]
    reach, steepest = _image(op, read)
    error = UNIT * MORE * reach + op.error(read.lower, read.upper) + MORE * VANISHED
    step = _in_range(UNIT * (size + 4 * MORE) * (reach + steepest * greatest(read)) + 2 * error)
    if _is_charged_later(graph, source):
        step = step + steepest * before[source].start * (1 + 1e-9)
    return Loss(*_errors_of_ends(op, read), step, step, minimum, floor)


def _errors_of_ends(op: Elementwise, read: Box) -> tuple[Tensor, Tensor]:
    first, last = op.image(read.lower, read.upper)
    if isinstance(op, Known | Clamp | ClampEach | ReLU):  # ends that are cut off are not rounded
        return torch.zeros_like(first), torch.zeros_like(last)
    errors = op.image_errors(read.lower, read.upper)
    below, above = (
        _in_range(UNIT * MORE * end.abs() + error + MORE * VANISHED)
        for end, error in zip((first, last), errors, strict=True)
    )
    return below, above


def _image(op: Elementwise, read: Box) -> tuple[Tensor, Tensor]:
    """The greatest |f| and |f'| on a box, [B, *node] each."""
    first, last = op.image(read.lower, read.upper)
    least, most = op.slopes(read.lower, read.upper)
    return torch.maximum(first.abs(), last.abs()), torch.maximum(least.abs(), most.abs()) * (1 + 1e-9)


def _is_charged_later(graph: Graph, at: int) -> bool:
    """Whether only one elementwise op reads a node, so that the loss of the node is part of the loss of that op."""
    readers = [node for node in graph.nodes if at in node.inputs]
    return len(readers) == 1 and isinstance(readers[0].op, Elementwise) and at > 0 and at != len(graph.nodes) - 1


def widened(box: Box, loss: Loss) -> Box:
    """The box of a node, widened by its loss."""
    if "center" in vars(box) and loss.below is loss.above:
        return Box.around(box.center, box.radius + loss.below)
    return Box(box.lower - loss.below, box.upper + loss.above)


def through(form: Form, at: int, losses: Losses | None) -> Form:
    """The form over node `at`, lowered by the loss of its next step backward."""
    return form if losses is None or losses[at].step is None else _lowered(form, losses[at].step, losses[at].floor)


def begun(form: Form, at: int, losses: Losses | None) -> Form:
    """The form that begins at node `at`, lowered by the loss of the first step if no other node includes it."""
    if losses is None or at == 0 or losses[at].step is not None:
        return form
    return _lowered(form, losses[at].start, losses[at].floor)


def ended(form: Form, at: int, losses: Losses | None) -> Form:
    """The form over node `at`, lowered by the loss of its minimum over a box, or over the region."""
    return form if losses is None else _lowered(form, losses[at].minimum, losses[at].floor)


def _lowered(form: Form, each: Tensor | None, floor: Tensor) -> Form:
    assert each is not None
    return form.lowered(each, 8 * UNIT, floor)


def of_sum(terms: Tensor) -> Tensor:
    """A bound of the error of a sum of terms, [B, P] to [B, 1]."""
    return UNIT * (terms.shape[1] + MORE) * terms.abs().sum(1, keepdim=True)


def of_coefficients(size: Tensor, loss: Loss, terms: int) -> Tensor:
    """The loss of further coefficients of a form at a node, [B, 1]; `size` [B, *node] are the sums of their |terms|."""
    each = loss.start + loss.minimum * (terms + MORE)
    return (size * each).flatten(1).sum(1, keepdim=True) + loss.floor


def greatest(box: Box) -> Tensor:
    """The largest |value| in a box, coordinate by coordinate."""
    return torch.maximum(box.lower.abs(), box.upper.abs())


def of_op(node: Node, box: Box, sizes: list[Tensor], terms: int) -> Tensor:
    """A bound of the error of the image of zonotopes under an op.

    Args:
        node: the node of the op.
        box: a box of the first input.
        sizes: for each input, the sums of its |terms|, [B, *input].
        terms: the number of error terms of the image.
    """
    if isinstance(node.op, Product):  # its half-width is a product of sums, less a sum of products
        return _in_range(4 * UNIT * (terms + MORE) * sizes[0] * sizes[1] + (terms + MORE) * VANISHED)
    if isinstance(node.op, Max):
        return _in_range(4 * UNIT * MORE * (greatest(box) + sizes[0]).sum(1) + MORE * VANISHED)
    if isinstance(node.op, Elementwise):
        reach, steepest = _image(node.op, box)
        reach = reach + steepest * (greatest(box) + sizes[0])
        return _in_range(4 * UNIT * MORE * reach + 2 * node.op.error(box.lower, box.upper) + MORE * VANISHED)
    if isinstance(node.op, Refined):  # the same zonotope
        return torch.zeros_like(sizes[0])
    return _value(node.op, node.shape, *sizes)


def of_terms(size: Tensor, terms: int) -> Tensor:
    """A bound of the error of sums of `terms` terms; `size` are the sums of their |terms|."""
    return _in_range(UNIT * (terms + MORE) * size + (terms + MORE) * VANISHED)


def of_minimum(a: Tensor, size: Tensor, terms: int) -> Tensor:
    """A bound of the error of the minimum of forms [B, S, *node] over a zonotope of `terms` terms, [B, S]."""
    sums = size[0].numel() + terms + MORE
    return _in_range(UNIT * sums * inner(a.flatten(2).abs(), size.flatten(1)) + _floor(size))


def _floor(*reaches: Tensor) -> Tensor:
    return FLOOR * (1 + torch.cat([reach.flatten(1) for reach in reaches], dim=1).sum(1, keepdim=True))


def _value(op: Op, shape: Shape, *inputs: Tensor) -> Tensor:
    """A bound of the error of a node that is not elementwise, for inputs of at most these sizes, [B, *input]."""
    if isinstance(op, Add):
        return _in_range(4 * UNIT * (inputs[0] + inputs[1]) + VANISHED)
    if isinstance(op, Concat | Max):
        return _in_range(4 * UNIT * op(*inputs) + VANISHED)
    if isinstance(op, Product):
        return _in_range(UNIT * MORE * inputs[0] * inputs[1] + MORE * VANISHED)
    if isinstance(op, Refined):
        terms, sums = op.terms(*inputs[1:])
        return _in_range(UNIT * (terms + MORE) * sums + MORE * VANISHED * (1 + terms))
    if isinstance(op, Affine):
        return _affine(op, shape, inputs[0])
    raise TypeError(f"there is no rounding error for {type(op).__name__}: derive the op from Affine or Elementwise")


def _affine(op: Affine, shape: Shape, reach: Tensor) -> Tensor:
    terms, size = _terms(op, tuple(reach.shape[1:]), shape), math.prod(shape)
    error = UNIT * (terms + MORE) * op.magnitude(reach)
    shift = op(torch.zeros_like(reach[:1])).abs()
    error = error + UNIT * (size + MORE) * shift
    if isinstance(op, Scale) and op.bias_terms is not None:
        error = error + UNIT * MORE * op.bias_terms
    return _in_range(error + (terms + MORE) * VANISHED)


def _in_range(value: Tensor) -> Tensor:
    """The value, or NaN, which proves nothing, if sums may have overflowed."""
    return torch.where(value < MOST, value, torch.nan)


@singledispatch
def _terms(op: Affine, inputs: Shape, outputs: Shape) -> int:
    """The largest number of terms in the sums of an op, forward or backward."""
    return math.prod(inputs) + math.prod(outputs)


@_terms.register
def _(op: Linear, inputs: Shape, outputs: Shape) -> int:
    return max(op.weight.shape)


@_terms.register(Convolution)
@_terms.register(ConvTranspose)
def _(op: Convolution | ConvTranspose, inputs: Shape, outputs: Shape) -> int:
    return math.prod(op.weight.shape[2:]) * max(op.weight.shape[1], op.weight.shape[0] // op.groups)


@_terms.register
def _(op: AvgPool2d, inputs: Shape, outputs: Shape) -> int:
    return math.prod(op.kernel)


@_terms.register
def _(op: AlongAxis, inputs: Shape, outputs: Shape) -> int:
    return max(op.weight.shape)


@_terms.register
def _(op: Mean, inputs: Shape, outputs: Shape) -> int:
    return math.prod(inputs[dim] for dim in op.dims)


@_terms.register
def _(op: Select, inputs: Shape, outputs: Shape) -> int:
    return op.uses


@_terms.register(Scale)
@_terms.register(Shift)
@_terms.register(Reshape)
def _(op: Scale | Shift | Reshape, inputs: Shape, outputs: Shape) -> int:
    return 1

"""The value of a network at a point, in exact arithmetic.

Every double is a whole number times a power of two, and so are their sums and products. So a network of stored
weights, ReLUs and maxima has a value that whole numbers of any length hold: numbers 2^exponent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import singledispatch
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ctbench.graph import Graph, Op
from ctbench.graph.ops import (
    Abs,
    Add,
    AlongAxis,
    Clamp,
    Concat,
    Conv2d,
    Floor,
    Heaviside,
    LeakyReLU,
    Linear,
    Max,
    ReLU,
    Reshape,
    Scale,
    Select,
    Shift,
    Trunc,
)
from ctbench.onnx.gemm import RoundedLinear

MOST_PRODUCTS = 3_000_000  # products of a network that is evaluated: about a second
OVERHEAD = 5_000  # products that take as long as all other work for a point
BITS = 53  # of a double

Numbers = NDArray[np.object_]  # of Python's int


class NoExactValueError(ValueError):
    """The values of a network are not known exactly, or take too long."""


@dataclass(frozen=True, eq=False)
class Exact:
    """numbers 2^exponent."""

    numbers: Numbers
    exponent: int

    @classmethod
    def of(cls, values: Tensor) -> Exact:
        """Finite numbers in double precision, without rounding."""
        mantissas, exponents = np.frexp(np.atleast_1d(values.detach().cpu().double().numpy()))
        whole = (mantissas * 2.0**BITS).astype(np.int64)
        present = exponents[whole != 0]
        least = int(present.min()) if present.size else 0
        shifts = np.where(whole != 0, exponents - least, 0)
        numbers = np.array([int(n) << int(s) for n, s in zip(whole.flat, shifts.flat, strict=True)], dtype=object)
        return cls(numbers.reshape(tuple(values.shape)), least - BITS)

    @classmethod
    def number(cls, value: float) -> Exact:
        return cls.of(torch.tensor(value, dtype=torch.float64, device="cpu"))

    def at(self, exponent: int) -> Numbers:
        """The whole numbers for a smaller exponent, or the same one."""
        numbers: Numbers = self.numbers * (1 << (self.exponent - exponent))
        return numbers

    def __add__(self, other: Exact) -> Exact:
        exponent = min(self.exponent, other.exponent)
        return Exact(self.at(exponent) + other.at(exponent), exponent)

    def __mul__(self, other: Exact) -> Exact:
        return Exact(self.numbers * other.numbers, self.exponent + other.exponent)

    def clamped(self, low: Exact | None, high: Exact | None) -> Exact:
        exponent = min(each.exponent for each in (self, low, high) if each is not None)
        numbers = self.at(exponent)
        if low is not None:
            numbers = np.maximum(numbers, low.at(exponent))
        if high is not None:
            numbers = np.minimum(numbers, high.at(exponent))
        return Exact(numbers, exponent)

    def moved(self, change: Any) -> Exact:
        """The same with the numbers changed, e.g. moved to other places."""
        return Exact(change(self.numbers), self.exponent)

    def fractions(self) -> list[Fraction]:
        scale = Fraction(2) ** self.exponent
        return [Fraction(int(number)) * scale for number in self.numbers.flat]


def forms(graph: Graph, x: Tensor, spec: Tensor) -> list[Fraction]:
    """The forms spec [S, K] of the output of a frozen graph at a point [*shape], all without rounding.

    Raises:
        NoExactValueError: an op whose values are not rational or were rounded when the graph was made, or a network of
            more than `MOST_PRODUCTS` products.
    """
    products = count(graph)
    if products > MOST_PRODUCTS:
        raise NoExactValueError(f"the network takes {products} products, more than {MOST_PRODUCTS}")
    values = [Exact.of(x)]
    for node in graph.nodes[1:]:
        values.append(_evaluated(node.op, *(values[i] for i in node.inputs)))
    return _dot(Exact.of(spec), values[-1].moved(np.ravel)).fractions()


def count(graph: Graph) -> int:
    """The number of products in the value of a graph at a point."""
    return sum(_products(node.op, math.prod(node.shape)) for node in graph.nodes)


def affordable(graph: Graph) -> int:
    """The number of points that a graph can be evaluated at in a few seconds, about; at least one."""
    return 1 + 4 * MOST_PRODUCTS // (count(graph) + OVERHEAD)


def _products(op: Op, size: int) -> int:
    if isinstance(op, Linear | AlongAxis):
        return size * op.weight.shape[1]
    return size * op.weight[0].numel() if isinstance(op, Conv2d) else size


def _dot(weight: Exact, x: Exact) -> Exact:
    return Exact(np.dot(weight.numbers, x.numbers), weight.exponent + x.exponent)


@singledispatch
def _evaluated(op: Op, *inputs: Exact) -> Exact:
    raise NoExactValueError(f"values of {type(op).__name__} are not known exactly")


@_evaluated.register
def _(op: Linear, x: Exact) -> Exact:
    weight = Exact.of(op.weight.T)  # [in, out], so that the last dimension of x is summed over
    value = Exact(np.dot(x.numbers, weight.numbers), x.exponent + weight.exponent)
    return value if op.bias is None else value + Exact.of(op.bias)


@_evaluated.register
def _(op: RoundedLinear, x: Exact) -> Exact:
    raise NoExactValueError("the weights of a Gemm are rounded when the graph is made")


@_evaluated.register
def _(op: Conv2d, x: Exact) -> Exact:
    channels, height, width = op.input_shape
    # the entry that each place of each window reads, counted from 1; 0 for the padding
    entries = torch.arange(1, channels * height * width + 1, dtype=torch.float64, device="cpu")
    images = entries.view(1, *op.input_shape)
    windows = F.unfold(images, op.weight.shape[2:], op.dilation, op.padding, op.stride)[0].long()
    padded = np.append(np.ravel(x.numbers), 0)
    rows = padded[np.where(windows > 0, windows - 1, len(padded) - 1)]  # [channels kernel kernel, places]
    weight = Exact.of(op.weight.flatten(1))
    groups = zip(np.split(weight.numbers, op.groups), np.split(rows, op.groups), strict=True)
    numbers = np.concatenate([np.dot(*group) for group in groups]).reshape(op.shape(op.input_shape))
    value = Exact(numbers, weight.exponent + x.exponent)
    return value if op.bias is None else value + Exact.of(op.bias.view(-1, 1, 1))


@_evaluated.register
def _(op: Scale, x: Exact) -> Exact:
    if op.bias_terms is not None:
        raise NoExactValueError("the factors of a normalisation are rounded when the graph is made")
    return x * Exact.of(op.weight) + Exact.of(op.bias)


@_evaluated.register
def _(op: Shift, x: Exact) -> Exact:
    return x + Exact.of(op.bias)


@_evaluated.register
def _(op: Reshape, x: Exact) -> Exact:
    return x.moved(lambda numbers: numbers.reshape(op.output_shape))


@_evaluated.register
def _(op: Select, x: Exact) -> Exact:
    return x.moved(lambda numbers: np.append(np.ravel(numbers), 0)[op.index.cpu().numpy()])


@_evaluated.register
def _(op: ReLU, x: Exact) -> Exact:
    return x.moved(lambda numbers: np.maximum(numbers, 0))


@_evaluated.register
def _(op: Abs, x: Exact) -> Exact:
    return x.moved(np.abs)


@_evaluated.register
def _(op: Heaviside, x: Exact) -> Exact:
    return Exact(np.where(x.numbers >= 0, 1, 0).astype(object), 0)


@_evaluated.register
def _(op: Floor | Trunc, x: Exact) -> Exact:
    def whole(number: int) -> int:
        size = abs(number) if isinstance(op, Trunc) else number
        size = size >> -x.exponent if x.exponent < 0 else size << x.exponent
        return -size if isinstance(op, Trunc) and number < 0 else size

    values = np.array([whole(int(n)) for n in x.numbers.flat] or [0], dtype=np.object_)
    return Exact(values.reshape(tuple(x.numbers.shape)), 0)


@_evaluated.register
def _(op: AlongAxis, x: Exact) -> Exact:
    if not torch.equal(op.weight, op.weight.round()):
        raise NoExactValueError("the weights of a mean or an interpolation are rounded")
    weight = Exact.of(op.weight.T)
    moved = np.dot(np.moveaxis(x.numbers, op.dim, -1), weight.numbers)
    return Exact(np.moveaxis(moved, -1, op.dim), x.exponent + weight.exponent)


@_evaluated.register
def _(op: LeakyReLU, x: Exact) -> Exact:
    above, below = (x.moved(lambda numbers, end=end: end(numbers, 0)) for end in (np.maximum, np.minimum))
    return above + below * Exact.number(op.negative_slope)


@_evaluated.register
def _(op: Clamp, x: Exact) -> Exact:
    low, high = (Exact.number(end) if math.isfinite(end) else None for end in (op.low, op.high))
    return x.clamped(low, high)


@_evaluated.register
def _(op: Add, first: Exact, second: Exact) -> Exact:
    return first + second


@_evaluated.register
def _(op: Concat, *inputs: Exact) -> Exact:
    exponent = min(each.exponent for each in inputs)
    return Exact(np.concatenate([each.at(exponent) for each in inputs], axis=op.dim), exponent)


@_evaluated.register
def _(op: Max, x: Exact) -> Exact:
    return x.moved(lambda numbers: numbers.max(axis=0))

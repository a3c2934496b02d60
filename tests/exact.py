"""Networks in exact arithmetic: their values, and their least margin over a box, without any rounding.

A network is a chain of affine steps and kinks (z where z > 0, slope z elsewhere) on the rational numbers that its
stored weights are. The least margin over a box is found by cutting the box into simplices. A simplex in which a
pre-activation has both signs is cut where it is 0: a vertex above and one below give the point between them at which it
is 0. This point takes the place of the first in one half, and of the second in the other. Both halves have fewer pairs
of opposite vertices, so this ends. Then every neuron is linear on every simplex, so all values in between are linear,
and the margins are least at vertices. A box of n inputs begins as n! simplices: this is for few inputs.

A vertex has integer coordinates with one common denominator, so points and values are exact, and there are no fractions
to reduce. Only the factors of batch norms may be irrational, weight / sqrt(var + eps). They are taken to BITS bits, and
`doubt` says how far the margins may be off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import permutations
from operator import mul

from torch import Tensor, nn

BITS = 300  # of an irrational factor
MOST = 4  # inputs that may vary in a network with kinks

Row = list[Fraction]
Matrix = list[Row]


class Skip(nn.Module):
    """x + inner(x)."""

    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


@dataclass(frozen=True, eq=False)
class Affine:
    """W v + b; every entry of W may be off by a share of itself."""

    weight: Matrix
    bias: Row
    off: Fraction = Fraction(0)

    @cached_property
    def whole(self) -> tuple[list[tuple[int, ...]], tuple[int, ...], int]:
        """The weights and biases as integers, and their common denominator."""
        scale = math.lcm(*(value.denominator for row in [*self.weight, self.bias] for value in row))
        *rows, bias = (
            tuple(value.numerator * (scale // value.denominator) for value in row) for row in [*self.weight, self.bias]
        )
        return rows, bias, scale


@dataclass(frozen=True, eq=False)
class Kink:
    """z where z > 0, slope z elsewhere; with slope 1 a neuron is handed on as it is."""

    slopes: Row


@dataclass(frozen=True)
class Vertex:
    """A point of the input, and what a network has made of it; all times `scale`."""

    values: Sequence[int]
    inputs: Sequence[int]
    scale: int

    def affine(self, step: Affine) -> Vertex:
        rows, bias, scale = step.whole
        products = {row: sum(map(mul, row, self.values)) for row in dict.fromkeys(rows)}  # equal rows once
        values = [products[row] + b * self.scale for row, b in zip(rows, bias, strict=True)]
        return Vertex(values, [value * scale for value in self.inputs], self.scale * scale).reduced()

    def kinked(self, step: Kink) -> Vertex:
        scale = math.lcm(*(slope.denominator for slope in step.slopes))
        values = [
            value * scale if value > 0 else value * int(slope * scale)
            for value, slope in zip(self.values, step.slopes, strict=True)
        ]
        return Vertex(values, [value * scale for value in self.inputs], self.scale * scale)

    def reduced(self) -> Vertex:
        common = math.gcd(self.scale, *self.values, *self.inputs)
        return Vertex([v // common for v in self.values], [v // common for v in self.inputs], self.scale // common)

    def toward(self, other: Vertex, neuron: int) -> Vertex:
        """The point between two vertices at which a neuron is 0: it is positive here and negative there."""
        mine, its = -other.values[neuron], self.values[neuron]
        values = [mine * a + its * b for a, b in zip(self.values, other.values, strict=True)]
        inputs = [mine * a + its * b for a, b in zip(self.inputs, other.inputs, strict=True)]
        return Vertex(values, inputs, mine * self.scale + its * other.scale).reduced()


@dataclass(frozen=True, eq=False)
class Least:
    """The least margin over a box, where it is attained, and how far the value may be off."""

    margin: Fraction
    point: Row
    doubt: Fraction


@dataclass(frozen=True, eq=False)
class ExactNetwork:
    """A network as real arithmetic on its stored weights."""

    steps: tuple[Affine | Kink, ...]

    @classmethod
    def of(cls, model: nn.Module, inputs: int) -> ExactNetwork:
        """Of Linear, BatchNorm1d (at test time), ReLU, LeakyReLU, Flatten, and `Skip` and Sequential of them.

        Raises:
            TypeError: another layer.
        """
        return cls(tuple(_steps(model, inputs)))

    def __call__(self, point: Sequence[Fraction]) -> Row:
        """The outputs at a point."""
        (vertex,) = self._run([_vertex(point)])
        return [Fraction(value, vertex.scale) for value in vertex.values]

    def margin(self, point: Sequence[Fraction], label: int) -> Fraction:
        """The least of the margins z_y - z_k at a point."""
        outputs = self(point)
        return min(outputs[label] - other for k, other in enumerate(outputs) if k != label)

    def doubt(self, upper: Sequence[Fraction]) -> Fraction:
        """How far a margin may be off, where no |input| exceeds `upper`: 0 unless a factor is irrational."""
        reach, error = [abs(value) for value in upper], [Fraction(0)] * len(upper)
        if all(isinstance(step, Kink) or not step.off for step in self.steps):
            return Fraction(0)
        for step in self.steps:
            if isinstance(step, Kink):
                most = [max(Fraction(1), abs(slope)) for slope in step.slopes]
                reach, error = list(map(mul, most, reach)), list(map(mul, most, error))
            else:
                rows = [list(map(abs, row)) for row in step.weight]
                extremes = [sum(map(mul, row, reach), Fraction(0)) for row in rows]
                error = [
                    (1 + step.off) * sum(map(mul, row, error), Fraction(0)) + step.off * terms
                    for row, terms in zip(rows, extremes, strict=True)
                ]
                reach = [terms + abs(b) for terms, b in zip(extremes, step.bias, strict=True)]
        return 2 * max(error)

    def least(self, lower: Sequence[Fraction], upper: Sequence[Fraction], label: int) -> Least:
        """The least margin over a box.

        Raises:
            ValueError: more than MOST inputs vary, and there are kinks.
        """
        first = self.steps[0]
        assert isinstance(first, Affine), "a network begins with an affine layer"
        doubt = self.doubt([max(abs(a), abs(b)) for a, b in zip(lower, upper, strict=True)])
        if len(self.steps) == 1:
            corners = [
                [
                    a if mine >= its else b
                    for mine, its, a, b in zip(first.weight[label], row, lower, upper, strict=True)
                ]
                for k, row in enumerate(first.weight)
                if k != label
            ]
            return min((Least(self.margin(corner, label), corner, doubt) for corner in corners), key=lambda x: x.margin)
        free = [
            i for i, (a, b) in enumerate(zip(lower, upper, strict=True)) if a < b and any(r[i] for r in first.weight)
        ]
        if len(free) > MOST:
            raise ValueError(f"{len(free)} inputs vary: the exact least margin needs {MOST} or fewer")
        vertices, simplices = _triangulated(lower, upper, free)
        for step in self.steps:
            if isinstance(step, Affine):
                vertices = [vertex.affine(step) for vertex in vertices]
            else:
                for neuron in (i for i, slope in enumerate(step.slopes) if slope != 1):
                    simplices = _cut(vertices, simplices, neuron)
                vertices = [vertex.kinked(step) for vertex in vertices]
        used = [vertices[i] for i in sorted({i for simplex in simplices for i in simplex})]
        ranked = [(Fraction(v.values[label] - max(_others(v.values, label)), v.scale), v) for v in used]
        margin, vertex = min(ranked, key=lambda pair: pair[0])
        return Least(margin, [Fraction(value, vertex.scale) for value in vertex.inputs], doubt)

    def _run(self, vertices: list[Vertex]) -> list[Vertex]:
        for step in self.steps:
            vertices = [v.affine(step) if isinstance(step, Affine) else v.kinked(step) for v in vertices]
        return vertices


def rationals(values: Tensor) -> Row:
    """The numbers of a tensor, flattened."""
    return [Fraction(value) for value in values.detach().double().flatten().tolist()]


def ball(x: Sequence[Fraction], eps: float) -> tuple[Row, Row]:
    """The corners of {x' : |x' - x| <= eps, 0 <= x' <= 1}, not rounded."""
    radius = Fraction(eps)
    return [max(Fraction(0), value - radius) for value in x], [min(Fraction(1), value + radius) for value in x]


def _others(values: Sequence[int], label: int) -> Iterable[int]:
    return (value for k, value in enumerate(values) if k != label)


def _vertex(point: Sequence[Fraction]) -> Vertex:
    scale = math.lcm(*(value.denominator for value in point))
    whole = [int(value * scale) for value in point]
    return Vertex(whole, whole, scale)


def _triangulated(lower: Row, upper: Row, free: list[int]) -> tuple[list[Vertex], list[tuple[int, ...]]]:
    """A box as simplices: for each order of its free coordinates the corners on the way from `lower` to `upper`."""
    names: dict[frozenset[int], int] = {}
    vertices: list[Vertex] = []

    def corner(raised: frozenset[int]) -> int:
        if raised not in names:
            names[raised] = len(vertices)
            vertices.append(_vertex([upper[i] if i in raised else lower[i] for i in range(len(lower))]))
        return names[raised]

    simplices = [
        tuple(corner(frozenset(order[:count])) for count in range(len(order) + 1)) for order in permutations(free)
    ]
    return vertices, simplices


def _cut(vertices: list[Vertex], simplices: list[tuple[int, ...]], neuron: int) -> list[tuple[int, ...]]:
    """The simplices, cut where a neuron is 0; new vertices are appended to the others."""
    between: dict[tuple[int, int], int] = {}
    standing, done = list(simplices), []
    while standing:
        simplex = standing.pop()
        above = next((i for i in simplex if vertices[i].values[neuron] > 0), None)
        below = next((i for i in simplex if vertices[i].values[neuron] < 0), None)
        if above is None or below is None:
            done.append(simplex)
            continue
        if (above, below) not in between:
            between[above, below] = len(vertices)
            vertices.append(vertices[above].toward(vertices[below], neuron))
        middle = between[above, below]
        standing += [tuple(middle if i == end else i for i in simplex) for end in (above, below)]
    return done


def _steps(layer: nn.Module, inputs: int) -> list[Affine | Kink]:
    """The steps of a layer with this number of inputs."""
    match layer:
        case nn.Linear():
            return [Affine([rationals(row) for row in layer.weight], _or(layer.bias, 0, layer.out_features))]
        case nn.ReLU():
            return [Kink([Fraction(0)] * inputs)]
        case nn.LeakyReLU():
            return [Kink([Fraction(layer.negative_slope)] * inputs)]
        case nn.BatchNorm1d():
            return _batch_norm(layer)
        case nn.Flatten():
            return []
        case nn.Sequential():
            steps: list[Affine | Kink] = []
            for part in layer:
                added = _steps(part, inputs)
                steps = _merged([*steps, *added])
                inputs = next((len(step.bias) for step in reversed(added) if isinstance(step, Affine)), inputs)
            return steps
        case Skip():
            unit = _diagonal([Fraction(1)] * inputs)
            zero = [Fraction(0)] * inputs
            both = [
                Affine(unit + unit, zero + zero),
                *(_wider(step, inputs) for step in _steps(layer.inner, inputs)),
            ]
            return [*both, Affine([row + row for row in unit], zero)]
    raise TypeError(f"there is no exact {type(layer).__name__}")


def _merged(steps: list[Affine | Kink]) -> list[Affine | Kink]:
    """The same chain; it begins with an affine step."""
    if steps and isinstance(steps[0], Kink):
        count = len(steps[0].slopes)
        return [Affine(_diagonal([Fraction(1)] * count), [Fraction(0)] * count), *steps]
    return steps


def _batch_norm(layer: nn.BatchNorm1d) -> list[Affine | Kink]:
    """(x - mean) factor + bias, as two steps, so that an irrational factor is the only one that is off."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    count = layer.num_features
    variances = [value + Fraction(layer.eps) for value in rationals(layer.running_var)]
    roots = [_inverse_root(value) for value in variances]
    factors = [weight * root for weight, root in zip(_or(layer.weight, 1, count), roots, strict=True)]
    exact = all(root * root * value == 1 for root, value in zip(roots, variances, strict=True))
    center = Affine(_diagonal([Fraction(1)] * count), [-value for value in rationals(layer.running_mean)])
    off = Fraction(0) if exact else Fraction(1, 2 ** (BITS - 1))
    return [center, Affine(_diagonal(factors), _or(layer.bias, 0, count), off)]


def _inverse_root(value: Fraction) -> Fraction:
    """1 / sqrt(value), rounded down to BITS bits or more."""
    top, bottom = value.denominator, value.numerator
    shift = max(0, BITS + (bottom.bit_length() - top.bit_length()) // 2 + 1)
    return Fraction(math.isqrt((top << 2 * shift) // bottom), 1 << shift)


def _wider(step: Affine | Kink, count: int) -> Affine | Kink:
    """A step that also passes on `count` further values unchanged."""
    if isinstance(step, Kink):
        return Kink(step.slopes + [Fraction(1)] * count)
    zero, width = [Fraction(0)] * count, len(step.weight[0])
    rows = [row + zero for row in step.weight]
    rows += [[Fraction(0)] * width + row for row in _diagonal([Fraction(1)] * count)]
    return Affine(rows, step.bias + zero, step.off)


def _diagonal(values: Row) -> Matrix:
    return [[value if i == k else Fraction(0) for k in range(len(values))] for i, value in enumerate(values)]


def _or(values: Tensor | None, default: int, count: int) -> Row:
    return [Fraction(default)] * count if values is None else rationals(values)

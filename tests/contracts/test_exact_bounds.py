"""Bounds that certify, compared with 60 digits: numbers of any size, boxes of single points, ties, correlated operands.

Boxes lie at any scale from 1e-30 to 1e30. A bound of an outward graph must hold for every point; NaN proves nothing.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import pytest
import torch
import torch.nn.functional as F
from mpmath import mpf
from tests.contracts.ops import CURVES
from torch import Tensor, nn

from ctbench.domains import domain
from ctbench.graph import Graph, Node, freeze, trace
from ctbench.graph.ops import Input
from ctbench.regions import Box

DOMAINS: list[tuple[str, dict[str, Any]]] = [
    ("interval", {}),
    ("zonotope", {}),
    ("zonotope", {"pure": True}),
    ("crown", {}),
    ("crown", {"pure": True}),
    ("alpha-crown", {"steps": 1}),
]
DIGITS, COUNT = 60, 40

# ------------------------------------------------------------------------------------------------------ boxes


def size(draw: random.Random, scales: tuple[float, float]) -> float:
    return float(draw.choice((-1, 1)) * 10 ** draw.uniform(*scales))


def corner(draw: random.Random, scales: tuple[float, float]) -> tuple[float, float]:
    """The ends of an interval: a point, neighbouring numbers, a narrow or a wide one."""
    a = size(draw, scales)
    b = draw.choice(
        [a, math.nextafter(a, math.inf), a + abs(a) * 10 ** draw.uniform(-16, 0), size(draw, scales), 0.0, -a]
    )
    return min(a, b), max(a, b)


def boxes(inputs: int, seed: int) -> tuple[Tensor, Tensor]:
    """COUNT boxes, [COUNT, inputs]: of one scale or of several, a third of them with ties."""
    draw, rows = random.Random(seed), list[list[tuple[float, float]]]()
    for _ in range(COUNT):
        middle = draw.uniform(-30, 30) if draw.random() < 0.5 else draw.uniform(-2, 1)
        scales = (middle - 1, middle + 1) if draw.random() < 0.8 else (-30.0, 30.0)
        row = [corner(draw, scales) for _ in range(inputs)]
        rows.append([row[0]] * inputs if draw.random() < 0.3 else row)
    lower, upper = torch.tensor(rows, dtype=torch.float64).unbind(2)
    return lower, upper


def points(lower: list[float], upper: list[float], draw: random.Random) -> list[list[float]]:
    """Both corners, other corners, and points inside."""

    def some(share: Callable[[], float]) -> list[float]:
        return [min(max(a + share() * (b - a), a), b) for a, b in zip(lower, upper, strict=True)]

    others = [some(lambda: draw.choice((0.0, 1.0))) for _ in range(4)]
    return [lower, upper, *others, *(some(draw.random) for _ in range(4))]


def check(graph: Graph, exact: Callable[[list[Any]], list[Any]], lower: Tensor, upper: Tensor, seed: int) -> None:
    """No bound of a form lies above its value at a point, and some bounds are numbers."""
    outputs, draw = math.prod(graph.nodes[-1].shape), random.Random(seed)
    eye = torch.eye(outputs, dtype=torch.float64)
    spec = torch.cat([eye, -eye, torch.linspace(-1, 2, outputs, dtype=torch.float64).view(1, -1)])
    least = [[mpf("inf")] * len(spec) for _ in lower]
    with mpmath.workdps(DIGITS):
        for place, (low, high) in enumerate(zip(lower.tolist(), upper.tolist(), strict=True)):
            for point in points(low, high, draw):
                try:
                    values = exact([mpf(z) for z in point])
                except (ZeroDivisionError, ValueError):
                    continue  # a pole: there the bound must be NaN only if another point has a value
                if not all(isinstance(value, mpf) and mpmath.isfinite(value) for value in values):
                    continue
                forms = [sum(mpf(c) * v for c, v in zip(row, values, strict=True)) for row in spec.tolist()]
                least[place] = [min(pair) for pair in zip(least[place], forms, strict=True)]
        for name, options in DOMAINS:
            found = domain(name, **options).lower_bounds(
                graph.rounded_outward(), Box(lower, upper), spec.expand(len(lower), -1, -1)
            )
            assert found.isfinite().any(), (name, options)
            for row, wanted, box in zip(
                found.tolist(), least, zip(lower.tolist(), upper.tolist(), strict=True), strict=True
            ):
                for bound, value in zip(row, wanted, strict=True):
                    assert math.isnan(bound) or mpf(bound) <= value, (name, options, box, bound, mpmath.nstr(value, 20))


# --------------------------------------------------------------------------------------- functions of one variable

POSITIVE = {"log", "square root", "reciprocal root", "power 1.7", "reciprocal"}
BENT = {"negative reciprocal", "inverse square"}  # defined below 0


@pytest.mark.parametrize("name", sorted(set(CURVES) - {"mish", "gelu with tanh", "tan"}))
def test_functions_of_one_variable(name):
    curve = CURVES[name]
    lower, upper = boxes(1, seed=len(name))
    if name in POSITIVE:
        lower, upper = torch.minimum(lower.abs(), upper.abs()), torch.maximum(lower.abs(), upper.abs())
    elif name in BENT:
        lower, upper = -torch.maximum(lower.abs(), upper.abs()), -torch.minimum(lower.abs(), upper.abs())
    graph = Graph((Node("input", Input(), (), (1,)), Node("f", curve.op, (0,), (1,))))
    check(graph, lambda point: [curve.exact(point[0])], lower, upper, seed=1)


# ----------------------------------------------------------------------------------------- products, norms, softmax


def softmax(values: list[Any]) -> list[Any]:
    terms = [mpmath.exp(value - max(values)) for value in values]
    return [term / sum(terms) for term in terms]


def masked_softmax(values: list[Any], place: int) -> list[Any]:
    shares = softmax(values[:place] + values[place + 1 :])
    return [*shares[:place], mpf(0), *shares[place:]]


def normalised(values: list[Any], eps: float, *, center: bool = True) -> list[Any]:
    middle = sum(values) / len(values) if center else 0
    moved = [value - middle for value in values]
    return [value / mpmath.sqrt(sum(z * z for z in moved) / len(moved) + mpf(eps)) for value in moved]


def attention(values: list[Any]) -> list[Any]:
    rows = [values[2 * place : 2 * place + 2] for place in range(3)]
    shares = [softmax([sum(a * b for a, b in zip(row, key, strict=True)) for key in rows]) for row in rows]
    return [sum(p * row[entry] for p, row in zip(share, rows, strict=True)) for share in shares for entry in (0, 1)]


def unit(values: list[Any]) -> list[Any]:
    length = max(mpmath.sqrt(sum(value * value for value in values)), mpf(1e-12))
    return [value / length for value in values]


def deviation(values: list[Any]) -> list[Any]:
    middle = sum(values) / len(values)
    return [mpmath.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))]


def attended(x: Tensor) -> Tensor:
    rows = x.unflatten(1, (3, 2))
    return (torch.softmax(rows @ rows.transpose(1, 2), -1) @ rows).flatten(1)


@dataclass(frozen=True)
class Example:
    inputs: int
    forward: Callable[[Tensor], Tensor]
    exact: Callable[[list[Any]], list[Any]]


EXAMPLES = {
    "z z": Example(2, lambda x: x * x, lambda v: [z * z for z in v]),
    "z w": Example(2, lambda x: x[:, :1] * x[:, 1:], lambda v: [v[0] * v[1]]),
    "z - z": Example(2, lambda x: x - x, lambda v: [mpf(0) for _ in v]),
    "z / z": Example(2, lambda x: x / x, lambda v: [z / z for z in v]),
    "z / w": Example(2, lambda x: x[:, :1] / x[:, 1:], lambda v: [v[0] / v[1]]),
    "z (1 - z)": Example(2, lambda x: x * (1 - x), lambda v: [z * (1 - z) for z in v]),
    "cube and tanh": Example(2, lambda x: (x * x * x).tanh(), lambda v: [mpmath.tanh(z**3) for z in v]),
    "root of a square": Example(
        2, lambda x: (x * x + 1e-9).sqrt(), lambda v: [mpmath.sqrt(z * z + mpf(1e-9)) for z in v]
    ),
    "roots of absolute values": Example(
        2,
        lambda x: torch.cat([x.abs().sqrt(), (x.abs() + x.square()) ** 1.5], 1),
        lambda v: [mpmath.sqrt(abs(z)) for z in v] + [(abs(z) + z * z) ** mpf(1.5) for z in v],
    ),
    "threshold": Example(2, lambda x: F.threshold(x, 0.1, 0.7), lambda v: [z if z > mpf(0.1) else mpf(0.7) for z in v]),
    "masked softmax": Example(
        4, lambda x: (x + torch.tensor([0, 0, -math.inf, 0])).softmax(1), lambda v: masked_softmax(v, 2)
    ),
    "lerp": Example(
        2, lambda x: x.lerp(x.flip(1), 0.3), lambda v: [z + mpf(0.3) * (w - z) for z, w in zip(v, v[::-1], strict=True)]
    ),
    "steps and products": Example(2, lambda x: x.floor() * x, lambda v: [mpmath.floor(z) * z for z in v]),
    "large fan-in": Example(200, lambda x: x[:, :1] - x.sum(1, keepdim=True), lambda v: [v[0] - sum(v)]),
    "cumulative sums": Example(9, lambda x: x.cumsum(1), lambda v: [sum(v[: k + 1]) for k in range(len(v))]),
    "maximum": Example(2, lambda x: torch.maximum(x[:, :1], x[:, 1:]), lambda v: [max(v)]),
    "softmax": Example(4, lambda x: x.softmax(1), softmax),
    "layer norm": Example(5, lambda x: F.layer_norm(x, (5,)), lambda v: normalised(v, 1e-5)),
    "rms norm": Example(4, lambda x: F.rms_norm(x, (4,), eps=1e-6), lambda v: normalised(v, 1e-6, center=False)),
    "unit vectors": Example(3, lambda x: F.normalize(x, dim=1), unit),
    "deviation": Example(4, lambda x: x.std(1, keepdim=True), deviation),
    "attention": Example(6, attended, attention),
    "sigmoid of a logarithm": Example(
        2, lambda x: x.log().sigmoid(), lambda v: [z / (1 + z) if z > 0 else 1 / mpf(0) for z in v]
    ),
    "clamped reciprocal": Example(
        2, lambda x: (1 / x).clamp(-1, 1), lambda v: [min(max(1 / z, mpf(-1)), mpf(1)) for z in v]
    ),
}


class Forward(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("name", EXAMPLES)
def test_networks(name):
    example = EXAMPLES[name]
    lower, upper = boxes(example.inputs, seed=len(name))
    graph = freeze(trace(Forward(example.forward), (example.inputs,)), lower)[0].detach()
    check(graph, example.exact, lower, upper, seed=2)


def test_a_softmax_of_far_apart_values_is_not_rounded_to_more_than_it_is():
    """Terms of a softmax are cut off, which makes a share of exp(-1e4) larger: bounds allow for it."""
    x = torch.tensor([[0.0, 1e4, 50.0]], dtype=torch.float64)
    graph = freeze(trace(Forward(lambda x: x.softmax(1)), (3,)), x)[0].detach().rounded_outward()
    for name, options in DOMAINS:
        eye = torch.eye(3, dtype=torch.float64).unsqueeze(0)
        assert (domain(name, **options).lower_bounds(graph, Box(x, x), eye)[0, [0, 2]] <= 0).all(), name

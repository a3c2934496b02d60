"""No bound of an integer program is above the exact minimum, whatever the solver answers."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.piecewise import CLASSES, at_point, frozen, moving, network
from torch import Tensor, nn

from ctbench.domains import crown
from ctbench.regions import Box, Linf
from ctbench.results import StageFailedWarning, Verdict
from ctbench.verify import Milp, certify, worst_case
from ctbench.verify.highs import Solution, Solver
from ctbench.verify.integer_program import Program
from ctbench.verify.linear_program import LinearProgram
from ctbench.verify.worst_case import FalseBoundError

Layers = list[tuple[list[list[float]], list[float]]]  # weights and biases


def mlp(layers: Layers) -> nn.Sequential:
    """Linear layers with ReLUs between them, in double precision."""
    modules = list[nn.Module]()
    for weight, bias in layers:
        layer = nn.Linear(len(weight[0]), len(weight)).double()
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(weight, dtype=torch.float64))
            layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
        modules += [layer, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def in_rationals(layers: Layers, x: Fraction, depth: int) -> list[Fraction]:
    """The pre-activations of a layer at a point of the only input."""
    values = [x]
    for number, (weight, bias) in enumerate(layers[:depth]):
        values = [max(value, Fraction(0)) for value in values] if number else values
        rows = zip(weight, bias, strict=True)
        values = [sum((Fraction(w) * v for w, v in zip(row, values, strict=True)), Fraction(b)) for row, b in rows]
    return values


def least_in_rationals(layers: Layers, low: float, high: float) -> tuple[Fraction, Fraction]:
    """The least value of the only output over an interval, and the greatest one: those of its ends and kinks."""
    points = [Fraction(low), Fraction(high)]
    for depth in range(1, len(layers)):
        values = [in_rationals(layers, point, depth) for point in points]
        kinks = [
            left + (right - left) * a / (a - b)
            for (left, before), (right, after) in pairwise(zip(points, values, strict=True))
            for a, b in zip(before, after, strict=True)
            if a * b < 0
        ]
        points = sorted({*points, *kinks})
    values = [in_rationals(layers, point, len(layers))[0] for point in points]
    return min(values), max(values)


def badly_scaled(seed: int) -> tuple[Layers, float, float]:
    """A network of one input whose kinks lie in a box that may be tiny, its centre and its radius."""
    chosen = random.Random(seed)
    x, eps, depth, width = chosen.random(), 10 ** chosen.uniform(-8, 0), chosen.choice([1, 2, 3]), 4
    values, layers = [Fraction(x)], list[tuple[list[list[float]], list[float]]]()
    reach = eps
    for number in range(depth + 1):
        scale = 10 ** chosen.uniform(-8, 8)
        count = 1 if number == depth else width
        weight = [[chosen.gauss(0, 1) * scale for _ in values] for _ in range(count)]
        here = [sum((Fraction(w) * v for w, v in zip(row, values, strict=True)), Fraction(0)) for row in weight]
        reach *= scale
        bias = [chosen.gauss(0, 0.5) * reach - float(value) for value in here]
        layers.append((weight, bias))
        values = [max(Fraction(0), value + Fraction(b)) for value, b in zip(here, bias, strict=True)]
    return layers, x, eps


def exact_of(layers: Layers, x: float, eps: float) -> tuple[worst_case.Minimum, Fraction, Fraction]:
    """What a program says of the only output, and its exact range."""
    point = torch.tensor([[x]], dtype=torch.float64)
    graph, box = frozen(mlp(layers), point).rounded_outward(), Linf(eps=eps, clip=None).region(point)
    exact = worst_case.minimum(graph, box, torch.ones(1).double(), crown.boxes(graph, box), timeout=30)
    return exact, *least_in_rationals(layers, box.lower.item(), box.upper.item())


@pytest.mark.parametrize("seed", range(20))
def test_no_bound_is_above_the_exact_minimum_of_a_badly_scaled_network(seed):
    layers, x, eps = badly_scaled(seed)
    exact, lowest, highest = exact_of(layers, x, eps)
    assert Fraction(exact.lower) <= lowest
    assert lowest - Fraction(exact.lower) <= Fraction(1e-3) * (highest - lowest)


def test_an_answer_of_a_solver_is_no_proof():
    """The solver says that a program of columns of width 1e-8 has the least value 0.1: it is about -2e-8."""
    first = [-1.8956936534886705e-06, 1.5347934678924617e-06, 1.5606631311100814e-06, 4.875202570766409e-07]
    second = [-21409966.64917975, -4652329.864221748, -4299979.302410819, -6823890.983069645]
    layers: Layers = [
        ([[w] for w in first], [-0.501 * w for w in first]),
        ([second, second[::-1]], [0.043459813620392626, -0.02867393602349036]),
        ([[0.063, 0.65]], [-0.0002]),
    ]
    exact, lowest, highest = exact_of(layers, 0.5, 0.001)
    assert Fraction(exact.lower) <= lowest <= Fraction(exact.lower) + (highest - lowest) / 10**6


def lying(monkeypatch: pytest.MonkeyPatch, change: Callable[[Solution, LinearProgram], Solution]) -> None:
    """A solver whose answers are changed."""
    begin, solve, programs = Solver.__init__, Solver.solve, dict[int, LinearProgram]()

    def begun(self: Solver, program: LinearProgram, cost: np.ndarray) -> None:
        programs[id(self)] = program
        begin(self, program, cost)

    monkeypatch.setattr(Solver, "__init__", begun)
    monkeypatch.setattr(Solver, "solve", lambda self, *given: change(solve(self, *given), programs[id(self)]))


LIES: dict[str, Callable[[Solution, LinearProgram], Solution]] = {
    "everything is infeasible": lambda found, program: replace(found, ray=np.ones(len(program.lower))),
    "no ray": lambda found, program: replace(found, x=None, y=None, ray=None),
    "multipliers of another sign": lambda found, program: replace(found, y=None if found.y is None else -found.y),
    "multipliers that are too large": lambda found, program: replace(found, y=None if found.y is None else 3 * found.y),
    "NaN": lambda found, program: replace(found, y=np.full(len(program.lower), math.nan)),
    "a point outside": lambda found, program: replace(found, x=np.full(len(program.width), 1e3)),
    "a point that is none": lambda found, program: replace(found, x=np.full(len(program.width), math.nan)),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_solver_that_lies_costs_no_proof(monkeypatch, lie):
    model, x = network("mlp", seed=4)
    graph, places = frozen(model, x), (1, 2)
    box = moving(x, places, radius=0.2)
    inner, c = crown.boxes(graph.rounded_outward(), box), torch.tensor([1.0, -1.0, 0.0]).double()
    honest = worst_case.minimum(graph, box, c, inner, timeout=30)
    lying(monkeypatch, LIES[lie])
    found = worst_case.minimum(graph, box, c, inner, timeout=2)
    assert found.lower <= honest.upper
    assert found.upper >= honest.lower


def test_a_bound_above_the_value_at_a_point_is_an_error():
    model, x = network("mlp", seed=4)
    graph, box = frozen(model, x), moving(x, (1, 2), radius=0.2)
    # every ReLU is said to be 0, so that the output is the last bias
    wrong = [Box(torch.full_like(box.lower, -2.0), torch.full_like(box.upper, -1.0)) for box in crown.boxes(graph, box)]
    c = torch.eye(CLASSES).double()[0]
    if at_point(graph, c, box.center[0]) > model[-1].bias[0]:
        c = -c
    with pytest.raises(FalseBoundError, match="is above the value"):
        worst_case.minimum(graph, box, c, wrong, timeout=30)


def test_the_clean_input_contradicts_a_bound(monkeypatch):
    model, x = network("mlp", seed=2)
    y = model(x).argmax(1)
    monkeypatch.setattr(LinearProgram, "safe_bound", lambda *_: 1e6)
    with pytest.warns(StageFailedWarning, match="milp on 1 sample"):
        found = certify(model, x, y, eps=0.3, stages=[Milp()])
    assert [record.verdict for record in found] == [Verdict.UNKNOWN]
    assert "is above the value" in next(iter(found)).reason


class Pieces(nn.Module):
    """Slopes and kinks that are not powers of two, so that the program is rounded where it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 6).double(), nn.Linear(6, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.leaky_relu(F.hardtanh(self.first(x), -0.3, 0.7), 0.1))


@pytest.mark.parametrize("seed", range(8))
def test_rows_hold_the_exact_values_of_every_piece(seed):
    """At points of the box, the entries and the objective lie between the numbers that the program has for them."""
    torch.manual_seed(seed)
    model = Pieces()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=2.0)
    x = torch.rand(1, 1, dtype=torch.float64)
    graph, box = frozen(model, x), moving(x, (0,))
    program = Program.of(graph, box, crown.boxes(graph.rounded_outward(), box))
    cost, constant = program.objective(torch.ones(1).double())
    entries, count = program.maxima.entries, program.maxima.least.numel()
    leaky, low, high = Fraction(0.1), Fraction(-0.3), Fraction(0.7)
    for share in (0, 0.3, 0.7, 1):
        point = box.lower.item() + share * (box.upper - box.lower).item()
        columns = [Fraction(point)]
        for z in range(count):
            mine = [
                sum((Fraction(w) * v for w, v in zip(row, columns, strict=False)), Fraction(0))
                for row in entries.rows[program.maxima.z == 1 + z].tolist()
            ]
            columns.append(max(mine[0] + Fraction(entries.low[program.maxima.z == 1 + z][0].item()), Fraction(0)))
        value = Fraction(model.second.bias.item())
        for w, b, v in zip(
            model.first.weight.flatten().tolist(),
            model.first.bias.tolist(),
            model.second.weight.flatten().tolist(),
            strict=True,
        ):
            inside = min(max(Fraction(w) * Fraction(point) + Fraction(b), low), high)
            value += Fraction(v) * (inside if inside > 0 else leaky * inside)
        base = [Fraction(number) for number in program.base.tolist()]
        found = Fraction(constant) + sum(Fraction(a) * (v - b) for a, v, b in zip(cost, columns, base, strict=False))
        assert found <= value
        assert value - found <= Fraction(1e-12)

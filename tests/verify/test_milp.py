"""Exact worst cases: what the program says is the least value is that, whatever the network is made of."""

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
from torch import Tensor, nn

from ctbench.attacks import PGD
from ctbench.domains import crown, interval
from ctbench.graph import Graph, freeze, trace
from ctbench.regions import L2, Box, Linf
from ctbench.results import StageFailedWarning, Verdict
from ctbench.specification import margin_rows, margins, violation_at
from ctbench.time_budget import Budget
from ctbench.verify import Bound, Findings, Milp, Problem, certify, worst_case
from ctbench.verify.highs import Solution, Solver
from ctbench.verify.integer_program import Program
from ctbench.verify.linear_program import LinearProgram
from ctbench.verify.worst_case import ContradictionError

CLASSES = 3


class Residual(nn.Module):
    """Two convolutions with batch norm, and a way past them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3, padding=1)
        self.block = nn.Sequential(
            nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()
        )
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(F.relu(x + self.block(x)).flatten(1))


class Branches(nn.Module):
    """Branches that are joined, and their greatest entries: a ReLU of the input itself, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.maximum(self.first(x), F.relu(self.second(x)))
        return self.head(torch.cat([joined, F.relu(x - 0.5)], dim=1))


NETWORKS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "affine": ((4,), lambda: nn.Linear(4, CLASSES)),
    "mlp": (
        (4,),
        lambda: nn.Sequential(
            nn.Linear(4, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, CLASSES)
        ),
    ),
    "pieces": (
        (4,),
        lambda: nn.Sequential(
            nn.Linear(4, 6), nn.Hardtanh(), nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 6), nn.ReLU6(),
            nn.Linear(6, CLASSES),
        ),
    ),
    "convolution": (
        (1, 6, 6),
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, CLASSES)
        ),
    ),
    "max pooling": (
        (1, 6, 6),
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.MaxPool2d(3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8, CLASSES)
        ),
    ),
    "residual": ((1, 4, 4), Residual),
    "branches": ((4,), Branches),
}  # fmt: skip


def network(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A network with large random weights in double precision, and an input of it, [1, *shape]."""
    shape, build = NETWORKS[name]
    torch.manual_seed(seed)
    model = build().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 1.5)
        for parameter in module.parameters(recurse=False):
            nn.init.normal_(parameter, std=0.7)
    return model, torch.rand(1, *shape, dtype=torch.float64)


def frozen(model: nn.Module, x: Tensor) -> Graph:
    with torch.no_grad():
        return freeze(trace(model, tuple(x.shape[1:])), x)[0].detach()


def moving(x: Tensor, places: tuple[int, ...], radius: float = 0.6) -> Box:
    """A box around x in which only these entries move."""
    move = torch.zeros_like(x).flatten()
    move[list(places)] = radius
    return Box(x - move.view_as(x), x + move.view_as(x))


def least(value: Callable[[Tensor], Tensor], box: Box, places: tuple[int, int], *, count: int = 121) -> float:
    """The least value on a plane of inputs: a grid, then finer ones around its 20 best points, and so on."""
    start = torch.stack([box.center.flatten()[list(places)]])
    radius = box.radius.flatten()[places[0]]
    low, high = (end.flatten()[list(places)] for end in (box.lower, box.upper))
    best = math.inf
    for _ in range(12):
        side = torch.linspace(-1, 1, count, dtype=torch.float64) * radius
        plane = (start.unsqueeze(1) + torch.cartesian_prod(side, side)).flatten(0, 1).clamp(low, high)
        points = box.center.flatten().repeat(len(plane), 1)
        points[:, list(places)] = plane
        values = value(points.view(-1, *box.lower.shape[1:]))
        best = min(best, values.min().item())
        start, radius, count = plane[values.topk(20, largest=False).indices], 3 * radius / (count - 1), 21
    return best


def at_point(graph: Graph, c: Tensor, point: Tensor) -> float:
    return (graph(point.unsqueeze(0))[0] @ c).item()


# ---------------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("bounds", [interval.boxes, crown.boxes])
@pytest.mark.parametrize("seed", [0, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_least_value_is_that_of_a_search_of_the_plane(name, seed, bounds):
    model, x = network(name, seed)
    graph, places = frozen(model, x), (x.numel() * 2 // 5, x.numel() * 3 // 5)
    box = moving(x, places)
    inner = bounds(graph, box)
    assert name == "affine" or worst_case.unstable(graph, inner) > 2
    for c in margin_rows(torch.tensor([seed % CLASSES]), CLASSES, torch.float64)[0]:
        exact = worst_case.minimum(graph, box, c, inner, timeout=30)
        found = least(lambda points, c=c: graph(points) @ c, box, places)
        assert exact.status == "Optimal"
        assert exact.lower <= found
        assert exact.lower <= exact.upper <= exact.lower + 1e-6
        assert exact.upper == pytest.approx(found, abs=1e-6)
        assert exact.upper == at_point(graph, c, exact.point)
        assert bool(((exact.point >= box.lower[0]) & (exact.point <= box.upper[0])).all())


@pytest.mark.parametrize("name", ["mlp", "pieces", "convolution", "residual", "branches"])
def test_no_attack_goes_below_and_no_domain_above(name):
    model, x = network(name, seed=2)
    graph, box = frozen(model, x), Linf(eps=0.1).region(x)
    inner, y = crown.boxes(graph, box), graph(x).argmax(1)
    case = worst_case.worst_case(graph, box, int(y), inner, timeout=30)
    lower, upper = (x.new_tensor([getattr(exact, end) for exact in case.margins]) for end in ("lower", "upper"))
    generator = torch.Generator().manual_seed(0)
    attacked = PGD(steps=40, restarts=5)(violation_at(graph, y), box, x, generator)
    points = torch.cat([box.sample(5000, generator).flatten(0, 1), attacked])
    seen = margins(graph(points), y.expand(len(points)))
    assert bool((lower <= seen.amin(0)).all())
    assert bool((upper <= seen.amin(0) + 1e-6).all())
    assert bool(
        (crown.lower_bounds(graph, box, margin_rows(y, CLASSES, x.dtype), inner=inner)[0] <= upper + 1e-12).all()
    )
    assert bool((upper - lower < 1e-6).all())
    assert case.lower == lower.min().item()
    assert case.upper == upper.min().item()


def test_a_margin_that_relaxations_cannot_see():
    """|x| = max(0, x) + max(0, -x) has the least value 0 on [-1, 2]; the triangles alone would give -1/3 with -x/2."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[0].bias.zero_()
        model[2].weight.copy_(torch.tensor([[1.0, 1.0], [0.5, -0.5]]))
        model[2].bias.copy_(torch.tensor([0.25, 0.0]))
    x = torch.tensor([[0.5]], dtype=torch.float64)
    graph, box = frozen(model, x), moving(x, (0,), radius=1.5)
    inner = crown.boxes(graph, box)
    for c, expected in (([1.0, 0.0], 0.25), ([1.0, -1.0], 0.25), ([-1.0, 0.0], -2.25), ([0.0, 1.0], -0.5)):
        exact = worst_case.minimum(graph, box, torch.tensor(c, dtype=torch.float64), inner, timeout=30)
        assert exact.lower == pytest.approx(expected, abs=1e-6)
        assert exact.upper == pytest.approx(expected, abs=1e-6)
        assert exact.lower <= expected <= exact.upper + 1e-9


class Greater(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x[:, :1], x[:, 1:])


def test_an_entry_that_is_the_greatest_by_little_counts():
    x = torch.tensor([[0.5, 0.9]], dtype=torch.float64)
    graph, box = frozen(Greater(), x), moving(x, (0,), radius=0.5)
    for sign, expected in ((-1.0, -1.0), (1.0, 0.9)):
        exact = worst_case.minimum(graph, box, x.new_tensor([sign]), interval.boxes(graph, box), timeout=30)
        assert exact.upper == pytest.approx(expected, abs=1e-8)
        assert exact.lower == pytest.approx(expected, abs=1e-6)


def test_the_loss_is_exact_for_two_classes_and_above_it_for_more():
    model, x = network("mlp", seed=4)
    places = (0, 2)
    for classes in (2, 3):
        graph = frozen(nn.Sequential(model, nn.Linear(CLASSES, classes).double()), x)
        box, y = moving(x, places), torch.tensor([1])
        case = worst_case.worst_case(graph, box, 1, crown.boxes(graph, box), timeout=30)
        worst = -least(
            lambda p, graph=graph, y=y: -F.cross_entropy(graph(p), y.expand(len(p)), reduction="none"), box, places
        )
        assert case.loss >= worst
        assert classes > 2 or case.loss == pytest.approx(worst, abs=1e-5)


# ---------------------------------------------------------------------------------------------- proofs


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
    with pytest.raises(ContradictionError, match="is above the value"):
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


# ---------------------------------------------------------------------------------------------- ends before the end


def test_without_time_nothing_is_claimed():
    model, x = network("mlp")
    graph, box = frozen(model, x), Linf(eps=0.2).region(x)
    exact = worst_case.minimum(graph, box, torch.eye(CLASSES, dtype=x.dtype)[0], crown.boxes(graph, box), timeout=0.0)
    assert (exact.lower, exact.upper, exact.point) == (-math.inf, math.inf, None)
    assert exact.status == "Time limit reached"


def test_it_stops_where_the_answer_is_good_enough():
    model, x = network("pieces", seed=1)
    graph, box = frozen(model, x), Linf(eps=0.3).region(x)
    inner, c = crown.boxes(graph, box), torch.tensor([1.0, -1.0, 0.0], dtype=x.dtype)
    exact = worst_case.minimum(graph, box, c, inner, timeout=30)
    enough = worst_case.minimum(graph, box, c, inner, timeout=30, stop_above=exact.lower - 2.0)
    assert exact.lower - 2.0 < enough.lower < exact.lower
    assert enough.status == "Interrupted by user"
    there = worst_case.minimum(graph, box, c, inner, timeout=30, stop_below=exact.upper + 2.0)
    assert there.status == "Target for objective reached"
    assert exact.upper <= there.upper < exact.upper + 2.0
    assert there.lower < exact.lower


# ---------------------------------------------------------------------------------------------- errors


def call(model: nn.Module, x: Tensor, **changes):
    graph = frozen(model, x)
    box = Linf(eps=0.2).region(x)
    given = {"graph": graph, "box": box, "c": torch.ones(CLASSES).double(), "inner": None, "timeout": 30.0} | changes
    if given["inner"] is None:
        given["inner"] = interval.boxes(graph, box)
    return worst_case.minimum(**given)


@pytest.mark.parametrize("layer", [0, 3, 5])
def test_weights_that_are_not_numbers_are_an_error(layer):
    model, x = network("mlp")
    with torch.no_grad():
        model[layer].weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        call(model, x)


def test_what_it_cannot_do_it_says():
    model, x = network("mlp")
    with pytest.raises(ValueError, match="is a Tanh, which is not piecewise linear"):
        call(nn.Sequential(model, nn.Tanh()), x)
    with pytest.raises(ValueError, match="takes a Box"):
        call(model, x, box=L2(eps=0.1).region(x))
    with pytest.raises(ValueError, match=r"the box is torch.float32, of 1 samples"):
        call(model, x, box=Linf(eps=0.2).region(x.float()))
    with pytest.raises(ValueError, match=r"of 2 samples"):
        call(model, x, box=Linf(eps=0.2).region(x.repeat(2, 1)))
    with pytest.raises(ValueError, match="timeout is -1"):
        call(model, x, timeout=-1.0)
    with pytest.raises(ValueError, match="timeout is nan"):
        call(model, x, timeout=math.nan)


def test_a_graph_and_boxes_with_gradients_have_the_same_minimum():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, CLASSES)).double()
    x = torch.rand(1, 4, dtype=torch.float64)
    graph, region, c = freeze(trace(model, (4,)), x)[0], Linf(eps=0.3).region(x), torch.eye(CLASSES).double()[0]
    inner = crown.boxes(graph.rounded_outward(), region)
    assert any(bounds.lower.requires_grad for bounds in inner)
    least = worst_case.minimum(graph, region, c, inner, timeout=60.0)
    with torch.no_grad():
        boxes = crown.boxes(graph.detach().rounded_outward(), region)
    assert least.lower == worst_case.minimum(graph.detach(), region, c, boxes, timeout=60.0).lower
    assert math.isfinite(least.lower)


def test_boxes_that_no_input_fits_are_an_error():
    model, x = network("mlp")
    inner = interval.boxes(frozen(model, x), Linf(eps=0.2).region(x))
    wrong = [Box(torch.full_like(box.lower, -1e-3), torch.full_like(box.upper, 1e-3)) for box in inner]
    with pytest.raises(ValueError, match="give sound ones"):
        call(model, x, inner=wrong)


# ---------------------------------------------------------------------------------------------- the stage


def test_the_stage_decides_what_crown_leaves_open():
    model, _ = network("mlp", seed=2)
    x = torch.rand(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    bound, eps = Bound(domain="crown"), 0.1
    before = certify(model, x, y, eps=eps, stages=[bound])
    after = certify(model, x, y, eps=eps, stages=[bound, Milp()], timeout=20)
    assert after.counts[Verdict.UNKNOWN] == 0 < before.counts[Verdict.UNKNOWN]
    assert after.counts[Verdict.CERTIFIED] > before.counts[Verdict.CERTIFIED]
    assert after.counts[Verdict.FALSIFIED] > 3
    graph, region = frozen(model, x[:1]), Linf(eps=eps).region(x)
    seen = torch.stack([margins(graph(points), y).amin(1) for points in region.sample(20000)]).amin(0)
    for record in after:
        if record.verdict is Verdict.CERTIFIED:
            assert 0 < record.bound <= seen[record.index].item()
            assert record.stage in ("crown", "milp")
        else:
            assert record.stage == "milp"


def test_the_stage_takes_networks_in_single_precision():
    model, _ = network("residual", seed=1)
    model = model.float()
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    found = certify(model, x, model(x).argmax(1), eps=0.05, stages=[Milp()], timeout=20)
    assert found.counts[Verdict.UNKNOWN] == 0


def findings(stage: Milp, seconds: float = math.inf) -> tuple[Findings, Tensor]:
    """What a stage says of a sample that CROWN leaves open, and CROWN's bound."""
    model, x = network("mlp", seed=2)
    graph = frozen(model, x)
    problem = Problem.of_labels(graph, x, graph(x).argmax(1), Linf(eps=0.3))
    problem = replace(problem, budget=Budget.of([seconds]))
    return stage(problem, torch.Generator()), crown.lower_bounds(problem.proof.net, problem.region, problem.spec).amin(
        1
    )


def test_a_sample_without_time_or_with_too_many_neurons_keeps_the_bound_of_crown():
    for found, bound in (findings(Milp(), seconds=0.0), findings(Milp(unstable=0))):
        assert bool(bound < 0)
        assert found.bound.item() == pytest.approx(bound.item(), abs=1e-9)
    decided, _ = findings(Milp())
    assert bool(decided.bound >= bound)


def test_samples_that_the_stage_fails_on_stay_open():
    model, x = network("mlp")
    smooth = nn.Sequential(model, nn.Tanh())
    with pytest.warns(StageFailedWarning, match="milp on 1 sample"):
        found = certify(smooth, x, smooth(x).argmax(1), eps=0.3, stages=[Milp()])
    assert [record.verdict for record in found] == [Verdict.UNKNOWN]
    assert "not piecewise linear" in next(iter(found)).reason
    timely = certify(model, x, model(x).argmax(1), eps=0.3, stages=[Milp()], timeout=1e-6)
    assert [record.verdict for record in timely] == [Verdict.UNKNOWN]

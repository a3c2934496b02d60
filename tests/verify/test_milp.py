"""Exact worst cases: what the program says is the least value is that, whatever the network is made of."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.attacks import PGD
from ctbench.domains import crown, interval
from ctbench.graph import Graph, freeze, trace
from ctbench.regions import L2, Box, Linf
from ctbench.results import Verdict
from ctbench.specification import margin_rows, margins, violation_at
from ctbench.verify import Bound, Findings, Problem, certify, milp
from ctbench.verify.milp import Milp

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
    assert name == "affine" or milp.unstable(graph, inner) > 2
    for c in margin_rows(torch.tensor([seed % CLASSES]), CLASSES, torch.float64)[0]:
        exact = milp.minimum(graph, box, c, inner, timeout=30)
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
    case = milp.worst_case(graph, box, int(y), inner, timeout=30)
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
        exact = milp.minimum(graph, box, torch.tensor(c, dtype=torch.float64), inner, timeout=30)
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
        exact = milp.minimum(graph, box, x.new_tensor([sign]), interval.boxes(graph, box), timeout=30)
        assert exact.upper == pytest.approx(expected, abs=1e-8)
        assert exact.lower == pytest.approx(expected, abs=1e-6)


def test_the_loss_is_exact_for_two_classes_and_above_it_for_more():
    model, x = network("mlp", seed=4)
    places = (0, 2)
    for classes in (2, 3):
        graph = frozen(nn.Sequential(model, nn.Linear(CLASSES, classes).double()), x)
        box, y = moving(x, places), torch.tensor([1])
        case = milp.worst_case(graph, box, 1, crown.boxes(graph, box), timeout=30)
        worst = -least(
            lambda p, graph=graph, y=y: -F.cross_entropy(graph(p), y.expand(len(p)), reduction="none"), box, places
        )
        assert case.loss >= worst
        assert classes > 2 or case.loss == pytest.approx(worst, abs=1e-5)


# ---------------------------------------------------------------------------------------------- ends before the end


def test_without_time_nothing_is_claimed():
    model, x = network("mlp")
    graph, box = frozen(model, x), Linf(eps=0.2).region(x)
    exact = milp.minimum(graph, box, torch.eye(CLASSES, dtype=x.dtype)[0], crown.boxes(graph, box), timeout=0.0)
    assert (exact.lower, exact.upper, exact.point) == (-math.inf, math.inf, None)
    assert exact.status == "Time limit reached"


def test_it_stops_where_the_answer_is_good_enough():
    model, x = network("pieces", seed=1)
    graph, box = frozen(model, x), Linf(eps=0.3).region(x)
    inner, c = crown.boxes(graph, box), torch.tensor([1.0, -1.0, 0.0], dtype=x.dtype)
    exact = milp.minimum(graph, box, c, inner, timeout=30)
    enough = milp.minimum(graph, box, c, inner, timeout=30, stop_above=exact.lower - 2.0)
    assert exact.lower - 2.0 < enough.lower < exact.lower
    assert enough.status == "Interrupted by user"
    there = milp.minimum(graph, box, c, inner, timeout=30, stop_below=exact.upper + 2.0)
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
    return milp.minimum(**given)


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
    problem = replace(problem, seconds=torch.tensor([seconds]))
    return stage(problem, torch.Generator()), crown.lower_bounds(graph, problem.region, problem.spec).amin(1)


def test_a_sample_without_time_or_with_too_many_neurons_keeps_the_bound_of_crown():
    for found, bound in (findings(Milp(), seconds=0.0), findings(Milp(unstable=0))):
        assert bool(bound < 0)
        assert bool((found.bound == bound).all())
    decided, _ = findings(Milp())
    assert bool(decided.bound >= bound)


def test_samples_that_the_stage_fails_on_stay_open():
    model, x = network("mlp")
    smooth = nn.Sequential(model, nn.Tanh())
    found = certify(smooth, x, smooth(x).argmax(1), eps=0.3, stages=[Milp()])
    assert [record.verdict for record in found] == [Verdict.UNKNOWN]
    assert "not piecewise linear" in next(iter(found)).reason
    timely = certify(model, x, model(x).argmax(1), eps=0.3, stages=[Milp()], timeout=1e-6)
    assert [record.verdict for record in timely] == [Verdict.UNKNOWN]

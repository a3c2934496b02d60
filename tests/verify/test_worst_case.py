"""Exact worst cases: the bounds enclose the least value of a form, whatever the network is made of."""

import math

import pytest
import torch
import torch.nn.functional as F
from tests.piecewise import CLASSES, NETWORKS, at_point, frozen, least, moving, network
from torch import Tensor, nn

from ctbench.attacks import PGD
from ctbench.domains import crown, interval
from ctbench.graph import freeze, trace
from ctbench.regions import L2, Box, Linf
from ctbench.specification import margin_rows, margins, violation_at
from ctbench.verify import worst_case

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

"""Splitting the input box: what it says of a sample is true, and a small network leaves nothing open."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.planted import KINDS, spiked
from torch import Tensor, nn

from ctbench.attacks import PGD
from ctbench.domains import COAP, Crown, Zonotope, crown
from ctbench.domains.linear_form import LinearForm
from ctbench.graph import Node, freeze, trace
from ctbench.graph.ops import Max, Reshape
from ctbench.regions import L2, Box, Linf, Threat
from ctbench.results import Open, Verdict
from ctbench.time_budget import Budget
from ctbench.verify import DEFAULT_STAGES, Bound, Problem, certify, input_split
from ctbench.verify.defaults import FORWARD_SPLIT
from ctbench.verify.input_split import Boxes, InputSplit, best_mean, bounded, crown_forms, inner_boxes
from ctbench.verify.worst_case import worst_case

GENERATOR = torch.Generator()


class Greatest(nn.Module):
    """Two layers, whose greater entries go on."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(inputs, 6), nn.Linear(inputs, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.maximum(self.first(x), torch.sigmoid(self.second(x))))


def layers(activation: type[nn.Module]) -> Callable[[int], nn.Module]:
    return lambda inputs: nn.Sequential(
        nn.Linear(inputs, 8), activation(), nn.Linear(8, 6), activation(), nn.Linear(6, 3)
    )


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "relu": layers(nn.ReLU),
    "tanh": layers(nn.Tanh),
    "sigmoid": layers(nn.Sigmoid),
    "maximum": Greatest,
    "convolution": lambda inputs: nn.Sequential(
        nn.Unflatten(1, (1, 1, inputs)), nn.Conv2d(1, 3, (1, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(3 * inputs - 3, 3)
    ),
}


@torch.no_grad()
def network(name: str, inputs: int, *, seed: int = 0, samples: int = 12) -> tuple[nn.Module, Tensor]:
    """A network with large random weights, and random inputs: each class is its answer at some."""
    torch.manual_seed(seed)
    model, x = NETWORKS[name](inputs).double(), torch.rand(samples, inputs, dtype=torch.float64)
    for parameter in model.parameters():
        parameter.normal_(std=2.0 if name in ("tanh", "sigmoid") else 1.0)
    parameter -= model(x).mean(0)  # the last one, a bias
    return model, x


@torch.no_grad()
def problem(name: str, inputs: int, *, eps: float = 0.1, threat: type[Threat] = Linf, **options: int) -> Problem:
    """That such a network says what it says all around these inputs."""
    model, x = network(name, inputs, **options)
    graph = freeze(trace(model, (inputs,)), x)[0].detach()
    return Problem.of_labels(graph, x, graph(x).argmax(1), threat(eps=eps))


ROUNDING = 1e-12  # of values that a grid computes, and of bounds of other boxes


def certified(given: Problem, stage: InputSplit) -> tuple[Tensor, Tensor, Tensor]:
    """Which samples are certified and falsified, [B], and the bounds, after a stage."""
    found = stage(given, GENERATOR)
    return found.bound > 0, given.margins(found.witness).amin(1) < 0, found.bound


def least_on_a_grid(given: Problem, side: int) -> Tensor:
    """The least margin of each sample on a grid of its region, [B]."""
    steps = torch.linspace(0, 1, side, dtype=torch.float64)
    shares = torch.cartesian_prod(*[steps] * given.x.shape[1]).unsqueeze(1)
    box = given.region.hull
    return given.margins(box.lower + shares * (box.upper - box.lower)).amin((0, 2))


FORWARD = InputSplit(inner=Zonotope(fold=3))


@pytest.mark.parametrize("stage", [InputSplit(), FORWARD], ids=lambda stage: stage.title)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETWORKS)
def test_it_decides_as_a_fine_grid(name, seed, stage):
    given = problem(name, 2, seed=seed)
    proved, falsified, bound = certified(given, stage)
    least = least_on_a_grid(given, 301)
    assert bool((bound <= least + ROUNDING).all())
    assert bool((proved | falsified).all())
    assert bool((falsified == (least < 0))[least.abs() > 1e-3].all())


def test_the_grids_see_both_answers_and_crown_alone_does_not():
    hard = 0
    for name in NETWORKS:
        given = problem(name, 2)
        proved, falsified, _ = certified(given, InputSplit())
        assert 2 <= int(proved.sum()) <= len(given) - 2
        assert bool((proved ^ falsified).all())
        hard += int(proved.sum() - (crown.lower_bounds(given.net, given.region, given.spec).amin(1) > 0).sum())
    assert hard >= 5


@pytest.mark.parametrize(
    ("name", "seed", "stage"),
    [(name, seed, InputSplit()) for name in ("relu", "convolution") for seed in range(3)] + [("relu", 0, FORWARD)],
)
def test_it_decides_as_an_exact_solver(name, seed, stage):
    given = problem(name, 4, seed=seed)
    proved, falsified, bound = certified(given, stage)
    inner, labels = crown.boxes(given.net, given.region), given.net(given.x).argmax(1).tolist()
    for index, label in enumerate(labels):
        one = torch.tensor([index])
        exact = worst_case(given.net, given.region.take(one), label, [box.take(one) for box in inner], timeout=30.0)
        assert bound[index] <= exact.upper + 1e-9
        assert bool(proved[index]) == (exact.lower > 0)
        assert bool(falsified[index]) == (exact.upper < 0)


@pytest.mark.parametrize("name", ["tanh", "maximum"])
def test_no_point_of_a_smooth_network_is_below_its_bound(name):
    given = problem(name, 4)
    proved, falsified, bound = certified(given, InputSplit())
    points = given.region.sample(50_000, torch.Generator().manual_seed(0))
    seen = torch.stack([given.margins(part).amin((0, 2)) for part in points.split(10_000)]).amin(0)
    assert bool((bound <= seen).all())
    assert bool((proved ^ falsified).all())
    assert 2 <= int(proved.sum()) <= len(given) - 2
    assert not bool((proved & (seen < 0)).any())


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_counterexample_is_found_and_its_absence_proved(kind, rotated):
    planted = spiked(kind, 0, rotated=rotated)
    for model, verdict in ((planted.model, Verdict.FALSIFIED), (planted.base, Verdict.CERTIFIED)):
        found = certify(model, planted.x, planted.y, eps=planted.eps, stages=[InputSplit()])
        assert [record.verdict for record in found] == [verdict]


@pytest.mark.parametrize("parts", [1, 7, 256])
def test_many_samples_at_once_are_decided_as_one_by_one(parts):
    given = problem("relu", 3, samples=20, eps=0.15)
    proved, falsified, bound = certified(given, InputSplit(batch_subproblems=parts))
    assert 2 <= int(proved.sum()) <= len(given) - 2
    for index in range(len(given)):
        one = given.select(torch.tensor([index]))
        alone = certified(one, InputSplit())
        assert (bool(proved[index]), bool(falsified[index])) == (bool(alone[0]), bool(alone[1]))
        if proved[index]:  # then all the same boxes are bounded
            torch.testing.assert_close(bound[index], alone[2][0])


def test_a_sample_without_time_keeps_the_bound_of_crown_and_takes_none_from_others():
    given = problem("tanh", 2, eps=0.2)
    proved, _, _ = certified(given, InputSplit())
    first = crown.lower_bounds(given.net, given.region, given.spec).amin(1)
    hurried = proved & (first < 0)
    assert int(hurried.sum()) > 2
    seconds = torch.where(hurried, 0.0, 60.0)
    again, _, bound = certified(replace(given, budget=Budget.of(seconds)), InputSplit())
    assert bool((again == (proved & ~hurried)).all())
    torch.testing.assert_close(bound[hurried], first[hurried])


def test_time_is_kept():
    given = problem("tanh", 12, samples=4, eps=0.5)
    start = time.perf_counter()
    found = InputSplit()(replace(given, budget=Budget.of([0.1] * 4)), GENERATOR)
    assert time.perf_counter() - start < 5
    assert bool((found.bound < 0).all())


def test_a_sample_that_is_given_up_is_bounded_by_all_its_boxes():
    given = problem("tanh", 2, eps=0.2)
    least = least_on_a_grid(given, 301)
    _, _, before = certified(given, InputSplit(max_subproblems=1))
    for nodes in (2, 5, 10):
        proved, _, bound = certified(given, InputSplit(max_subproblems=nodes))
        assert bool((bound <= least + ROUNDING).all())
        assert bool((bound >= before - ROUNDING).all())
        assert bool((~proved & (bound > before + 1e-3)).any())
        before = bound


@pytest.mark.parametrize("eps", [0.0, 0.05])
def test_a_network_with_nan_certifies_nothing(eps):
    given = problem("relu", 3, eps=eps)
    for shape in ((8, 3), (8,), (3, 6), (3,)):
        broken = given.net.map(lambda t, shape=shape: torch.full_like(t, torch.nan) if t.shape == shape else t)
        assert not bool((InputSplit()(replace(given, net=broken), GENERATOR).bound > 0).any())


def test_a_region_that_cannot_be_halved_ends_the_search():
    given = problem("relu", 3, eps=0.0)
    tied = replace(given, spec=torch.zeros_like(given.spec))
    proved, falsified, bound = certified(tied, InputSplit())
    assert not bool((proved | falsified).any())
    assert bool((bound.abs() < ROUNDING).all())
    assert bool(certified(given, InputSplit())[0].all())


def test_networks_with_many_inputs_and_other_regions_stay_open():
    for given, stage in (
        (problem("relu", 4), InputSplit(inputs=3)),
        (problem("relu", 2, threat=L2), InputSplit()),
        (problem("relu", 4), InputSplit(least_values=36)),  # 4 + 8 + 8 + 6 + 6 + 3 values
    ):
        found = stage(given, GENERATOR)
        assert (found.bound, found.witness) == (None, None)
    model, x = NETWORKS["relu"](4), torch.rand(3, 4)
    record = next(iter(certify(model, x, model(x).argmax(1), eps=0.1, stages=[InputSplit(inputs=3)])))
    assert (record.verdict, record.stage, record.open) == (Verdict.UNKNOWN, "input-split", Open.UNDECIDED)


def test_it_proves_in_double_precision():
    """A network in single precision that has nothing to do with the exact one: only the latter counts."""
    exact = problem("relu", 3)
    nonsense = exact.net.to(torch.float32).map(torch.zeros_like)
    x = exact.x.float()
    given = replace(exact, net=nonsense, x=x, region=Linf(eps=0.2).region(x), spec=exact.spec.float(), double=exact)
    found, expected = InputSplit()(given, GENERATOR), InputSplit()(exact, GENERATOR)
    assert InputSplit.proves
    assert found.bound.dtype == found.witness.dtype == torch.float64
    torch.testing.assert_close(found.bound, expected.bound, rtol=0, atol=ROUNDING)
    assert torch.equal(found.witness, expected.witness)


def affine(weight: list[list[float]], bias: list[float], eps: float) -> Problem:
    """That a linear layer says 0 around the middle of [0, 1]."""
    layer = nn.Linear(len(weight[0]), len(bias)).double()
    layer.load_state_dict({"weight": torch.tensor(weight).double(), "bias": torch.tensor(bias).double()})
    x = torch.full((1, len(weight[0])), 0.5, dtype=torch.float64)
    graph = freeze(trace(layer, tuple(x.shape[1:])), x)[0].detach()
    return Problem.of_labels(graph, x, torch.tensor([0]), Linf(eps=eps))


def test_a_margin_that_may_be_rounding_is_no_proof():
    """1e-17 everywhere: positive, but rounding may have added more to it; 1e-12 is more than that."""
    proved, falsified, bound = certified(
        affine([[1.0, 1.0], [1.0, 1.0]], [1e-17, 0.0], eps=0.1), InputSplit(max_subproblems=50)
    )
    assert -1e-13 < bound.item() <= 0
    assert not bool(proved)
    assert bool(certified(affine([[1.0, 1.0], [1.0, 1.0]], [1e-12, 0.0], eps=0.1), InputSplit(max_subproblems=50))[0])
    assert not bool(falsified)


def test_the_point_where_a_form_is_least_is_a_corner():
    """The margin 0.1 + (x_0 - 0.5) - (x_1 - 0.5) is least where x_0 is least and x_1 greatest."""
    given = affine([[1.0, -1.0], [0.0, 0.0]], [0.1, 0.0], eps=0.25)
    found = InputSplit(max_subproblems=1)(given, GENERATOR)
    assert found.witness.tolist() == [[0.25, 0.75]]
    assert found.bound.item() == pytest.approx(-0.4)


@torch.no_grad()
def test_a_descent_leaves_the_box_where_it_begins(monkeypatch):
    """|x_1 - 0.31| + |x_2 - 0.31| - 0.02 is negative far from the corners and the centre of [-1, 1]^2."""
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    model[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    model[0].bias.copy_(torch.tensor([-0.31, 0.31, -0.31, 0.31]))
    model[2].weight.copy_(torch.tensor([[1.0] * 4, [0.0] * 4]))
    model[2].bias.copy_(torch.tensor([-0.02, 0.0]))
    x = torch.zeros(1, 2).double()
    given = Problem.of_labels(freeze(trace(model, (2,)), x)[0].detach(), x, torch.tensor([0]), Linf(eps=1.0, clip=None))
    assert certified(given, InputSplit(max_subproblems=1))[1].all()
    monkeypatch.setattr(input_split, "DESCENT", PGD(steps=0, clean_start=True))
    assert not certified(given, InputSplit(max_subproblems=1))[1].any()


def test_inputs_that_do_not_count_are_not_halved():
    """Two inputs that count, and 18 wider ones that do not: halving those would make 2^18 times the boxes."""
    model, x = network("tanh", 2)
    narrow = problem("tanh", 2, eps=0.2)
    with torch.no_grad():
        model[0].weight = nn.Parameter(F.pad(model[0].weight, (0, 18)))
        x = F.pad(x, (0, 18), value=0.5)
        graph = freeze(trace(model, (20,)), x)[0].detach()
    box = Box(F.pad(narrow.region.lower, (0, 18), value=0.0), F.pad(narrow.region.upper, (0, 18), value=1.0))
    proved, falsified, _ = certified(replace(narrow, net=graph, x=x, region=box), InputSplit(max_subproblems=1000))
    assert torch.equal(proved, certified(narrow, InputSplit())[0])
    assert torch.equal(falsified, ~proved)


def test_it_takes_what_crown_leaves_open_and_networks_in_single_precision():
    model, x = network("tanh", 3, samples=20)
    model, x = model.float(), x.float()
    y, bound = model(x).argmax(1), Bound(domain="crown")
    before = certify(model, x, y, eps=0.15, stages=[bound])
    after = certify(model, x, y, eps=0.15, stages=[bound, InputSplit()])
    assert after.counts[Verdict.UNKNOWN] == 0 < before.counts[Verdict.UNKNOWN]
    assert after.counts[Verdict.CERTIFIED] > before.counts[Verdict.CERTIFIED]
    assert after.counts[Verdict.FALSIFIED] > 0


def test_boxes_of_any_shape_are_split():
    given = problem("relu", 4)
    x = given.x
    widths = torch.tensor([0.0, 0.05, 0.2, 0.4], dtype=torch.float64)
    skewed = replace(given, region=Box(x - widths, x + 0.5 * widths))
    proved, falsified, bound = certified(skewed, InputSplit())
    points = skewed.region.sample(20_000, torch.Generator().manual_seed(0))
    assert bool((proved ^ falsified).all())
    assert bool((bound <= skewed.margins(points).amin((0, 2))).all())


def test_what_cannot_be_is_an_error():
    with pytest.raises(ValueError, match="batch_subproblems is 0 and max_subproblems is 5"):
        InputSplit(batch_subproblems=0, max_subproblems=5)
    with pytest.raises(ValueError, match="max_subproblems is 0"):
        InputSplit(max_subproblems=0)
    with pytest.raises(ValueError, match="give a sound domain"):
        InputSplit(inner=COAP(projections=3))


def test_a_large_network_with_few_inputs_is_split_by_passes_forward():
    """Before CROWN bounds its neurons one by one. One value less, and it is CROWN's."""
    large, small = (
        Problem.of_labels(freeze(trace(model, (2,)), x)[0].detach(), x, torch.zeros(1, dtype=torch.long), Linf(eps=0.1))
        for model, x in (
            (nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2)).double(), torch.rand(1, 2).double())
            for width in (2**16 - 2, 2**16 - 3)
        )
    )
    titles = [stage.title for stage in DEFAULT_STAGES]
    assert titles.index(FORWARD_SPLIT.title) < titles.index("crown")
    assert (FORWARD_SPLIT.applies(large), FORWARD_SPLIT.applies(small)) == (True, False)


@torch.no_grad()
def test_a_coordinate_that_seems_not_to_matter_is_halved_at_last():
    """x_2 only matters where relu(x_1) is open, so its influence may be 0 everywhere that is looked at."""
    whole = Box(torch.zeros(1, 2).double(), torch.tensor([[1.0, 8.0]]).double())
    boxes = Boxes(torch.zeros(1, dtype=torch.long), whole, torch.full((1, 1), -1.0).double())
    places = []
    for _ in range(12):
        place, _ = boxes.place(torch.tensor([[1.0, 0.0]]).double(), whole)
        places.append(place.item())
        boxes = boxes.halves(place).take(torch.tensor([0]))
    assert places[:4] == [0] * 4
    assert places.count(1) >= 3


def test_both_halves_cover_a_box():
    lower, width = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    boxes, place = Boxes(torch.arange(5), Box(lower, lower + width), torch.zeros(5, 1)), torch.tensor([0, 1, 2, 0, 1])
    halves = boxes.halves(place).box
    lowers, uppers = halves.lower.view(2, 5, 3), halves.upper.view(2, 5, 3)  # of the parts below, and above
    here = F.one_hot(place, 3).bool()
    assert torch.equal(lowers[0], lower)
    assert torch.equal(uppers[1], lower + width)
    assert torch.equal(uppers[0][here], lowers[1][here])
    assert torch.equal(uppers[0][~here], (lower + width)[~here])
    assert torch.equal(lowers[1][~here], lower[~here])


@pytest.mark.parametrize("domain", [Crown(), Zonotope(fold=500)], ids=lambda domain: domain.name)
@torch.no_grad()
def test_inner_boxes_of_a_half_lie_in_those_of_the_whole_and_hold(domain):
    given = problem("tanh", 3, eps=0.3).proof
    around = inner_boxes(domain, given.net, given.region)
    whole, influence, _ = bounded(Boxes.whole(given, around[0]), given, around, domain)
    halves = whole.halves(whole.place(influence, given.region.hull)[0])
    after, _, _ = bounded(halves, given, around, domain)
    points = halves.box.sample(200, torch.Generator().manual_seed(0))
    assert len(after.inner) == 2
    for at, box in after.inner.items():
        assert box.lower.ge(halves.inner[at].lower).all()
        assert box.upper.le(halves.inner[at].upper).all()
        assert (box.upper - box.lower).sum() < (halves.inner[at].upper - halves.inner[at].lower).sum()
        seen = replace(given.net, nodes=given.net.nodes[: at + 1])(points.flatten(0, 1)).view(200, *box.lower.shape)
        assert (box.lower <= seen.amin(0)).all()
        assert (seen.amax(0) <= box.upper).all()


def test_without_memory_for_inner_boxes_verdicts_are_the_same(monkeypatch):
    given, kept = problem("relu", 3, eps=0.3), []
    within = Boxes.within

    def noted(boxes: Boxes, memory: int) -> Boxes:
        result = within(boxes, memory)
        kept.append(bool(result.inner))
        return result

    monkeypatch.setattr(Boxes, "within", noted)
    before = certified(given, InputSplit())
    assert kept
    assert all(kept)
    kept.clear()
    monkeypatch.setattr(input_split, "HELD_SHARE", 0.0)
    after = certified(given, InputSplit())
    assert kept
    assert not any(kept)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


@torch.no_grad()
def test_the_best_mean_of_a_maximum():
    """x - 0.1 and 0.2 - x: neither is positive on [0, 1], and their mean is."""
    forms = LinearForm(
        torch.tensor([[[1.0], [-1.0], [3.0], [0.0]]]).double(), torch.tensor([[-0.1, 0.2, 1.0, -2.0]]).double()
    )
    box = Box(torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    weights = best_mean(LinearForm(forms.coefficients[:, :2], forms.constant[:, :2]), box, (2,))
    torch.testing.assert_close(weights, torch.full((1, 2), 0.5).double(), atol=0.05, rtol=0)
    alone = best_mean(LinearForm(forms.coefficients[:, 2:], forms.constant[:, 2:]), box, (2,))
    assert alone.tolist() == [[1.0, 0.0]]
    both = best_mean(forms, box, (2, 2))
    assert both.shape == (1, 2, 2)
    torch.testing.assert_close(both.sum(1), torch.ones(1, 2).double())
    lost = best_mean(LinearForm(torch.nan * forms.coefficients, forms.constant), box, (4,))
    assert lost.sum() == 1  # otherwise a maximum would be at least 0


@pytest.mark.parametrize("seed", range(5))
@torch.no_grad()
def test_bounds_of_a_maximum_at_the_output_hold(seed):
    torch.manual_seed(seed)
    graph = trace(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6)), (2,))
    x = torch.zeros(3, 2).double()
    graph = freeze(graph, x.float())[0].detach().to(torch.float64)
    ends = (
        Node("rows", Reshape((6,), (3, 2)), (len(graph.nodes) - 1,), (3, 2)),
        Node("most", Max(), (len(graph.nodes),), (2,)),
    )
    graph = replace(graph, nodes=graph.nodes + ends)
    region = Linf(eps=1.0, clip=None).region(x + torch.rand(3, 2))
    spec = torch.eye(2).double().expand(3, 2, 2)
    around = crown.bounded(graph.rounded_outward(), region)
    forms = crown_forms(graph.rounded_outward(), region, spec, around)
    points = region.sample(4000, torch.Generator().manual_seed(0))
    values = graph(points.flatten(0, 1)).view(4000, 3, 2)
    bound = forms.minimum(region)
    assert (bound <= values.amin(0)).all()
    line = (forms.coefficients.unsqueeze(0) @ points.unsqueeze(-1)).squeeze(-1) + forms.constant
    assert (line <= values).all()

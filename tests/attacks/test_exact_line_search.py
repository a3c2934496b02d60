"""The exact line search: every breakpoint is found, and no grid and no attack finds a worse point of segments."""

import math

import pytest
import torch
from torch import Tensor, nn

from ctbench.attacks import APGD, PGD
from ctbench.attacks.exact_line_search import breakpoints, worst_on_segments
from ctbench.attacks.line_search import segments
from ctbench.graph import Graph, freeze, trace
from ctbench.graph.ops import Absolute
from ctbench.networks import MLP
from ctbench.regions import FirstCoordinate, Linf, RandomSegments, Region, Segments, linf_box
from ctbench.specification import cross_entropy, cross_entropy_at, violation

SHAPE, BATCH = (2, 5, 5), 4


class Residual(nn.Module):
    """Two blocks: the input of one activation is also read by later activations and sums."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 4, 3, stride=2)
        self.last = nn.Linear(16 + 75, 4)

    def forward(self, x: Tensor) -> Tensor:
        start = self.norm(self.stem(x))
        x = torch.relu(self.first(torch.relu(start)) + start)
        x = torch.cat([torch.relu(self.second(x)).flatten(1), start.flatten(1).abs()], dim=1)
        return self.last(x)


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.LeakyReLU(0.2),
        nn.Conv2d(3, 4, 2),
        nn.Hardtanh(-0.2, 0.3),
        nn.Flatten(),
        nn.Linear(16, 8),
        Absolute(),
        nn.Linear(8, 4),
    )


NETWORKS = {
    "one hidden layer": lambda: MLP(hidden=(20,)).build(SHAPE, 4),
    "two hidden layers": lambda: MLP(hidden=(12, 9)).build(SHAPE, 4),
    "three hidden layers": lambda: MLP(hidden=(10, 8, 7)).build(SHAPE, 4),
    "no hidden layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(50, 4)),
    "activation first": lambda: nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(50, 4), nn.ReLU()),
    "conv": conv,
    "residual": Residual,
}
THREATS = {
    "first coordinate": FirstCoordinate(eps=6.0),
    "random segments": RandomSegments(eps=4.0, count=3),
    "segments": Segments(eps=0.7, directions=torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))),
}


def frozen(name: str) -> tuple[Graph, Tensor, Tensor]:
    torch.manual_seed(5)
    model, x, y = NETWORKS[name]().double(), torch.randn(BATCH, *SHAPE).double(), torch.randint(4, (BATCH,))
    graph, _ = freeze(trace(model, SHAPE), x)
    return graph, x, y


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[Graph, Tensor, Tensor]:
    return frozen(request.param)


@pytest.fixture(params=THREATS)
def region_of(request: pytest.FixtureRequest):
    return THREATS[request.param].region


def on_grid(net: Graph, region: Region, y: Tensor, objective, count: int = 1001) -> Tensor:
    """The greatest value on a grid of every segment, [B]."""
    center, arms = segments(region)
    shares = torch.linspace(-1, 1, count, dtype=center.dtype).view(-1, 1, 1, 1, 1)
    values = [objective(net((center + shares * arm).flatten(0, 1)), y.repeat(count)).view(count, -1) for arm in arms]
    return torch.cat(values).amax(0)


@pytest.mark.parametrize("objective", [cross_entropy, violation])
def test_no_point_of_a_grid_is_worse(case, region_of, objective):
    net, x, y = case
    region = region_of(x)
    worst = worst_on_segments(net, region, y, objective)
    assert worst.shape == x.shape
    assert not worst.requires_grad
    torch.testing.assert_close(region.project(worst), worst, rtol=0, atol=1e-14)
    found, grid = objective(net(worst), y), on_grid(net, region, y, objective)
    assert (found >= grid - 1e-12).all()
    assert (found <= grid + 1e-2).all()


def test_points_off_the_grid_and_inside_the_segments_are_found():
    net, x, y = frozen("two hidden layers")
    region = RandomSegments(eps=4.0, count=3).region(x)
    worst = worst_on_segments(net, region, y)
    share = (worst - x).flatten(1) @ region.directions.flatten(1).T / 4
    assert ((share.abs() > 1e-9).sum(1) == 1).all()
    assert (share.abs().amax(1) < 0.99).any()
    assert len(share.abs().argmax(1).unique()) > 1
    assert (cross_entropy(net(worst), y) > on_grid(net, region, y, cross_entropy, 41) + 1e-6).any()


@pytest.mark.parametrize("memory", [1, 2000, 2**22])
def test_the_network_is_linear_between_breakpoints(case, memory):
    net, x, _ = case
    center, arms = segments(THREATS["random segments"].region(x))
    covered, count = torch.zeros(BATCH).double(), 0
    for places in breakpoints(net, center, arms[0], memory=memory):
        (logits,) = places.values.values()
        points = center[places.sample] + places.share.view(-1, 1, 1, 1) * arms[0][places.sample]
        torch.testing.assert_close(logits, net(points), rtol=0, atol=1e-12)
        same = places.sample[1:] == places.sample[:-1]
        middle = net((points[1:] + points[:-1])[same] / 2)
        torch.testing.assert_close((logits[1:] + logits[:-1])[same] / 2, middle, rtol=0, atol=1e-12)
        step = places.share.diff()[same]
        assert (step >= 0).all()
        covered.index_add_(0, places.sample[1:][same], step)
        count += len(places.sample)
    torch.testing.assert_close(covered, torch.full((BATCH,), 2.0).double())
    assert count >= 2 * BATCH


def by_hand() -> Graph:
    """x -> ReLU(4 x - 1), then ReLU(2 - that), which is 0 from x = 3/4 on; and ReLU(-2 x - 1)."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU()).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[4.0], [-2.0]]))
        model[0].bias.copy_(torch.tensor([-1.0, -1.0]))
        model[2].weight.copy_(torch.tensor([[-1.0, 0.0], [0.0, 1.0]]))
        model[2].bias.copy_(torch.tensor([2.0, 0.0]))
    return freeze(trace(model, (1,)), torch.zeros(1, 1).double())[0]


def test_the_breakpoints_of_a_network_by_hand():
    center, arm = torch.tensor([[0.0], [10.0], [0.5]]).double(), torch.tensor([[1.0], [1.0], [0.0]]).double()
    (places,) = breakpoints(by_hand(), center, arm)
    assert places.sample.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2]
    assert places.share.tolist() == [-1, -0.5, 0.25, 0.75, 1, -1, 1, -1, 1]
    (logits,) = places.values.values()
    torch.testing.assert_close(logits[:5], torch.tensor([[2, 1], [2, 0], [2, 0], [0, 0], [0, 0]]).double())


def test_a_sample_that_is_not_finite_leaves_the_others_alone():
    center = torch.tensor([[0.0], [math.nan], [0.0]]).double()
    whole = torch.cat([places.share[places.sample != 1] for places in breakpoints(by_hand(), center, center + 1)])
    assert whole.tolist() == 2 * [-1, -0.5, 0.25, 0.75, 1]


def test_samples_do_not_influence_one_another(case, region_of):
    net, x, y = case
    together = worst_on_segments(net, region_of(x), y)
    alone = torch.cat([worst_on_segments(net, region_of(x[i : i + 1]), y[i : i + 1]) for i in range(BATCH)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("attack", [PGD(steps=30, restarts=10), APGD(steps=30)], ids=["pgd", "apgd"])
def test_no_attack_finds_a_worse_point(case, region_of, attack):
    net, x, y = case
    region, objective = region_of(x), cross_entropy_at(net, y)
    attacked = attack(objective, region, x, torch.Generator().manual_seed(1))
    worst = worst_on_segments(net, region, y)
    assert (objective(worst[None]) >= objective(attacked[None]) - 1e-12).all()


def test_at_radius_zero_the_input_is_the_worst_point(case):
    net, x, y = case
    assert torch.equal(worst_on_segments(net, RandomSegments(eps=0.0, count=2).region(x), y), x)


def test_a_box_with_one_moving_coordinate_is_searched(case):
    net, x, y = case
    eps = torch.zeros(SHAPE).double()
    eps[1, 2, 3] = 5.0
    region = linf_box(x, eps, clip=None)
    worst = worst_on_segments(net, region, y)
    assert torch.equal(region.project(worst), worst)
    assert (cross_entropy(net(worst), y) >= on_grid(net, region, y, cross_entropy) - 1e-12).all()


def test_rounding_leads_to_no_point_outside_the_region():
    x = torch.rand(1000, 1, generator=torch.Generator().manual_seed(6))
    region = Linf(eps=0.1).region(x)
    worst = worst_on_segments(by_hand().to(torch.float32), region, torch.arange(1000) % 2)
    assert torch.equal(region.project(worst), worst)


def test_half_precision_around_it_changes_nothing():
    net, x, y = frozen("two hidden layers")
    net, x = net.to(torch.float32), x.float()
    region = FirstCoordinate(eps=6.0).region(x)
    expected = worst_on_segments(net, region, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(worst_on_segments(net, region, y), expected)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [(nn.Sigmoid(), "Sigmoid"), (nn.MaxPool2d(2), "Max"), (nn.Dropout(), "Dropout"), (nn.BatchNorm2d(2), "BatchNorm")],
)
def test_networks_without_known_breakpoints_are_refused(layer, kind):
    size = 8 if kind == "Max" else 50
    net = trace(nn.Sequential(layer, nn.Flatten(), nn.Linear(size, 3)), SHAPE)
    x = torch.zeros(1, *SHAPE)
    with pytest.raises(ValueError, match=rf"layer '0' is a {kind}: .* a frozen graph .* use attacks.LineSearch"):
        worst_on_segments(net, FirstCoordinate(eps=1.0).region(x), torch.tensor([0]))


def test_a_region_without_segments_is_refused(case):
    net, _, y = case
    with pytest.raises(ValueError, match="50 coordinates move at once: a line search needs segments"):
        worst_on_segments(net, Linf(eps=0.1).region(torch.full((BATCH, *SHAPE), 0.5).double()), y)

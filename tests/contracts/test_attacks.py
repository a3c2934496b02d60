"""What every attack must satisfy, built from its defaults."""

from collections.abc import Callable

import pytest
import torch
from tests.kinds import ours
from torch import Tensor

from ctbench.attacks import Attack, attacks
from ctbench.regions import Region
from ctbench.specification import cross_entropy_at

ATTACKS = ours(attacks())

# an example of a region for every attack, one of those in conftest
PLACES = {"apgd": "linf of each feature", "line-search": "segments", "pgd": "linf of each feature"}

Around = Callable[[Tensor, float], Region]


@pytest.fixture(params=sorted(ATTACKS))
def attack(request: pytest.FixtureRequest) -> Attack:
    return ATTACKS[request.param]()


@pytest.fixture
def around(attack: Attack, regions: dict[str, Around]) -> Around:
    """The region around inputs, of a radius; with radius 0 it is the input itself."""
    return regions[PLACES[attack.name]]


class Recorder:
    """An objective that remembers its points and values."""

    def __init__(self, objective) -> None:
        self.objective, self.points, self.values = objective, [], []

    def __call__(self, points: Tensor) -> Tensor:
        values = self.objective(points)
        self.points.append(points.detach().clone())
        self.values.append(values.detach().clone())
        return values


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def assert_inside(points: Tensor, region: Region) -> None:
    torch.testing.assert_close(region.project(points), points, rtol=0, atol=1e-14)


def test_every_attack_has_an_example():
    assert set(PLACES) == set(ATTACKS)


def test_the_result_lies_in_the_region_and_has_no_gradient(case, attack, around):
    sample = case()
    region = around(sample.x, 0.1)
    points = attack(cross_entropy_at(sample.graph, sample.y), region, sample.x, generator())
    assert points.shape == sample.x.shape
    assert_inside(points, region)
    assert not points.requires_grad
    assert all(parameter.grad is None for parameter in sample.model.parameters())


def test_the_result_is_the_best_point_seen(case, attack, around):
    sample = case()
    objective = Recorder(cross_entropy_at(sample.graph, sample.y))
    region = around(sample.x, 0.1)
    worst = attack(objective, region, sample.x, generator())
    best = torch.cat(objective.values).amax(0)
    torch.testing.assert_close(objective.objective(worst[None])[0].detach(), best, rtol=1e-12, atol=1e-12)
    for points in objective.points:
        assert_inside(points, region)


def test_a_generator_decides_everything(case, attack, around):
    sample = case()
    objective, region = cross_entropy_at(sample.graph.detach(), sample.y), around(sample.x, 0.1)
    first, second = (attack(objective, region, sample.x, generator()) for _ in range(2))
    assert torch.equal(first, second)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    attack(objective, region, sample.x, generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_region_of_one_point_leaves_that_point(case, attack, around):
    sample = case()
    points = attack(cross_entropy_at(sample.graph, sample.y), around(sample.x, 0.0), sample.x, generator())
    assert torch.equal(points, sample.x)


def test_a_linear_objective_is_maximised_exactly(attack, around):
    x = torch.tensor([[0.1, 0.4, 0.5, 0.0], [0.2, 0.2, 0.3, 0.9]]).double()
    direction = torch.tensor([[1.0, -2.0, 3.0, 0.7], [-0.5, 1.0, 1.0, 0.2]]).double()
    region = around(x, 0.2)
    worst = attack(lambda points: (points * direction).sum(-1), region, x, generator())
    highest = -region.minimum(-direction.unsqueeze(1))[:, 0]
    torch.testing.assert_close((worst * direction).sum(-1), highest, rtol=0, atol=1e-12)


def test_it_raises_the_loss_of_a_network(case, attack, around):
    sample = case()
    objective = cross_entropy_at(sample.graph.detach(), sample.y)
    region = around(sample.x, 0.1)
    points = attack(objective, region, sample.x, generator())
    random = objective(region.sample(20, generator())).amax(0)
    assert (objective(points[None])[0] > random).all()


def test_samples_do_not_influence_one_another(attack, around):
    x = torch.full((2, 2), 0.5).double()
    direction = torch.tensor([[1.0, -2.0], [-0.5, 1.0]]).double()

    def objective(scale: float):
        factors = torch.tensor([1.0, scale]).double()
        return lambda points: -((points - 0.4) * direction).square().sum(-1) * factors

    region = around(x, 0.4)
    one = attack(objective(1.0), region, x, generator())
    other = attack(objective(-3.0), region, x, generator())
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])

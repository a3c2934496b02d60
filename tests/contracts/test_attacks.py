"""What every attack must satisfy, built from its defaults."""

import importlib
import pkgutil

import pytest
import torch
from torch import Tensor

from ctbench import attacks
from ctbench.attacks import Attack
from ctbench.regions import Box
from ctbench.specification import cross_entropy_at


def members() -> dict[str, type[Attack]]:
    for info in pkgutil.iter_modules(attacks.__path__):
        importlib.import_module(f"{attacks.__name__}.{info.name}")

    def below(kind: type) -> set[type]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    found = [a for a in below(Attack) if a.__module__.startswith("ctbench.") and not a.__abstractmethods__]
    assert len({attack.name for attack in found}) == len(found)
    return {attack.name: attack for attack in found}


ATTACKS = members()


@pytest.fixture(params=sorted(ATTACKS))
def attack(request: pytest.FixtureRequest) -> Attack:
    return ATTACKS[request.param]()


class Recorder:
    """An objective that remembers where it was asked and what it answered."""

    def __init__(self, objective) -> None:
        self.objective, self.points, self.values = objective, [], []

    def __call__(self, points: Tensor) -> Tensor:
        values = self.objective(points)
        self.points.append(points.detach().clone())
        self.values.append(values.detach().clone())
        return values


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_there_is_an_attack():
    assert "pgd" in ATTACKS


def test_the_result_lies_in_the_region_and_has_no_gradient(case, attack):
    sample = case()
    region = sample.region(0.1)
    found = attack(cross_entropy_at(sample.graph, sample.y), region, sample.x, generator())
    assert found.shape == sample.x.shape
    assert (found >= region.lower).all()
    assert (found <= region.upper).all()
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in sample.model.parameters())


def test_the_result_is_the_best_point_seen(case, attack):
    sample = case()
    objective = Recorder(cross_entropy_at(sample.graph, sample.y))
    region = sample.region(0.1)
    found = attack(objective, region, sample.x, generator())
    best = torch.cat(objective.values).amax(0)
    torch.testing.assert_close(objective.objective(found[None])[0].detach(), best, rtol=1e-12, atol=1e-12)
    assert all((points >= region.lower - 1e-15).all() for points in objective.points)
    assert all((points <= region.upper + 1e-15).all() for points in objective.points)


def test_a_generator_decides_everything(case, attack):
    sample = case()
    objective = cross_entropy_at(sample.graph.detach(), sample.y)
    first, second = (attack(objective, sample.region(0.1), sample.x, generator()) for _ in range(2))
    assert torch.equal(first, second)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    attack(objective, sample.region(0.1), sample.x, generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_region_of_one_point_leaves_that_point(case, attack):
    sample = case()
    found = attack(cross_entropy_at(sample.graph, sample.y), sample.region(0.0), sample.x, generator())
    assert torch.equal(found, sample.x)


def test_a_linear_objective_is_maximised_exactly(attack):
    lower = torch.tensor([[0.0, 0.2, 0.5], [0.1, 0.0, 0.3]]).double()
    region = Box(lower, lower + torch.tensor([0.2, 0.4, 0.0]).double())
    direction = torch.tensor([[1.0, -2.0, 3.0], [-0.5, 1.0, 1.0]]).double()
    found = attack(lambda points: (points * direction).sum(-1), region, region.center, generator())
    torch.testing.assert_close(found, torch.where(direction > 0, region.upper, region.lower), rtol=0, atol=1e-12)


def test_it_raises_the_loss_of_a_network(case, attack):
    sample = case()
    objective = cross_entropy_at(sample.graph.detach(), sample.y)
    region = sample.region(0.1)
    found = attack(objective, region, sample.x, generator())
    random = objective(region.sample(20, generator())).amax(0)
    assert (objective(found[None])[0] > random).all()


def test_samples_do_not_influence_one_another(attack):
    direction = torch.tensor([[1.0, -2.0], [-0.5, 1.0]]).double()
    region = Box(torch.zeros(2, 2).double(), torch.ones(2, 2).double())

    def objective(scale: float):
        factors = torch.tensor([1.0, scale]).double()
        return lambda points: -((points - 0.3) * direction).square().sum(-1) * factors

    one = attack(objective(1.0), region, region.center, generator())
    other = attack(objective(-3.0), region, region.center, generator())
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])

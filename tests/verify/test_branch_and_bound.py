"""Branch and bound decides what an exact solver decides, and certifies nothing else."""

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from ctbench.domains import crown
from ctbench.graph import freeze, trace
from ctbench.regions import L2, Linf
from ctbench.verify.branch_and_bound import BranchAndBound
from ctbench.verify.milp import worst_case
from ctbench.verify.problem import Findings, Problem

GENERATOR = torch.Generator()


class Skip(nn.Module):
    """A residual block of vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.inner(x))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))


def conv() -> nn.Module:
    layers = [nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)]
    return nn.Sequential(*layers)


def residual() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), Skip(6), nn.Linear(6, 3))


def problem(build, seed: int, eps: float, *, samples: int = 5, threat=Linf) -> Problem:
    torch.manual_seed(seed)
    model = build().double()
    for parameter in model.parameters():
        parameter.data *= 1.7
    x = torch.rand(samples, 4, dtype=torch.float64)
    graph = freeze(trace(model, (4,)), x)[0].detach()
    return Problem.of_labels(graph, x, graph(x).argmax(1), threat(eps=eps))


def decided(given: Problem, seconds: float) -> Findings:
    given = replace(given, seconds=torch.full((len(given),), seconds))
    return BranchAndBound()(given, GENERATOR)


@pytest.mark.parametrize("build", [mlp, conv, residual])
@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_it_decides_as_an_exact_solver(build, seed):
    given = problem(build, seed, eps=0.15)
    found = decided(given, 20.0)
    reached = given.margins(found.witness).amin(1)
    inner = crown.boxes(given.net, given.region)
    for index in range(len(given)):
        one = torch.tensor([index])
        exact = worst_case(
            given.net,
            given.region.take(one),
            int(given.net(given.x)[index].argmax()),
            [box.take(one) for box in inner],
            timeout=30.0,
        )
        assert exact.upper - exact.lower < 1e-5
        assert found.bound[index] <= exact.upper + 1e-9
        assert (found.bound[index] > 0) == (exact.lower > 0) or abs(exact.lower) < 1e-3
        assert (reached[index] < 0) == (exact.upper < 0) or abs(exact.upper) < 1e-3


@torch.no_grad()
def test_a_sample_without_time_is_not_certified_by_what_was_closed_before():
    given = problem(mlp, 0, eps=0.4, samples=30)
    found = decided(given, 20.0)
    hurried = decided(given, 0.0)
    assert not ((hurried.bound > 0) & ~(found.bound > 0)).any()
    assert (found.bound > 0).sum() > (hurried.bound > 0).sum()


@torch.no_grad()
def test_time_is_kept():
    start = time.perf_counter()
    decided(problem(mlp, 0, eps=0.5, samples=10), 0.05)
    assert time.perf_counter() - start < 10


@torch.no_grad()
def test_a_network_with_nan_certifies_nothing():
    given = problem(mlp, 0, eps=0.01)
    broken = given.net.map(lambda tensor: torch.full_like(tensor, torch.nan) if tensor.shape == (10, 4) else tensor)
    found = decided(replace(given, net=broken), 1.0)
    assert not (found.bound > 0).any()


@torch.no_grad()
def test_a_network_without_activations_is_bounded_once():
    given = problem(lambda: nn.Linear(4, 3), 0, eps=0.1)
    found = BranchAndBound()(given, GENERATOR)
    exact = crown.lower_bounds(given.net, given.region, given.spec).amin(1)
    torch.testing.assert_close(found.bound, exact)


@torch.no_grad()
def test_points_outside_a_round_region_falsify_nothing():
    given = problem(mlp, 2, eps=0.3, samples=20, threat=L2)
    found = decided(given, 5.0)
    torch.testing.assert_close(given.region.project(found.witness), found.witness)

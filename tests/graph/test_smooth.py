"""The search for points at which a line touches a smooth function: how much it evaluates, and what it withstands."""

import math

import pytest
import torch
from torch import Tensor

from ctbench.graph.ops import GELU, Mish, Sigmoid, SiLU, TanhGELU
from ctbench.graph.ops.smooth import Smooth

SEARCHED = [GELU(), SiLU(), Mish(), TanhGELU()]
every_search = pytest.mark.parametrize("op", SEARCHED, ids=str)


def boxes(width: float) -> tuple[Tensor, Tensor]:
    """Intervals up to this width around points near 0 and far from it, [N]."""
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(300, generator=generator, dtype=torch.float64) * torch.tensor([0.5, 2.0, 8.0]).repeat(100)
    half = width / 2 * torch.rand(300, generator=generator, dtype=torch.float64)
    return center - half, center + half


def slopes_between(op: Smooth, lower: Tensor, upper: Tensor) -> Tensor:
    least, greatest = op.slopes(lower, upper)
    return least + torch.rand(300, generator=torch.Generator().manual_seed(1)) * (greatest - least)


@every_search
def test_the_curvature_is_the_derivative_of_the_derivative(op):
    x = torch.linspace(-9, 9, 201, dtype=torch.float64, requires_grad=True)
    (exact,) = torch.autograd.grad(op.derivative(x).sum(), x)
    torch.testing.assert_close(op.curvature(x.detach()), exact, rtol=1e-9, atol=1e-12)
    assert torch.equal(Smooth.curvature(op, x.detach()), exact)  # what a function without a formula has


@every_search
@pytest.mark.parametrize(("width", "most"), [(0.1, 10), (3.0, 15), (60.0, 18)])
def test_a_search_evaluates_the_derivative_a_few_times(op, width, most, monkeypatch):
    calls, derivative = [], type(op).derivative
    monkeypatch.setattr(type(op), "derivative", lambda self, x: calls.append(x) or derivative(self, x))
    lower, upper = boxes(width)
    slope = slopes_between(op, lower, upper)
    calls.clear()
    op.stationary(lower, upper, slope)
    assert len(calls) <= most


@pytest.mark.parametrize("op", [*SEARCHED, Sigmoid()], ids=str)
@pytest.mark.parametrize("width", [0.1, 3.0, 60.0])
def test_the_tightest_lines_are_found_in_a_few_steps(op, width, monkeypatch):
    calls, touching = [], type(op).touching
    monkeypatch.setattr(type(op), "touching", lambda self, *args: calls.append(args) or touching(self, *args))
    op.tightest(*boxes(width))
    assert 2 <= len(calls) <= 9


class Straight(GELU):
    """A function whose curvature leads nowhere."""

    useless = 0.0

    def curvature(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.useless)


@pytest.mark.parametrize("useless", [0.0, math.nan, 1e-30, -1e-3, 1e9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_wrong_curvature_costs_steps_but_changes_no_bound(useless, dtype, monkeypatch):
    lower, upper = (end.to(dtype) for end in boxes(5.0))
    slope = slopes_between(GELU(), lower, upper).to(dtype)
    expected = GELU().extremes(lower, upper, slope)
    monkeypatch.setattr(Straight, "useless", useless)
    for found, right in zip(Straight().extremes(lower, upper, slope), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=64 * torch.finfo(dtype).eps)


@every_search
def test_stationary_points_are_the_places_with_this_slope(op):
    lower, upper = boxes(3.0)
    slope = slopes_between(op, lower, upper)
    for branch, point in enumerate(op.stationary(lower, upper, slope)):
        places = (-op.tails, *op.inflections, op.tails)
        begin, end = (torch.minimum(upper, lower.clamp(min=place)) for place in places[branch : branch + 2])
        assert ((begin <= point) & (point <= end)).all()
        there = (op.derivative(begin) < slope) != (op.derivative(end) < slope)
        assert there.any()
        assert ((op.derivative(point) - slope).abs() <= 20 * 2.0**-52)[there].all()

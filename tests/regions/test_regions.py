"""Regions and threat models, against enumeration."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctbench.regions import Box, Linf


def box(batch: int = 3, *shape: int, seed: int = 0) -> Box:
    generator = torch.Generator().manual_seed(seed)
    lower = torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
    return Box(lower, lower + torch.rand(batch, *shape, generator=generator, dtype=torch.float64))


def corners(region: Box) -> torch.Tensor:
    """All corners of boxes over four coordinates, [16, B, 2, 2]."""
    choices = torch.tensor(list(product([False, True], repeat=4))).view(16, 1, 2, 2)
    return torch.where(choices, region.upper, region.lower)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_the_minimum_is_the_least_value_at_a_corner(seed):
    region = box(3, 2, 2, seed=seed)
    a = torch.randn(3, 5, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    values = torch.einsum("bsij,nbij->nbs", a, corners(region))
    torch.testing.assert_close(region.minimum(a), values.amin(0), rtol=1e-12, atol=1e-12)


def test_projection_gives_the_nearest_point():
    region = Box(torch.tensor([[0.0, 0.2]]), torch.tensor([[1.0, 0.4]]))
    points = torch.tensor([[[-1.0, 0.3]], [[0.5, 0.9]], [[2.0, 0.1]]])
    assert torch.equal(region.project(points), torch.tensor([[[0.0, 0.3]], [[0.5, 0.4]], [[1.0, 0.2]]]))


def test_samples_fill_the_region():
    region = box(2, 3)
    points = region.sample(4000, torch.Generator().manual_seed(0))
    assert points.shape == (4000, 2, 3)
    assert (points >= region.lower).all()
    assert (points <= region.upper).all()
    share = (points - region.lower) / (region.upper - region.lower)
    torch.testing.assert_close(share.mean(0), torch.full((2, 3), 0.5).double(), rtol=0, atol=0.03)
    torch.testing.assert_close(share.var(0), torch.full((2, 3), 1 / 12).double(), rtol=0, atol=0.01)


def test_samples_follow_their_generator():
    region = box(2, 3)
    first, second = (region.sample(4, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, region.sample(4, torch.Generator().manual_seed(4)))


def test_ascent_moves_by_a_share_of_each_radius_and_stays_inside():
    region = Box(torch.tensor([[0.0, 0.0, 0.0, 0.0]]), torch.tensor([[2.0, 0.2, 1.0, 1.0]]))
    x = torch.tensor([[1.0, 0.1, 0.9, 0.5]])
    gradient = torch.tensor([[7.0, -0.01, 3.0, 0.0]])
    torch.testing.assert_close(region.ascend(x, gradient, 0.5), torch.tensor([[1.5, 0.05, 1.0, 0.5]]))


def test_center_radius_hull():
    region = Box(torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0, 0.5]]))
    assert region.center.tolist() == [[0.5, 0.5]]
    assert region.radius.tolist() == [[0.5, 0.0]]
    assert region.hull is region


def test_intersection():
    both = Box(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]])).intersect(
        Box(torch.tensor([[0.5, -1.0]]), torch.tensor([[2.0, 0.5]]))
    )
    assert both.lower.tolist() == [[0.5, 0.0]]
    assert both.upper.tolist() == [[1.0, 0.5]]


def test_another_precision():
    region = box(2, 3).to(torch.float32)
    assert region.lower.dtype == region.upper.dtype == torch.float32


def test_linf_is_a_box_of_that_radius_within_the_data_range():
    region = Linf(eps=0.2).region(torch.tensor([[0.1, 0.5, 1.0]]))
    torch.testing.assert_close(region.lower, torch.tensor([[0.0, 0.3, 0.8]]))
    torch.testing.assert_close(region.upper, torch.tensor([[0.3, 0.7, 1.0]]))


def test_linf_with_another_range_or_none():
    x = torch.tensor([[-0.9, 0.0]])
    region = Linf(eps=0.5, clip=(-1, 1)).region(x)
    torch.testing.assert_close(region.lower, torch.tensor([[-1.0, -0.5]]))
    torch.testing.assert_close(region.upper, torch.tensor([[-0.4, 0.5]]))
    open_region = Linf(eps=5, clip=None).region(x)
    torch.testing.assert_close(open_region.lower, torch.tensor([[-5.9, -5.0]]))
    torch.testing.assert_close(open_region.upper, torch.tensor([[4.1, 5.0]]))


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf])
def test_a_radius_must_be_a_number_above_zero(eps):
    with pytest.raises(ValueError, match=f"eps is {eps}: a radius must be a number >= 0"):
        Linf(eps=eps)
    with pytest.raises(ValueError, match="a radius must be a number >= 0"):
        Linf(eps=eps, clip=None)


def test_a_radius_in_units_of_255_is_recognised():
    with pytest.raises(ValueError, match=r"eps is 8, wider than the data range \[0, 1\]: .*8/255 is 0.0314, not 8"):
        Linf(eps=8)
    assert Linf(eps=1.0).eps == 1.0
    assert Linf(eps=1.5, clip=(-1, 1)).eps == 1.5


def test_a_range_must_be_one():
    with pytest.raises(ValueError, match=r"clip is \(1, 0\)"):
        Linf(eps=0.1, clip=(1, 0))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("clip", [(0.0, 1.0), None])
def test_inputs_must_be_finite(value, clip):
    with pytest.raises(ValueError, match="NaN or infinite"):
        Linf(eps=0.1, clip=clip).check(torch.tensor([[0.5, value]]))


@pytest.mark.parametrize(("x", "seen"), [([-0.1, 0.5], r"\[-0\.1, 0\.5\]"), ([0.0, 255.0], r"\[0, 255\]")])
def test_inputs_must_lie_in_the_data_range(x, seen):
    with pytest.raises(ValueError, match=rf"inputs lie in {seen} but the data range is \[0, 1\]: give raw pixels"):
        Linf(eps=0.1).check(torch.tensor([x]))


def test_inputs_that_fit_are_accepted():
    Linf(eps=0.1).check(torch.tensor([[0.0, 1.0]]))
    Linf(eps=0.1).check(torch.empty(0, 2))
    Linf(eps=0.1, clip=None).check(torch.tensor([[-7.0, 9.0]]))
    Linf(eps=0.1, clip=(-1, 1)).check(torch.tensor([[-1.0, 1.0]]))


def test_searches_start_around_the_input_not_around_the_middle_of_a_clipped_region():
    x = torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.float64)
    points = Linf(eps=0.1).region(x).start(x, 4000, torch.Generator().manual_seed(0))
    assert points.shape == (4000, 1, 3)
    at_the_edge = (points == x).double().mean(0)[0]
    assert at_the_edge[0] == pytest.approx(0.5, abs=0.03)
    assert at_the_edge[1] == 0
    assert at_the_edge[2] == pytest.approx(0.5, abs=0.03)
    assert points[..., 0].max() <= 0.05  # half the width of the region that is left
    assert points[..., 1].min() < 0.41
    assert points[..., 1].max() > 0.59

"""The closed form of the growth of boxes through a ReLU, against samples, differences, and the example of the paper."""

import math

import pytest
import torch

from ctbench.analyses.relu_growth import (
    Normal,
    TwoSteps,
    curvature,
    growth,
    mean_radius,
    sampled_mean_radius,
    tangent,
    two_steps_mean_radius,
)

FIGURE_4 = Normal(mean=-1.0, deviation=0.5)
CENTRES = [FIGURE_4, Normal(mean=0.7, deviation=2.0), TwoSteps(a=0.8, b=0.2), TwoSteps(a=0.0, b=1.0)]
RADII = [0.1, 0.5, 0.9, 2.0, 3.0]


@pytest.mark.parametrize("centres", CENTRES)
@pytest.mark.parametrize("radius", RADII)
def test_it_is_the_mean_over_samples(centres, radius):
    points = centres.sample(200_000, torch.Generator().manual_seed(0))
    assert mean_radius(centres, radius) == pytest.approx(sampled_mean_radius(points, radius), abs=6e-3 * radius)


@pytest.mark.parametrize("centres", CENTRES)
@pytest.mark.parametrize("radius", RADII)
def test_the_derivatives_are_differences(centres, radius):
    h = 1e-4
    below, here, above = (mean_radius(centres, radius + sign * h) for sign in (-1, 0, 1))
    assert growth(centres, radius) == pytest.approx((above - below) / (2 * h), abs=1e-6)
    edge = isinstance(centres, TwoSteps) and abs(radius - centres.reach) < 2 * h
    if not edge:
        assert curvature(centres, radius) == pytest.approx((above - 2 * here + below) / h**2, abs=1e-4)


def test_more_centres_below_0_make_it_super_linear():
    radii = [0.1 * k for k in range(1, 31)]
    slopes = [growth(FIGURE_4, radius) for radius in radii]
    assert slopes == sorted(slopes)
    assert all(mean_radius(FIGURE_4, radius) > tangent(FIGURE_4, radius) for radius in radii)
    ratios = [mean_radius(FIGURE_4, radius) / radius for radius in radii]
    assert ratios == sorted(ratios)
    assert growth(FIGURE_4, 0.0) == pytest.approx(1 - FIGURE_4.below(0)) == tangent(FIGURE_4, 1.0)
    assert growth(FIGURE_4, 100.0) == 0.5


@pytest.mark.parametrize("centres", [Normal(mean=0.0, deviation=0.3), TwoSteps(a=2.0, b=2.0)])
@pytest.mark.parametrize("radius", RADII)
def test_of_symmetric_centres_it_is_half_the_radius(centres, radius):
    assert mean_radius(centres, radius) == pytest.approx(radius / 2)
    assert growth(centres, radius) == pytest.approx(0.5)


@pytest.mark.parametrize(("a", "b"), [(0.8, 0.2), (0.5, 0.5), (0.1, 1.4)])
def test_the_example_of_the_paper(a, b):
    for share in (0.1, 0.5, 1.0):
        radius = share / (a + b)
        assert mean_radius(TwoSteps(a=a, b=b), radius) == pytest.approx(two_steps_mean_radius(a, b, radius))


@pytest.mark.parametrize("centres", CENTRES)
def test_densities_and_moments_fit_the_distribution(centres):
    grid = [-4 + k * 0.001 for k in range(8001)]
    mass = math.fsum(centres.density(z) * 0.001 for z in grid if -0.7 < z < 1.3)
    moment = math.fsum(z * centres.density(z) * 0.001 for z in grid if -0.7 < z < 1.3)
    assert centres.within(-0.7, 1.3) == pytest.approx(mass, abs=3e-3)
    assert centres.first_moment(-0.7, 1.3) == pytest.approx(moment, abs=3e-3)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="the deviation > 0"):
        Normal(mean=0.0, deviation=0.0)
    with pytest.raises(ValueError, match="give densities >= 0"):
        TwoSteps(a=-1.0, b=2.0)
    for function in (mean_radius, growth, curvature, tangent):
        with pytest.raises(ValueError, match="radius is -1"):
            function(FIGURE_4, -1.0)

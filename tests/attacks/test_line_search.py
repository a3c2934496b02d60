"""The line search sees every segment, both ends, and the peak between the points of a grid."""

import math

import pytest
import torch
from torch import Tensor

from ctbench.attacks import LineSearch
from ctbench.attacks.line_search import segments
from ctbench.regions import L1, L2, FirstCoordinate, Linf, RandomSegments, Segments, linf_box

X = torch.tensor([[[0.5, -1.0], [0.25, 2.0]], [[0.0, 1.0], [3.0, 0.125]]]).double()  # [2, 2, 2]
AXES = torch.eye(4).double().view(4, 2, 2)


def test_both_directions_of_the_signal_are_tried():
    sign = torch.tensor([1.0, -1.0]).double()
    worst = LineSearch()(lambda points: sign * points[..., 0, 0], FirstCoordinate(eps=3.0).region(X), X)
    expected = X.clone()
    expected[:, 0, 0] += 3 * sign
    assert torch.equal(worst, expected)


def test_the_best_segment_is_found_sample_by_sample():
    slopes = torch.tensor([[[1.0, -3.0], [2.0, 0.0]], [[0.0, 1.0], [1.5, -1.0]]]).double()
    region = Segments(eps=0.5, directions=AXES).region(X)
    worst = LineSearch()(lambda points: (slopes * points).flatten(2).sum(-1), region, X)
    expected = X.clone()
    expected[0, 0, 1] -= 0.5
    expected[1, 1, 0] += 0.5
    assert torch.equal(worst, expected)


@pytest.mark.parametrize("refinements", [0, 1, 3])
def test_a_peak_between_the_points_of_the_grid_is_found(refinements):
    peak = torch.tensor([0.1234567, -0.7654321]).double()  # in shares of the radius
    attack = LineSearch(points=11, refinements=refinements)
    region = FirstCoordinate(eps=2.0).region(X)

    def objective(points: Tensor) -> Tensor:
        beyond = (points - X)[..., 0, 0] / 2 - peak
        return torch.where(beyond < 0, beyond, -100 * beyond)  # the best point of a grid need not be the nearest

    worst = attack(objective, region, X)
    assert (((worst - X)[:, 0, 0] / 2 - peak).abs() <= 0.2 ** (1 + refinements)).all()


def test_a_narrow_peak_beside_a_wide_one_is_found():
    """A gradient would lead to the wide one from almost everywhere."""

    def objective(points: Tensor) -> Tensor:
        share = (points - X)[..., 0, 0]
        return torch.exp(-(share.square())) + 2 * torch.exp(-((share - 0.83) * 50).square())

    worst = LineSearch()(objective, FirstCoordinate(eps=1.0).region(X), X)
    assert (worst - X)[:, 0, 0].tolist() == pytest.approx([0.83, 0.83], abs=1e-3)


def test_how_often_it_asks():
    asked = []

    def objective(points: Tensor) -> Tensor:
        asked.append((tuple(points.shape), torch.is_grad_enabled()))
        return points.flatten(2).sum(-1)

    LineSearch(points=5, refinements=2)(objective, RandomSegments(eps=0.5, count=3).region(X), X)
    assert asked == [((5, 2, 2, 2), False)] * (3 + 2)


def test_all_points_lie_in_the_region():
    region = RandomSegments(eps=0.5, count=3).region(X)

    def objective(points: Tensor) -> Tensor:
        torch.testing.assert_close(region.project(points), points, rtol=0, atol=1e-14)
        return points.flatten(2).square().sum(-1)

    worst = LineSearch()(objective, region, X)
    torch.testing.assert_close(region.project(worst), worst, rtol=0, atol=1e-14)
    inner = ((worst - X).flatten(1) @ region.directions.flatten(1).T).abs()
    assert ((inner > 1e-9).sum(1) == 1).all()


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.1), L1(eps=0.1)])
def test_a_ball_of_one_dimension_is_a_segment(threat):
    x = torch.linspace(0, 1, 101, dtype=torch.float64).unsqueeze(1)
    region = threat.region(x)
    worst = LineSearch()(lambda points: points[..., 0], region, x)
    torch.testing.assert_close(worst, (x + 0.1).clamp(max=1), rtol=0, atol=1e-12)
    assert torch.equal(region.project(worst), worst)


def test_a_box_with_one_moving_coordinate_is_a_segment():
    x = torch.tensor([[0.5, 0.2], [0.9, 0.4]]).double()
    region = linf_box(x, torch.tensor([0.25, 0.0]).double())
    worst = LineSearch()(lambda points: -points.sum(-1), region, x)
    torch.testing.assert_close(worst, region.lower, rtol=0, atol=1e-12)


@pytest.mark.parametrize("threat", [Linf(eps=0.25), L2(eps=0.25), L1(eps=0.25)])
def test_a_region_without_segments_is_refused(threat):
    x = torch.rand(2, 1, 2, 2)
    with pytest.raises(ValueError, match=r"in which 4 coordinates move at once: a line search needs segments"):
        LineSearch()(lambda points: points.sum(-1), threat.region(x), x)


def test_the_segments_of_a_star():
    center, arms = segments(Segments(eps=0.5, directions=AXES[:3]).region(X))
    assert torch.equal(center, X)
    assert torch.equal(arms, 0.5 * AXES[:3, None].expand(3, 2, 2, 2))


def test_nan_is_never_better():
    def objective(points: Tensor) -> Tensor:
        share = (points - X)[..., 0, 0]
        return torch.where(share > 0.5, math.nan, share)

    worst = LineSearch()(objective, FirstCoordinate(eps=1.0).region(X), X)
    assert (worst - X)[:, 0, 0].tolist() == pytest.approx([0.5, 0.5], abs=1e-5)


@pytest.mark.parametrize("fields", [{"points": 2}, {"refinements": -1}])
def test_impossible_numbers_are_refused(fields):
    with pytest.raises(ValueError, match="points >= 3 and refinements >= 0"):
        LineSearch(**fields)

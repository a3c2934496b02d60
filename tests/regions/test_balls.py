"""Balls of the l1 and the l2 norm: the support function against its dual, moves and samples against closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ctbench.regions import L1, L2, L1Ball, L2Ball, Linf


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def greatest(dual) -> float:
    """The maximum over [0, oo) of a concave function of one number, by golden steps on a scale that is halved."""
    low, high = 0.0, 1e4
    for _ in range(400):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if dual(left) < dual(right):
            low = left
        else:
            high = right
    return dual((low + high) / 2)


def reference(threat: L1 | L2, x: Tensor, a: Tensor) -> float:
    """The maximum of the Lagrangian dual, whose inner minimum is looked for among the points where it can be."""
    low, high = threat.clip

    def dual(multiplier: float) -> float:
        total = 0.0
        for c, slope in zip(x.tolist(), a.tolist(), strict=True):
            if isinstance(threat, L1):
                candidates, order = (low, c, high), 1
            else:
                still = c - slope / (2 * multiplier) if multiplier else math.copysign(math.inf, -slope)
                candidates, order = (min(max(still, low), high),), 2
            total += min(slope * p + multiplier * abs(p - c) ** order for p in candidates)
        return total - multiplier * threat.eps**order

    return greatest(dual)


def test_without_a_look_at_values_a_ball_is_the_same(monkeypatch):
    x, a = torch.rand(40, 50, dtype=torch.float64), torch.randn(40, 3, 50, dtype=torch.float64) ** 5
    region, far = L2(eps=2.0).region(x), x + torch.randn(40, 50, dtype=torch.float64) ** 5
    projected, least = region.project(far), region.minimum(a)
    monkeypatch.setattr("ctbench.waiting.is_free", lambda tensor: False)
    monkeypatch.setattr(torch, "equal", None)
    assert (region.project(far) == projected).all()
    assert (region.minimum(a) == least).all()
    monkeypatch.setattr("ctbench.regions.l2.ROUNDS", 1)  # a bound stays one, and is looser
    assert (region.minimum(a) <= least + 1e-12).all()
    assert (region.minimum(a) < least - 1e-3).any()


@pytest.mark.parametrize("kind", [L1, L2])
@settings(deadline=None, derandomize=True, max_examples=40)
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.01, 0.2, 0.7, 1.1, 1.6, 4.0]))
def test_the_minimum_over_a_ball_in_the_data_range_is_exact(kind, seed, eps):
    x = (2 * torch.rand(1, 5, generator=generator(seed), dtype=torch.float64) - 0.5).clamp(0, 1)
    a = torch.randn(1, 1, 5, generator=generator(seed + 1), dtype=torch.float64)
    threat = kind(eps=eps)
    assert threat.region(x).minimum(a).item() == pytest.approx(reference(threat, x[0], a[0, 0]), abs=1e-9)


def test_closed_forms_without_a_data_range():
    x, a = torch.tensor([[0.5, -1.0]]).double(), torch.tensor([[[3.0, -4.0], [0.0, 0.0]]]).double()
    assert L2(eps=0.5, clip=None).region(x).minimum(a).tolist() == [[5.5 - 0.5 * 5, 0.0]]
    assert L1(eps=0.5, clip=None).region(x).minimum(a).tolist() == [[5.5 - 0.5 * 4, 0.0]]


def test_a_data_range_far_away_changes_nothing():
    x, a = torch.rand(4, 6).double(), torch.randn(4, 5, 6).double()
    far = x + torch.randn(4, 6).double()
    for kind in (L1, L2):
        wide, none = kind(eps=0.7, clip=(-50, 50)).region(x), kind(eps=0.7, clip=None).region(x)
        torch.testing.assert_close(wide.minimum(a), none.minimum(a), rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(wide.project(far), none.project(far), rtol=1e-13, atol=1e-13)


def test_a_ball_wider_than_the_data_range_is_the_whole_range():
    x, a = torch.rand(2, 4).double(), torch.randn(2, 3, 4).double()
    everything = Linf(eps=1.0).region(x)
    for threat in (L2(eps=2.0), L1(eps=4.0)):
        torch.testing.assert_close(threat.region(x).minimum(a), everything.minimum(a), rtol=1e-14, atol=1e-14)


def test_projections_by_hand():
    x = torch.tensor([[0.5, 0.5]]).double()
    torch.testing.assert_close(L2(eps=0.25).region(x).project(x + torch.tensor([3.0, 4.0])), x + x.new([0.15, 0.2]))
    torch.testing.assert_close(L1(eps=0.25).region(x).project(x + torch.tensor([0.3, 0.2])), x + x.new([0.175, 0.075]))
    torch.testing.assert_close(L1(eps=0.25).region(x).project(x + torch.tensor([0.5, -0.1])), x + x.new([0.25, 0.0]))
    edge = torch.tensor([[0.9, 0.5]]).double()  # the first coordinate has room for 0.1 only
    torch.testing.assert_close(L2(eps=0.26).region(edge).project(edge + 9), torch.tensor([[1.0, 0.74]]).double())
    torch.testing.assert_close(L1(eps=0.3).region(edge).project(edge + 9), torch.tensor([[1.0, 0.7]]).double())


def test_an_l2_step_is_along_the_gradient():
    x = torch.full((1, 2), 0.5).double()
    moved = L2(eps=0.5).region(x).ascend(x, torch.tensor([[3e-30, -4e-30]]).double(), 0.2)
    torch.testing.assert_close(moved - x, torch.tensor([[0.06, -0.08]]).double())


def test_an_l1_step_is_shared_by_the_largest_coordinates_that_can_move():
    x = torch.full((1, 200), 0.5).double()
    x[0, :3] = torch.tensor([1.0, 0.0, 0.0])
    gradient = torch.linspace(-0.5, 0.5, 200).double().unsqueeze(0)
    gradient[0, :5] = torch.tensor([9.0, -8.0, 7.0, -6.0, 5.0])  # the first two are at the edge already
    move = L1(eps=0.4).region(x).ascend(x, gradient, 0.5) - x
    assert move.nonzero()[:, 1].tolist() == [2, 3]  # 1% of 200
    torch.testing.assert_close(move[0, 2:4], torch.tensor([0.1, -0.1]).double())
    tied = L1(eps=0.4).region(x).ascend(x, torch.ones_like(x), 0.5) - x
    assert (tied > 0).sum() == 199
    assert tied.sum().item() == pytest.approx(0.2)


@pytest.mark.parametrize("kind", [L1, L2])
def test_samples_are_uniform_in_the_ball(kind):
    x = torch.full((1, 3), 0.5).double()
    points = kind(eps=0.4).region(x).sample(20_000, generator(0)) - x
    length = points.norm(p=1 if kind is L1 else 2, dim=-1) / 0.4
    assert (length**3).mean().item() == pytest.approx(0.5, abs=0.01)  # the volume within is uniform
    assert (length**3).var().item() == pytest.approx(1 / 12, abs=0.005)
    assert points.mean(0).abs().max() < 0.005
    # a coordinate's second moment in the ball of radius 1 is 1/5 in l2 and 2/20 in l1, for n = 3
    expected = 0.4**2 * (0.1 if kind is L1 else 0.2)
    torch.testing.assert_close(points.square().mean(0), torch.full((1, 3), expected).double(), rtol=0.05, atol=0)


def test_searches_start_around_the_input_they_are_given():
    x = torch.full((1, 4), 0.5)
    region, other = L2(eps=0.4).region(x), x + torch.tensor([0.4, 0.0, 0.0, 0.0])
    near, across = region.start(other, 500, generator(0)).mean(0)[0], region.start(x, 500, generator(0)).mean(0)[0]
    assert near[0] > 0.65
    assert across[0] == pytest.approx(0.5, abs=0.05)


def test_threats_make_their_balls_in_the_data_range_by_default():
    x = torch.rand(2, 3)
    for kind, ball in ((L2, L2Ball), (L1, L1Ball)):
        region = kind(eps=2.5).region(x)  # wider than one pixel's range: that is no mistake in these norms
        assert type(region) is ball
        assert region.center is x
        assert (region.radius, region.clip) == (2.5, (0.0, 1.0))
        assert kind(eps=2.5, clip=None).region(x).clip is None
        with pytest.raises(ValueError, match="eps is -1: a radius must be a number >= 0"):
            kind(eps=-1)
        with pytest.raises(ValueError, match=r"clip is \(1, 0\)"):
            kind(eps=0.1, clip=(1, 0))


def test_gradients_pass_through_a_projection():
    x = torch.full((1, 3), 0.5).double()
    far = (x + torch.tensor([0.3, -0.9, 0.2])).requires_grad_()
    for kind in (L1, L2):
        assert torch.autograd.gradcheck(kind(eps=0.4, clip=None).region(x).project, far)


def test_one_coordinate_that_takes_all_of_the_radius_leaves_the_others_their_rounding():
    ball = L2Ball(torch.tensor([[0.5, 0.5]]), 0.3, (0.0, 1.0))
    assert ball.minimum(torch.tensor([[[1.0, 2e-4]]])).item() == pytest.approx(0.2001, abs=1e-5)
    wide = L2Ball(torch.tensor([[0.5, 0.5]]), 0.5, (0.0, 1.0))
    assert wide.project(torch.tensor([[2.0, 0.5 + 1e-5]]))[0, 0].item() == pytest.approx(1.0, abs=1e-5)

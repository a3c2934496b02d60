"""Auto-PGD follows the algorithm of the paper, step by step, separately for each search."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from ctbench.attacks import APGD, PGD
from ctbench.regions import L2, Box, FirstCoordinate

BOX = Box(torch.full((3, 2), -1.0).double(), torch.tensor([1.0, 3.0]).double().expand(3, 2))


class Fixed(Box):
    """A box whose attacks start at its lower corner."""

    def start(self, x, count, generator=None):
        return self.lower[None]


def test_the_checkpoints_of_a_hundred_steps():
    assert APGD().checkpoints() == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("steps", [0, 1, 3, 10, 50, 250, 1000])
def test_checkpoints_follow_the_recursion(steps):
    shares = [Fraction(0), Fraction(22, 100)]
    while shares[-1] <= 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - Fraction(3, 100), Fraction(6, 100)))
    assert APGD(steps=steps).checkpoints() == sorted({math.ceil(share * steps) for share in shares[1:-1]})


def by_hand(start: float, value, slope, *, steps: int, low: float, high: float) -> tuple[list[float], list[int]]:
    """Algorithm 1 in one dimension: the points that it asks about, and the steps after which it halves."""

    def project(point: float) -> float:
        return min(max(point, low), high)

    attack, radius = APGD(steps=steps), (high - low) / 2
    asked, halved = [start], []
    last = here = best = start
    size, rises, since = 2.0, 0, 0
    size_checked, best_checked = size, value(best)
    for step in range(1, steps + 1):
        z = project(here + size * radius * math.copysign(1, slope(here)))
        new = z if step == 1 else project(here + 0.75 * (z - here) + 0.25 * (here - last))
        asked.append(new)
        rises += value(new) > value(here)
        last, here = here, new
        best = new if value(new) > value(best) else best
        if step in attack.checkpoints():
            size_before = size
            if rises < 0.75 * (step - since) or (size == size_checked and value(best) == best_checked):
                size, here = size / 2, best
                halved.append(step)
            size_checked, best_checked, rises, since = size_before, value(best), 0, step
    return asked, halved


@pytest.mark.parametrize(
    ("low", "high", "start", "value", "slope"),
    [
        (-1.0, 3.0, -0.8, lambda t: -((t - 0.37) ** 2), lambda t: -2 * (t - 0.37)),
        (-1.0, 3.0, 2.9, lambda t: math.sin(5 * t), lambda t: 5 * math.cos(5 * t)),
        (-1.0, 1.0, 0.1, lambda t: t**3, lambda t: 3 * t**2),  # (2) also holds alone: at the edge nothing improves
    ],
)
def test_it_is_the_algorithm_of_the_paper(low, high, start, value, slope):
    asked = []

    class Fixed(Box):
        def start(self, x, count, generator=None):
            return torch.full((count, 1, 1), start, dtype=torch.float64)

    def objective(points: Tensor) -> Tensor:
        asked.append(points.item())
        # the value and the slope of the plain functions, so that no rounding tells the two apart
        exact = torch.tensor(value(points.item()), dtype=torch.float64)
        return (exact + slope(points.item()) * (points - points.detach())).view(1, 1)

    region = Fixed(torch.tensor([[low]]).double(), torch.tensor([[high]]).double())
    worst = APGD(steps=100)(objective, region, region.center)
    expected, halved = by_hand(start, value, slope, steps=100, low=low, high=high)
    assert asked == pytest.approx(expected, rel=0, abs=1e-14)
    assert halved
    assert worst.item() == max(asked, key=value)


def test_rising_without_a_new_best_halves_every_other_time():
    """Condition (2) alone: values rise all the time but stay below the first, and a halving keeps it away once."""
    asked = []

    def objective(points: Tensor) -> Tensor:
        asked.append(points.item())
        return (points - points.detach()).view(1, 1) + (len(asked) if len(asked) > 1 else 1000)

    region = Fixed(torch.tensor([[-1.0]]).double(), torch.tensor([[1.0]]).double())
    assert APGD()(objective, region, region.center).item() == -1
    back = [step for step in APGD().checkpoints() if asked[step + 1] < asked[step]]
    assert back == [22, 57, 80, 93]
    # from the best point, -1, with half the step, and a quarter of the way from the last point, 1
    assert asked[23] == -1 + 0.75 * 1 + 0.25 * (-1 - 1)


def test_searches_do_not_influence_one_another():
    """Each sample of each restart has its own step size: searched alone, it would query the same points."""
    starts = BOX.sample(4, torch.Generator().manual_seed(0))

    class Fixed(Box):
        def start(self, x, count, generator=None):
            return self.starts

    def asked(starts: Tensor) -> Tensor:
        points_asked = []

        def objective(points: Tensor) -> Tensor:
            points_asked.append(points.detach())
            return (points[..., 0] * 9).sin() - (points[..., 1] - 0.123).square()

        region = Fixed(BOX.lower[: starts.shape[1]], BOX.upper[: starts.shape[1]])
        vars(region)["starts"] = starts
        APGD(steps=30, restarts=len(starts))(objective, region, region.center)
        return torch.stack(points_asked)

    together = asked(starts)
    for restart in range(4):
        for sample in range(3):
            alone = asked(starts[restart, sample].view(1, 1, 2))
            assert torch.equal(alone[:, 0, 0], together[:, restart, sample])


def test_it_needs_no_step_size_to_come_close():
    """In a valley PGD overshoots with its first step; halving the steps gets within 1e-3 of the radius."""
    peak = torch.tensor([0.123, 1.456]).double()
    worst = APGD()(lambda points: -(points - peak).abs().sum(-1), BOX, BOX.center, torch.Generator().manual_seed(0))
    torch.testing.assert_close(worst, peak.expand(3, 2), rtol=0, atol=5e-2)
    pgd = PGD(steps=100, step_size=2.0, decay_at=())
    worse = pgd(lambda points: -(points - peak).abs().sum(-1), BOX, BOX.center, torch.Generator().manual_seed(0))
    assert ((worse - peak).abs().sum(1) > (worst - peak).abs().sum(1)).all()


def test_in_an_l2_ball_it_finds_the_far_end():
    x = torch.full((2, 3), 0.5).double()
    direction = torch.tensor([[1.0, 2.0, -2.0], [0.0, -3.0, 4.0]]).double()
    region = L2(eps=0.3).region(x)
    worst = APGD(steps=20)(lambda points: (points * direction).sum(-1), region, x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(worst, x + 0.3 * direction / direction.norm(dim=1, keepdim=True), rtol=0, atol=1e-6)


def test_on_a_segment_it_finds_the_better_end():
    x = torch.full((2, 3), 0.5).double()
    region = FirstCoordinate(eps=2.0).region(x)
    sign = torch.tensor([1.0, -1.0]).double()
    worst = APGD(steps=10)(lambda points: sign * points[..., 0], region, x, torch.Generator().manual_seed(0))
    expected = x.clone()
    expected[:, 0] += 2 * sign
    assert torch.equal(worst, expected)


def test_nan_is_never_better():
    def objective(points: Tensor) -> Tensor:
        return torch.where(points[..., 0] > 0.5, math.nan, points.sum(-1))

    worst = APGD(steps=20, restarts=20)(objective, BOX, BOX.center, torch.Generator().manual_seed(0))
    assert (worst[:, 0] <= 0.5).all()


def test_no_steps_compare_the_starts():
    points = APGD(steps=0, restarts=5)(lambda p: p[..., 0], BOX, BOX.center, torch.Generator().manual_seed(0))
    starts = BOX.start(BOX.center, 5, torch.Generator().manual_seed(0))
    assert torch.equal(points, starts[starts[..., 0].argmax(0), torch.arange(3)])


@pytest.mark.parametrize("fields", [{"steps": -1}, {"restarts": 0}])
def test_impossible_numbers_are_refused(fields):
    with pytest.raises(ValueError, match="steps >= 0 and restarts >= 1"):
        APGD(**fields)


@pytest.mark.parametrize("field", ["rho", "momentum"])
@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_impossible_shares_are_refused(field, share):
    with pytest.raises(ValueError, match=rf"{field} is .*: a share must be in \[0, 1\]"):
        APGD(**{field: share})


def test_a_step_that_raises_nothing_is_no_rise():
    """On a plateau condition (1) halves at every checkpoint, also where condition (2) has halved at the one before."""
    asked = []

    def objective(points: Tensor) -> Tensor:
        asked.append(points.item())
        return (points - points.detach()).view(1, 1)  # 0, with the slope 1

    region = Fixed(torch.tensor([[-1.0]]).double(), torch.tensor([[1.0]]).double())
    APGD()(objective, region, region.center)
    assert [step for step in APGD().checkpoints() if asked[step + 1] < asked[step]] == APGD().checkpoints()

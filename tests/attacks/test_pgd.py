"""PGD: the lengths of its steps, the number of its queries, and the point that it returns."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from ctbench.attacks import PGD
from ctbench.regions import Box

BOX = Box(torch.zeros(2, 3).double(), torch.ones(2, 3).double() * torch.tensor([1.0, 0.5, 0.25]).double())


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (0, []),
        (1, [2.0]),
        (5, [0.4] * 5),
        (10, [0.25] * 10),
        (15, [0.25] * 10 + [0.05] * 5),
        (20, [0.25] * 14 + [0.025] * 6),
        (40, [0.25] * 28 + [0.025] * 12),
        (49, [0.25] * 35 + [0.025] * 14),
        (50, [0.25] * 25 + [0.025] * 15 + [0.0025] * 5 + [0.00025] * 5),
        (100, [0.25] * 50 + [0.025] * 30 + [0.0025] * 10 + [0.00025] * 10),
        (200, [0.25] * 100 + [0.025] * 60 + [0.0025] * 20 + [0.00025] * 20),
    ],
)
def test_steps_are_those_of_the_benchmark(steps, expected):
    assert PGD(steps=steps).step_sizes() == pytest.approx(expected)


@pytest.mark.parametrize("steps", range(1, 251))
def test_the_decay_comes_at_the_exact_share(steps):
    if steps < 20:
        milestones, factor = [10], 0.2
    else:
        tenths = (7,) if steps < 50 else (5, 8, 9)
        milestones, factor = [math.ceil(Fraction(tenth, 10) * steps) for tenth in tenths], 0.1
    expected = [max(0.25, 2 / steps) * factor ** sum(s >= m for m in milestones) for s in range(steps)]
    assert PGD(steps=steps).step_sizes() == pytest.approx(expected)


def test_the_schedule_of_sabr():
    attack = PGD(steps=8, step_size=0.5, decay_at=(4 / 8, 7 / 8), decay=0.1)
    assert attack.step_sizes() == pytest.approx([0.5] * 4 + [0.05] * 3 + [0.005])


def test_no_decay():
    assert PGD(steps=30, step_size=0.1, decay_at=()).step_sizes() == pytest.approx([0.1] * 30)


@pytest.mark.parametrize("restarts", [1, 4])
@pytest.mark.parametrize("steps", [0, 1, 7])
def test_restarts_are_one_batch(steps, restarts):
    asked = []

    def objective(points: Tensor) -> Tensor:
        asked.append((points.shape, torch.is_grad_enabled()))
        return points.sum(-1)

    PGD(steps=steps, restarts=restarts)(objective, BOX, BOX.center, torch.Generator().manual_seed(0))
    assert asked == [((restarts, 2, 3), True)] * steps + [((restarts, 2, 3), False)]


def test_the_gradient_is_computed_also_where_gradients_are_off():
    with torch.no_grad():
        worst = PGD(steps=1)(lambda points: points.sum(-1), BOX, BOX.center)
    assert torch.equal(worst, BOX.upper)


def test_one_step_crosses_the_region():
    worst = PGD(steps=1)(lambda points: -points.sum(-1), BOX, BOX.center, torch.Generator().manual_seed(0))
    assert torch.equal(worst, BOX.lower)


def test_the_best_restart_is_kept_sample_by_sample():
    def objective(points: Tensor) -> Tensor:
        return (points[..., 0] * 20).sin()  # two maxima: which one is found depends on the start

    attack = PGD(steps=0, restarts=50)
    worst = attack(objective, BOX, BOX.center, torch.Generator().manual_seed(0))
    starts = BOX.sample(50, torch.Generator().manual_seed(0))
    best = objective(starts).argmax(0)
    assert best[0] != best[1]
    assert torch.equal(worst, starts[best, torch.arange(2)])


def test_the_best_iterate_is_kept_even_if_it_is_not_the_last():
    peak = 0.4
    calls = []

    def objective(points: Tensor) -> Tensor:
        calls.append(points.detach().clone())
        return -(points - peak).square().sum(-1)

    region = Box(torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    worst = PGD(steps=5, step_size=1.0, decay_at=())(objective, region, region.center)
    nearest = min((abs(points.item() - peak), points.item()) for points in calls)
    assert worst.item() == nearest[1]
    assert calls[-1].item() != nearest[1] or calls[-3].item() == nearest[1]


def test_a_clean_start_is_never_beaten_by_the_clean_input():
    x = torch.tensor([[0.3, 0.2, 0.1], [0.9, 0.1, 0.2]]).double()

    def objective(points: Tensor) -> Tensor:
        return -(points - x).abs().sum(-1)  # largest at x itself

    generator = torch.Generator().manual_seed(0)
    assert torch.equal(PGD(steps=3, clean_start=True)(objective, BOX, x, generator), x)
    assert not torch.equal(PGD(steps=3)(objective, BOX, x, generator), x)


def test_a_clean_start_outside_the_region_is_projected():
    x = torch.full((2, 3), 2.0).double()
    worst = PGD(steps=0, clean_start=True)(lambda points: points.sum(-1), BOX, x)
    assert torch.equal(worst, BOX.upper)


def test_nan_is_never_better():
    def objective(points: Tensor) -> Tensor:
        values = points.sum(-1)
        return torch.where(points[..., 0] > 0.5, math.nan, values)

    worst = PGD(steps=5, restarts=20)(objective, BOX, BOX.center, torch.Generator().manual_seed(0))
    assert (worst[:, 0] <= 0.5).all()


@pytest.mark.parametrize("fields", [{"steps": -1}, {"restarts": 0}])
def test_impossible_numbers_are_refused(fields):
    with pytest.raises(ValueError, match="steps >= 0 and restarts >= 1"):
        PGD(**fields)


@pytest.mark.parametrize("decay", [0.0, -1.0, math.inf, math.nan])
def test_a_step_shrinks_by_a_positive_number(decay):
    with pytest.raises(ValueError, match=f"decay is {decay}: steps are multiplied by it, give a number > 0"):
        PGD(decay=decay)


@pytest.mark.parametrize("share", [-1.0, 1.5, math.nan])
def test_a_step_shrinks_after_a_share_of_the_steps(share):
    with pytest.raises(ValueError, match=r"decay_at is \(0.5, .*\): these are shares of the steps, each from 0 to 1"):
        PGD(decay_at=(0.5, share))


@pytest.mark.parametrize("size", [0.0, -0.5, math.nan])
def test_impossible_steps_are_refused(size):
    with pytest.raises(ValueError, match="a step must be > 0"):
        PGD(step_size=size)

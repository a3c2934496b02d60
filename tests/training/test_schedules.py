"""How the radius grows, against the formula of the benchmark."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctbench.training.schedules import Constant, Linear, Smooth


def smooth(t: int, a: int, b: int) -> float:
    """The smooth schedule from 0 to 1 between the steps a and b, as CTBench computes it."""
    middle = a + int(0.25 * (b - a))
    if t < a:
        return 0.0
    if t >= b:
        return 1.0
    alpha = 1 / ((b - middle) * 4 * (middle - a) ** 3 + (middle - a) ** 4) if middle > a else 0.0
    if t <= middle:
        return alpha * (t - a) ** 4
    start = alpha * (middle - a) ** 4
    return start + (1 - start) * (t - middle) / (b - middle)


@pytest.mark.parametrize(("epoch", "eps"), [(0, 0), (4, 0.0095), (5, 0.0231), (10, 0.115), (15, 0.208), (20, 0.3)])
def test_the_radii_of_mnist(epoch, eps):
    assert 0.3 * Smooth(end=20).share(epoch * 235, 235) == pytest.approx(eps, abs=5.1e-4 if eps > 0.1 else 5.1e-5)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(start=st.integers(0, 5), width=st.integers(0, 12), per_epoch=st.integers(1, 40), t=st.integers(0, 800))
@example(start=1, width=80, per_epoch=391, t=391 + 20 * 391)
@example(start=0, width=3, per_epoch=1, t=1)  # too short for a first quarter
def test_smooth_is_the_formula(start, width, per_epoch, t):
    share = Smooth(start=start, end=start + width).share(t, per_epoch)
    assert share == pytest.approx(smooth(t, start * per_epoch, (start + width) * per_epoch), abs=1e-12)


def test_smooth_is_continuous_and_its_slope_too():
    ramp, per_epoch = Smooth(start=1, end=81), 1000
    middle, last = 21 * per_epoch, 81 * per_epoch
    shares = [ramp.share(t, per_epoch) for t in (middle - 1, middle, middle + 1)]
    assert shares[1] == pytest.approx(1 / 13)
    assert shares[2] - shares[1] == pytest.approx(shares[1] - shares[0], rel=1e-3)
    assert ramp.share(last - 1, per_epoch) == pytest.approx(1, abs=1e-4)
    assert ramp.share(per_epoch + 1, per_epoch) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", [Smooth, Linear, Constant])
def test_ramps_grow_from_nothing_to_all(kind):
    shares = [kind(start=1, end=4).share(t, 10) for t in range(60)]
    assert shares == sorted(shares)
    assert shares[:11] == [0.0] * 11
    assert shares[40:] == [1.0] * 20


def test_linear_by_hand():
    assert [Linear(start=1, end=3).share(t, 2) for t in range(8)] == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1, 1])


def test_constant_is_nothing_and_then_all():
    assert [Constant(end=2).share(t, 2) for t in range(6)] == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("kind", [Smooth, Linear, Constant])
def test_without_a_ramp_the_radius_is_full_from_the_first_step(kind):
    assert kind().share(0, 10) == 1.0


def test_parts_of_epochs():
    assert Linear(start=0.5, end=1.5).share(10, 10) == pytest.approx(0.5)


@pytest.mark.parametrize(("start", "end"), [(2, 1), (-1, 3), (float("nan"), 1)])
def test_ramps_need_an_order(start, end):
    with pytest.raises(ValueError, match="0 <= start <= end"):
        Smooth(start=start, end=end)

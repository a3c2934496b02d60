"""Student's t, and what is said about several runs."""

import math
import statistics

import mpmath
import pytest

from ctbench.report.intervals import Spread, two_sided

TABLE = {1: 12.7062, 2: 4.30265, 3: 3.18245, 4: 2.77645, 5: 2.57058, 9: 2.26216, 19: 2.09302, 29: 2.04523, 100: 1.98397}


@pytest.mark.parametrize(("freedom", "quantile"), TABLE.items())
def test_quantiles_are_those_of_printed_tables(freedom, quantile):
    assert two_sided(freedom) == pytest.approx(quantile, abs=1e-5)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8, 51, 200])
def test_quantiles_invert_the_distribution(freedom):
    t = two_sided(freedom)
    tail = mpmath.betainc(freedom / 2, 0.5, 0, freedom / (freedom + t * t), regularized=True)
    assert float(1 - tail) == pytest.approx(0.95, abs=1e-10)


def test_a_spread_is_mean_deviation_and_interval():
    numbers = [97.0, 98.0, 99.5]
    spread = Spread.of(numbers)
    assert spread.mean == pytest.approx(statistics.fmean(numbers))
    assert spread.deviation == pytest.approx(statistics.stdev(numbers))
    assert spread.half == pytest.approx(4.30265 * statistics.stdev(numbers) / math.sqrt(3), rel=1e-5)
    assert spread.interval == pytest.approx((spread.mean - spread.half, spread.mean + spread.half))


def test_the_part_of_an_interval_between_two_numbers():
    low, high, inside = Spread.of([1.0, 9.0]), Spread.of([99.0, 91.0]), Spread.of([50.0, 50.1])
    assert low.within(0, 100) == (0, low.interval[1])
    assert high.within(0, 100) == (high.interval[0], 100)
    assert inside.within(0, 100) == inside.interval
    assert Spread.of([99.0]).within(0, 100) is None


def test_a_single_number_has_no_interval_and_is_above_nothing():
    single, pair = Spread.of([99.0]), Spread.of([50.0, 50.1])
    assert (single.mean, single.deviation, single.interval) == (99.0, None, None)
    assert not single.is_above(pair)
    assert not pair.is_above(single)


@pytest.mark.parametrize(
    ("first", "second", "above"),
    [
        ([90.0, 90.1], [80.0, 80.1], True),
        ([90.0, 90.1], [89.0, 90.9], False),
        ([90.0, 90.0], [90.0, 90.0], False),
        ([80.0, 80.1], [90.0, 90.1], False),
    ],
)
def test_one_is_above_another_if_the_intervals_do_not_meet(first, second, above):
    assert Spread.of(first).is_above(Spread.of(second)) is above

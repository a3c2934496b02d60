"""The simulated certification: what one worker, many workers and a slow driver take."""

import pytest
from benchmarks._simulation import simulated

FREE = {"per_chunk": 0.0, "per_sample": 0.0}


def test_one_worker_takes_the_sum():
    told = simulated([1.0] * 1500, 1, **FREE)
    assert (told.seconds, told.ideal, told.driver, told.chunks) == (1500, 1500, 0, 2)


def test_equal_samples_are_shared_equally():
    assert simulated([1.0] * 1000, 1000, **FREE).seconds == 1
    assert simulated([1.0] * 1000, 8, **FREE).seconds <= 1000 / 8 + 2


def test_a_slow_sample_only_holds_up_its_own_worker():
    seconds = [1.0] * 8000
    seconds[4000] = 500.0
    assert simulated(seconds, 8, **FREE).seconds < 1.1 * sum(seconds) / 8


def test_the_driver_is_the_limit_if_it_takes_longer_than_the_workers():
    told = simulated([0.001] * 1000, 1000, per_chunk=0.0, per_sample=0.1)
    assert told.seconds == pytest.approx(100, rel=0.01)
    assert told.driver == pytest.approx(1, abs=0.01)
    told = simulated([0.001] * 1000, 1000, per_chunk=0.1, per_sample=0.0)
    assert told.seconds == pytest.approx(100, rel=0.01)

"""The time of samples: what is charged to whom, what is left, and when computations are broken off."""

import math

import pytest
import torch

from ctbench import durations, time_budget
from ctbench.time_budget import Budget, OutOfTime


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A clock that only the test moves."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def test_time_is_shared_by_the_pieces_of_work_it_was_spent_on(clock):
    budget = Budget.of([4.0, 4.0, math.inf])
    clock[0] += 3.0
    charged = budget.charge(torch.tensor([0, 0, 2]))
    assert charged.spent.tolist() == [2.0, 0.0, 1.0]
    assert charged.left.tolist() == [2.0, 4.0, math.inf]
    assert charged.since == 103.0
    assert budget.spent.tolist() == [0.0, 0.0, 0.0], "a budget is a value"
    clock[0] += 2.0
    assert charged.charge(torch.tensor([0])).is_late.tolist() == [True, False, False]


def test_no_sample_is_charged_for_nothing(clock):
    budget = Budget.of([1.0])
    clock[0] += 5.0
    charged = budget.charge(torch.empty(0, dtype=torch.long))
    assert (charged.spent.tolist(), charged.since) == ([0.0], 105.0)


def test_a_part_is_a_share_of_what_is_left_and_begins_now(clock):
    budget = Budget.of([4.0, 8.0])
    clock[0] += 2.0
    budget = budget.charge(torch.tensor([0, 1]))
    clock[0] += 7.0
    part = budget.part(0.5)
    assert part.left.tolist() == [1.5, 3.5]
    assert part.since == 109.0
    assert part.end == 114.0
    assert budget.select(torch.tensor([1])).left.tolist() == [7.0]
    assert len(budget.select(torch.tensor([True, False]))) == 1


def test_it_ends_when_the_samples_together_have_used_up_their_time(clock):
    budget = Budget.of([1.0, 2.0, -5.0])
    assert budget.end == 103.0, "a sample that is late takes no time from the others"
    with budget.within():
        clock[0] = 102.5
        time_budget.check()
        clock[0] = 103.0
        with pytest.raises(OutOfTime):
            time_budget.check()
    time_budget.check()
    assert Budget.of([1.0, math.inf]).end == math.inf


def test_it_may_have_begun_before(clock):
    budget = Budget.of([3.0], since=99.0)
    assert budget.end == 102.0
    assert budget.charge(torch.tensor([0])).spent.tolist() == [1.0]


def test_beyond_is_a_share_of_the_limit_or_some_seconds(clock):
    budget = Budget.of([10.0, 100.0, math.inf, math.inf])
    clock[0] += 8.0
    budget = budget.charge(torch.tensor([0, 1, 2, 2]))
    assert budget.spent.tolist() == [2.0, 2.0, 4.0, 0.0]
    assert budget.beyond(0.1, 3.0).tolist() == [True, False, True, False]


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", ""])
def test_a_time_limit_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a number of seconds > 0, e.g. 60"):
        durations.seconds(text)

"""A stage that fails, or runs out of memory or time, decides nothing, and takes no other sample with it."""

import math
import weakref
from collections.abc import Callable

import pytest
import torch
from tests.small import linear, right, small
from tests.stages import Custom, Proving, constant, raising

from ctbench.results import Open, StageFailedWarning, Verdict
from ctbench.time_budget import OutOfTime
from ctbench.verify import (
    Bound,
    Falsify,
    Findings,
    Problem,
    certify,
)

# ------------------------------------------------------------------------------------------------------------ failures


def raising_for(x: torch.Tensor, bad: list[int]) -> Callable[[Problem], Findings]:
    """A stage that raises for any batch with one of these samples, and certifies all others."""

    def look(problem: Problem) -> Findings:
        for index in bad:
            if (problem.x == x[index]).all(1).any():
                raise RuntimeError(f"sample {index} is bad")
        return constant(1.0)(problem)

    return look


@pytest.mark.parametrize("bad", [[0], [19], [3, 4, 11]])
def test_samples_that_a_stage_raises_for_do_not_take_the_others(bad):
    model = small(0)
    x, y = right(model, 20)
    with pytest.warns(StageFailedWarning) as warned:
        found = certify(model, x, y, eps=0.01, stages=[Proving(look=raising_for(x, bad))])
    assert [record.index for record in found if record.verdict is not Verdict.CERTIFIED] == bad
    assert {record.index: record.failed for record in found if record.failed} == {
        index: {"custom": f"RuntimeError: sample {index} is bad"} for index in bad
    }
    (one,) = warned
    plural = "s" if len(bad) > 1 else ""
    assert f"custom on {len(bad)} sample{plural} (RuntimeError: sample {bad[0]} is bad)" in str(one.message)
    assert one.filename == __file__


def test_a_stage_that_always_raises_is_asked_about_a_sample_a_few_times():
    model, seen = small(0), [0] * 16
    x, y = right(model, 16)

    def look(problem: Problem) -> Findings:
        for row in problem.x:
            seen[int((row == x).all(1).nonzero())] += 1
        raise RuntimeError

    with pytest.warns(StageFailedWarning):
        certify(model, x, y, eps=0.01, stages=[Custom(look=look)])
    assert seen == [5] * 16


def test_a_failed_batch_is_not_halved_when_its_time_is_up(clock):
    model, sizes = small(0), list[int]()

    def look(problem: Problem) -> Findings:
        sizes.append(len(problem))
        clock[0] += 1.5 * len(problem)
        raise RuntimeError("out of luck")

    with pytest.warns(StageFailedWarning):
        found = certify(model, *right(model, 8), eps=0.01, stages=[Custom(look=look)], timeout=2.0)
    assert sizes == [8, 4, 4]  # a sample is charged 1.5 seconds, then 3
    assert {record.seconds for record in found} == {3.0}
    assert {record.open for record in found} == {Open.ERROR}


def test_what_a_stage_raises_for_a_batch_and_for_no_sample_is_told_all_the_same():
    model = small(0)

    def look(problem: Problem) -> Findings:
        if len(problem) > 2:
            raise RuntimeError("too many at once")
        return constant(1.0)(problem)

    with pytest.warns(StageFailedWarning, match="custom on 8 samples"):
        found = certify(model, *right(model, 8), eps=0.01, stages=[Proving(look=look)])
    assert {record.verdict for record in found} == {Verdict.CERTIFIED}
    assert {record.failed["custom"] for record in found} == {"RuntimeError: too many at once"}


def test_a_failed_batch_whose_halves_have_no_time_is_a_failure(clock):
    model = small(0)

    def look(problem: Problem) -> Findings:
        clock[0] += 1.0
        if len(problem) > 2:
            raise RuntimeError("out of luck")
        raise OutOfTime

    with pytest.warns(StageFailedWarning, match="custom on 4 samples"):
        found = certify(model, *right(model, 4), eps=0.01, stages=[Custom(look=look)], timeout=10.0)
    assert {record.open for record in found} == {Open.ERROR}


def test_a_warning_names_every_stage_that_failed_once():
    model = small(0)
    x, y = right(model, 6)
    stages = [Custom(look=raising, called="a"), Custom(look=constant(math.nan), called="b"), Bound(domain="crown")]
    with pytest.warns(StageFailedWarning) as warned:
        certify(model, x, y, eps=0.01, stages=stages)
    (one,) = warned
    told = "stages failed: a on 6 samples (RuntimeError: out of luck); b on 6 samples (the bound is NaN)."
    assert str(one.message).startswith(told)


def test_error_time_and_neither_are_three_reasons_to_be_unknown(clock):
    model = small(0)
    x, y = right(model, 6)

    def look(problem: Problem) -> Findings:
        """The first two samples fail, the next two are late."""
        if (problem.x == x[0]).all(1).any() or (problem.x == x[1]).all(1).any():
            raise RuntimeError("out of luck")
        return Findings(late=torch.tensor([bool(((row == x[2]) | (row == x[3])).all()) for row in problem.x]))

    with pytest.warns(StageFailedWarning):
        found = certify(model, x, y, eps=0.01, stages=[Custom(look=look, batch_size=2)])
    assert [record.open for record in found] == [Open.ERROR] * 2 + [Open.TIME] * 2 + [Open.UNDECIDED] * 2
    assert {name: count for name, count in found.outcomes.items() if count} == {
        "unknown (error)": 2,
        "unknown (time)": 2,
        "unknown (not decided)": 2,
    }


def test_no_bound_at_all_is_no_failure():
    model = small(0)
    found = certify(model, *right(model, 4), eps=0.01, stages=[Custom(look=constant(-math.inf))])
    assert {(record.open, record.bound) for record in found} == {(Open.UNDECIDED, None)}


def test_a_bound_that_a_counterexample_refutes_is_not_kept():
    model, x, y = linear([[1.0], [0.0]], [0.0, 0.5]), torch.tensor([[0.55]]), torch.tensor([0])
    stages = [Custom(look=constant(1.0, -1.0)), Falsify()]
    (record,) = certify(model, x, y, eps=0.1, stages=stages)
    assert (record.verdict, record.bound) == (Verdict.FALSIFIED, -1.0)

    def both(problem: Problem) -> Findings:
        return Findings(bound=problem.x.new_ones(len(problem)), witness=problem.x - 0.1)

    (record,) = certify(model, x, y, eps=0.1, stages=[Proving(look=both)])
    assert (record.verdict, record.bound) == (Verdict.FALSIFIED, None)


# -------------------------------------------------------------------------------------------------------------- memory


def out_of_memory() -> Exception:
    return RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 82944000000 bytes. Error code 12 (Cannot allocate memory)"
    )


@pytest.mark.parametrize("error", [out_of_memory(), MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(error):
    model = small(0)
    x, y = right(model, 20)
    seen: list[torch.Tensor] = []

    def look(problem: Problem) -> Findings:
        if len(problem) > 3:
            raise error
        seen.append(problem.x)
        return Findings(bound=problem.x[:, 0] - 0.5)

    found = certify(model, x, y, eps=0.01, stages=[Proving(look=look)])
    assert torch.equal(torch.cat(seen), x)
    assert [len(part) for part in seen] == [2, 3] * 4
    assert [r.verdict is Verdict.CERTIFIED for r in found] == (x[:, 0] > 0.5).tolist()
    assert [r.bound for r in found] == pytest.approx((x[:, 0] - 0.5).tolist())


def test_a_single_sample_that_does_not_fit_stays_open():
    model = small(0)

    def look(problem: Problem) -> Findings:
        raise out_of_memory()

    with pytest.warns(StageFailedWarning, match="custom on 5 samples"):
        found = certify(model, *right(model, 5), eps=0.01, stages=[Custom(look=look)])
    for record in found:
        assert record.verdict is Verdict.UNKNOWN
        assert "can't allocate memory" in record.reason


def test_what_a_failed_batch_held_is_free_when_its_halves_come():
    model = small(0)
    held: list[weakref.ref[torch.Tensor]] = []

    def look(problem: Problem) -> Findings:
        large = problem.x.clone()
        assert all(other() is None for other in held)
        held.append(weakref.ref(large))
        raise out_of_memory()

    with pytest.warns(StageFailedWarning):
        found = certify(model, *right(model, 8), eps=0.01, stages=[Custom(look=look)])
    assert len(held) == 15
    assert all("can't allocate memory" in record.reason for record in found)


def test_time_is_charged_once_where_a_batch_is_halved(clock):
    model = small(0)

    def look(problem: Problem) -> Findings:
        clock[0] += 1.0
        if len(problem) > 2:
            raise out_of_memory()
        return Findings()

    found = certify(model, *right(model, 4), eps=0.01, stages=[Custom(look=look)])
    assert [record.seconds for record in found] == [0.75] * 4
    assert found.seconds_by_stage == {"clean": 0.0, "custom": 3.0}


def test_the_names_of_stages_are_not_stages():
    with pytest.raises(
        ValueError, match=r"stages is 'fast': give a list of Stage objects, e.g. .*stages_by_name\('fast'\)"
    ):
        certify(torch.nn.Flatten(), torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), eps=0.1, stages="fast")

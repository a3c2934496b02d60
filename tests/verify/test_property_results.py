"""How the cascade runs over the cases of a property, and what the result says."""

import math
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from tests.halfspaces import case, halfspaces, identity, of, tensor
from tests.stages import Custom
from torch import Tensor

from ctbench.networks import MLP
from ctbench.results import Open, StageFailedWarning
from ctbench.verify import (
    Bound,
    Falsify,
    Findings,
    Problem,
    verify_property,
)


def test_a_stage_sees_all_open_cases_before_the_next_begins():
    seen = []

    def look(name: str, bound: float) -> Callable[[Problem], Findings]:
        def found(problem: Problem) -> Findings:
            seen.append((name, problem.region.lower.item()))
            return Findings(bound=tensor(bound if problem.region.lower.item() == 2 else -1))

        return found

    unsafe = halfspaces((1, 0))
    prop = of(*(case((lower,), (9,), unsafe) for lower in (1, 2, 3)))
    stages = (
        Custom(look=look("a", 0.5), called="a", batch_size=1),
        Custom(look=look("b", 0), called="b", batch_size=1),
    )
    result = verify_property(identity(1, torch.float32), prop, stages=stages)
    # in single precision, and where a bound is positive once more in double
    assert seen == [("a", 1), ("a", 2), ("a", 2), ("a", 3), ("b", 1), ("b", 3)]
    assert (result.verdict, result.stage, result.bound) == ("unknown", "b", -1)


def test_the_time_is_that_of_all_cases_together():
    calls = []

    def slow(problem: Problem) -> Findings:
        calls.append(problem.budget.left.item())
        time.sleep(0.1)
        return Findings()

    prop = of(*(case((lower,), (9,), halfspaces((1, 0))) for lower in range(1, 9)))
    result = verify_property(
        identity(1), prop, stages=(Custom(look=slow, batch_size=1), Bound(domain="interval")), timeout=0.35
    )
    assert len(calls) <= 4
    assert all(later <= earlier - 0.099 for earlier, later in pairwise(calls))
    assert (result.verdict, result.bound) == ("unknown", None)
    assert (result.reason, result.open) == ("0.35 seconds were not enough", Open.TIME)
    assert result.seconds >= 0.35


def test_without_stages_nothing_can_be_known():
    with pytest.raises(ValueError, match="stages must be a list of Stage objects"):
        verify_property(identity(1), of(case((1,), (2,), halfspaces((1, 0)))), stages=())


def test_a_stage_that_fails_leaves_the_property_open_and_is_named():
    def broken(problem: Problem) -> Findings:
        raise RuntimeError("out of luck")

    prop = of(case((1,), (2,), halfspaces((1, 0))), case((3,), (4,), halfspaces((1, 0))))
    with pytest.warns(StageFailedWarning) as warned:
        result = verify_property(identity(1), prop, stages=(Custom(look=broken),))
    (one,) = warned
    assert "custom on 2 samples (RuntimeError: out of luck)" in str(one.message)
    assert one.filename == __file__
    assert (result.verdict, result.reason) == ("unknown", "custom: RuntimeError: out of luck")
    assert (result.failed, result.open) == ({"custom": "RuntimeError: out of luck"}, Open.ERROR)
    with pytest.warns(StageFailedWarning):
        result = verify_property(identity(1), prop, stages=(Custom(look=broken), Bound(domain="interval")))
    assert (result.verdict, result.open, result.reason) == ("holds", None, "")
    assert result.failed == {"custom": "RuntimeError: out of luck"}


def test_a_counterexample_must_be_one_where_it_is_replayed():
    unsafe = (halfspaces((0, 1, 5)), halfspaces((1, 0, -0.5), (1, 0, -0.25)))
    prop = of(case((0, 0), (1, 1), *unsafe))
    seen = []

    def replay(outputs: tuple[float, float]) -> Callable[[Tensor], Tensor]:
        def compute(x: Tensor) -> Tensor:
            seen.append(x)
            return torch.tensor([outputs])  # in single precision

        return compute

    def answer(*outputs: float) -> str:
        return verify_property(identity(2), prop, stages=(Falsify(),), replay=replay(outputs)).verdict

    assert answer(0.125, 0) == "violated"
    assert answer(0.375, 0) == "unknown"  # one row alone
    assert answer(0.3, 0) == "unknown"  # one row alone
    assert answer(0.25, 0) == "violated"  # on the edge of one row
    assert answer(9, -6) == "violated"  # the other alternative
    assert all(x.shape == (1, 2) for x in seen)


def test_a_seed_gives_the_same_counterexample():
    torch.manual_seed(0)
    model = MLP(hidden=(8,)).build((2,), 2)
    prop = of(case((-1, -1), (1, 1), halfspaces((1, 0, -0.2), (0, 1, -0.2))))
    first, again = (verify_property(model, prop, seed=3).counterexample for _ in range(2))
    assert torch.equal(first[0], again[0])


# What cannot be


@pytest.mark.parametrize("timeout", [0, -1.0, math.nan, math.inf, "a"])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises(ValueError, match="give a number of seconds > 0, or None"):
        verify_property(identity(1), of(case((1,), (2,), halfspaces((1, 0)))), timeout=timeout)


def test_properties_of_other_networks_are_refused():
    one = of(case((1,), (2,), halfspaces((1, 0, 0))))
    with pytest.raises(ValueError, match="the property has 2 outputs, but the network has 1"):
        verify_property(identity(1), one)
    with pytest.raises(ValueError, match=r"the property has 1 inputs, but an input of .* has shape \(1, 2, 2\)"):
        verify_property(identity(1), one, input_shape=(1, 2, 2))
    with pytest.raises(ValueError, match="takes 2 features"):
        verify_property(identity(2), one)
    with pytest.raises(ValueError, match="seed is -1"):
        verify_property(identity(1), one, seed=-1)
    with pytest.raises(
        ValueError, match=r"the property is 'claim\.vnnlib': give a Property, e\.g\. ctbench\.read_vnnlib"
    ):
        verify_property(identity(1), "claim.vnnlib")

"""Results that come too late are not waited for, and earlier results are kept."""

import functools
from dataclasses import dataclass, replace

import pytest
import torch
from tests.small import right, small
from tests.stages import Proving

from ctbench import time_budget
from ctbench.attacks import Attack
from ctbench.domains import alpha_crown, beta_crown, crown, domain
from ctbench.graph import freeze, trace
from ctbench.regions import Linf
from ctbench.results import Verdict
from ctbench.time_budget import Budget, OutOfTime
from ctbench.verify import (
    ALPHA_CROWN,
    BranchAndBound,
    Falsify,
    Findings,
    InputSplit,
    Milp,
    Problem,
    Stage,
    certify,
    input_split,
)

EPS = 0.3
GENERATOR = torch.Generator()


def problem(samples: int = 3) -> Problem:
    model = small(0).double()
    x = torch.rand(samples, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    graph = freeze(trace(model, (4,)), x)[0].detach()
    return Problem.of_labels(graph, x, graph(x).argmax(1), Linf(eps=EPS))


@pytest.fixture
def ticking(monkeypatch):
    """A clock that is a second later whenever somebody looks at it."""
    now = [0.0]

    def look() -> float:
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr("time.perf_counter", look)


def test_the_earlier_of_two_moments_counts_until_its_block_ends(clock):
    with time_budget.until(1.0):
        with time_budget.until(3.0):
            assert not time_budget.is_over()
            clock[0] = 2.0
            assert time_budget.is_over()
            with pytest.raises(OutOfTime):
                time_budget.check()
        clock[0] = 0.0
        with time_budget.until(0.5):
            clock[0] = 0.75
            assert time_budget.is_over()
        assert not time_budget.is_over()
    clock[0] = 1e9
    time_budget.check()  # there is no moment any more


def test_every_long_computation_looks_at_the_clock(clock):
    given = problem()
    arguments = given.net, given.region, given.spec
    inner = beta_crown.needed(given.net, crown.boxes(given.net, given.region))
    free = beta_crown.Multipliers.begin(given.net, inner)
    clock[0] = 2.0
    with time_budget.until(1.0):
        for late in (
            lambda: crown.boxes(*arguments[:2]),
            lambda: alpha_crown.lower_bounds(*arguments, inner=crown.interval.boxes(*arguments[:2])),
            lambda: beta_crown.ascend(*arguments[:2], given.spec[:, 0], inner, free, steps=1),
        ):
            with pytest.raises(OutOfTime):
                late()


@pytest.mark.parametrize(("timeout", "verdict"), [(2.0, Verdict.UNKNOWN), (4.0, Verdict.CERTIFIED)])
def test_a_stage_is_broken_off_when_its_samples_have_used_up_all_their_time(clock, timeout, verdict):
    model = small(0)
    x, y = right(model, 3)

    def slow(given: Problem) -> Findings:
        """Takes three seconds for each sample before it begins."""
        clock[0] += 3.0 * len(given)
        return Findings(bound=domain("crown").lower_bounds(given.net, given.region, given.spec).amin(1))

    found = certify(model, x, y, eps=0.03, stages=[Proving(look=slow)], timeout=timeout)
    reason = "2 seconds were not enough" if verdict is Verdict.UNKNOWN else ""
    assert {(record.verdict, record.reason) for record in found} == {(verdict, reason)}
    assert {record.bound is None for record in found} == {verdict is Verdict.UNKNOWN}


@dataclass(frozen=True, kw_only=True)
class Slow(Attack):
    """Finds nothing, and takes a second."""

    clock: list[float]

    def __call__(self, objective, region, x, generator):
        self.clock[0] += 1.0
        return x


def test_an_attack_is_not_repeated_when_time_is_over(clock):
    given, stage = problem(), Falsify(attack=Slow(clock=clock), rounds=9)
    with time_budget.until(3.5):
        assert stage(given, GENERATOR).late.all()
    assert clock[0] == 4.0
    with time_budget.until(100.0):
        assert not stage(given, GENERATOR).late.any()
    assert clock[0] == 13.0


@torch.no_grad()
def test_a_search_that_is_broken_off_knows_its_bounds_and_counterexamples(monkeypatch):
    whole = BranchAndBound()(problem(20), GENERATOR)
    given, rounds = problem(20), []
    ascend = beta_crown.ascend

    def broken(*arguments, **options):
        rounds.append(1)
        if len(rounds) == 2:
            raise OutOfTime
        return ascend(*arguments, **options)

    monkeypatch.setattr(beta_crown, "ascend", broken)
    cut = BranchAndBound(batch_subproblems=8)(given, GENERATOR)
    assert len(rounds) == 2
    margins = given.margins(cut.witness).amin(1)
    unknown = ~(cut.bound > 0) & ~(margins < 0)
    assert unknown.any()
    assert torch.equal(unknown | cut.late, cut.late)
    assert not cut.late.all()
    assert torch.isfinite(cut.bound[unknown]).all()
    least = given.margins(whole.witness).amin(1)
    assert (cut.bound[least < 0] <= least[least < 0]).all()
    assert (cut.bound > 0)[~cut.late].any()


@torch.no_grad()
def test_a_broken_off_split_of_inputs_knows_what_it_has_decided(monkeypatch):
    given, bounded = problem(12), input_split.inner_boxes
    stage, calls = InputSplit(share=1.0, batch_subproblems=8), []
    whole = stage(given, GENERATOR)

    def broken(*arguments, limit, **options):
        calls.append(1)
        if len(calls) == limit:
            raise OutOfTime
        return bounded(*arguments, **options)

    monkeypatch.setattr(input_split, "inner_boxes", functools.partial(broken, limit=8))
    cut = stage(given, GENERATOR)
    assert len(calls) == 8
    assert cut.late.any()
    assert not cut.late.all()
    assert torch.isfinite(cut.bound[cut.late]).all()
    assert (cut.bound <= whole.bound.clamp(min=0)).logical_or(~cut.late).all()
    assert torch.equal(cut.bound[~cut.late] > 0, whole.bound[~cut.late] > 0)
    calls.clear()
    monkeypatch.setattr(input_split, "inner_boxes", functools.partial(broken, limit=1))
    with pytest.raises(OutOfTime):
        stage(given, GENERATOR)


@torch.no_grad()
def test_integer_programs_that_are_broken_off_know_the_samples_before(monkeypatch):
    given, seen = problem(3), []
    decide = Milp._decide

    def broken(self, *arguments):
        seen.append(1)
        if len(seen) == 2:
            raise OutOfTime
        return decide(self, *arguments)

    monkeypatch.setattr(Milp, "_decide", broken)
    found, whole = Milp()(given, GENERATOR), Milp()(given, GENERATOR)
    assert found.bound[0] == whole.bound[0]
    assert found.bound[1] == -torch.inf
    assert found.bound[2] == whole.bound[2]


@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize("stage", [ALPHA_CROWN, BranchAndBound(), Milp(), BranchAndBound(fallback=Milp())])
def test_wherever_time_ends_no_bound_is_too_high(stage: Stage):
    corners = torch.cartesian_prod(*[torch.tensor([-EPS, EPS], dtype=torch.float64)] * 4)
    seen = {"late": 0, "found": 0}
    for seconds in (1.0, 7.0, 15.0, 30.0, 100.0, 1000.0):
        given = replace(problem(20), budget=Budget.of([seconds / 20] * 20))
        try:
            with time_budget.until(seconds):
                found = stage(given, GENERATOR)
        except OutOfTime:
            seen["late"] += 1
        else:
            seen["found"] += 1
            least = given.margins(given.region.project(given.x + corners.unsqueeze(1))).amin((0, 2))
            assert (found.bound <= least + 1e-9).all()
    assert min(seen.values()) > 0, seen

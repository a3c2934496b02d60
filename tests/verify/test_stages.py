"""What stages see, what their findings lead to, and what they must not be."""

import math
import re
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from tests.small import inputs, linear, right, small, timeless
from tests.stages import BOUNDS, Custom, constant, raising
from torch import nn

import ctbench
from ctbench.domains import COAP, AlphaCrown, Crown, Interval
from ctbench.networks import MLP
from ctbench.regions import Linf
from ctbench.results import Open, StageFailedWarning, Verdict
from ctbench.verify import (
    ALPHA_CROWN,
    DEFAULT_STAGES,
    Bound,
    Falsify,
    Findings,
    Problem,
    certify,
)


def test_a_stage_sees_only_what_former_ones_left_open():
    model = small(0)
    x, y = inputs(model)
    alone = {stage: certify(model, x, y, eps=0.08, stages=[stage]) for stage in DEFAULT_STAGES}
    seen: list[list[int]] = [[] for _ in range(len(DEFAULT_STAGES) + 1)]

    def spy(place: int) -> Custom:
        def look(problem: Problem) -> Findings:
            seen[place] += [int((row == x).all(1).nonzero()) for row in problem.x]
            return Findings()

        return Custom(look=look, called=f"spy {place}")

    stages = [s for place, stage in enumerate(DEFAULT_STAGES) for s in (spy(place), stage)]
    found = certify(model, x, y, eps=0.08, stages=[*stages, spy(len(DEFAULT_STAGES))])
    expected = [record.index for record in found if record.right]
    for place, stage in enumerate(DEFAULT_STAGES):
        assert seen[place] == expected
        decided = {r.index for r in alone[stage] if r.verdict in (Verdict.CERTIFIED, Verdict.FALSIFIED)}
        if not isinstance(stage, Falsify):
            expected = [index for index in expected if index not in decided]
        else:
            expected = [index for index in expected if found[index].verdict is not Verdict.FALSIFIED]
    assert seen[-1] == expected == [record.index for record in found if record.verdict is Verdict.UNKNOWN]
    assert len(seen[0]) > len(seen[1]) > len(seen[2]) > len(seen[3]) >= len(seen[4])


def test_optimised_slopes_certify_what_crown_cannot():
    torch.manual_seed(2)
    model = MLP(hidden=(20, 20, 20)).build((6,), 3).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = torch.rand(30, 6)
    y = model(x).argmax(1)
    crown, none, alpha = (
        {r.index for r in certify(model, x, y, eps=0.2, stages=[stage]) if r.verdict is Verdict.CERTIFIED}
        for stage in (Bound(domain="crown"), Bound(domain=AlphaCrown(steps=0)), ALPHA_CROWN)
    )
    assert crown == none < alpha
    found = certify(model, x, y, eps=0.2)
    decided = {r.index for r in found if r.stage == "alpha-crown" and r.verdict is Verdict.CERTIFIED}
    assert decided == alpha - crown


def test_a_stage_gets_batches_of_its_size():
    model = small(0)
    x, y = inputs(model)
    right = int((model(x).argmax(1) == y).sum())
    sizes: list[int] = []

    def look(problem: Problem) -> Findings:
        sizes.append(len(problem))
        assert problem.region.lower.shape == problem.x.shape == (len(problem), 4)
        assert problem.spec.shape == (len(problem), 2, 3)
        return Findings()

    certify(model, x, y, eps=0.01, stages=[Custom(look=look, batch_size=20)])
    assert sizes == [20, 20, right - 40]


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_the_size_of_batches_changes_no_verdict(batch_size):
    model = small(0)
    x, y = inputs(model)
    stages = tuple(replace(stage, batch_size=batch_size) for stage in BOUNDS)
    found, usual = certify(model, x, y, eps=0.08, stages=stages), certify(model, x, y, eps=0.08, stages=BOUNDS)
    assert [(r.verdict, r.stage) for r in found] == [(r.verdict, r.stage) for r in usual]
    assert [r.bound for r in found] == pytest.approx([r.bound for r in usual], abs=1e-5)


@pytest.mark.parametrize("stages", [BOUNDS, DEFAULT_STAGES], ids=["bounds", "default"])
def test_the_place_of_a_sample_in_its_batch_plays_no_part(stages):
    model = small(0)
    x, y = inputs(model)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    straight = certify(model, x, y, eps=0.08, stages=stages)
    mixed = certify(model, x[order], y[order], eps=0.08, stages=stages)
    for place, index in enumerate(order.tolist()):
        assert (mixed[place].verdict, mixed[place].stage) == (straight[index].verdict, straight[index].stage)


def test_the_same_seed_gives_the_same_records(digits):
    model, x, y = digits
    assert timeless(certify(model, x, y, eps=0.05)) == timeless(certify(model, x, y, eps=0.05))


@pytest.mark.usefixtures("small_chunks")
def test_every_seed_and_every_chunk_has_its_own_random_numbers():
    model, drawn = small(0), []

    class Drawing(Custom):
        def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
            drawn.append(torch.rand(4, generator=generator))
            return Findings()

    for seed in (0, 1, 0):
        certify(model, *right(model, 20), eps=0.01, stages=[Drawing(look=raising)], seed=seed)
    different = torch.cdist(torch.stack(drawn), torch.stack(drawn)) > 0
    assert different[:4, :4].sum() == 12
    assert torch.equal(drawn[4], drawn[0])
    assert torch.equal(drawn[5], drawn[1])


def test_the_global_random_state_is_left_alone(digits):
    before = torch.get_rng_state()
    certify(digits[0], digits[1][:20], digits[2][:20], eps=0.05)
    assert torch.equal(torch.get_rng_state(), before)


def raising_in_double(problem: Problem) -> Findings:
    if problem.x.dtype == torch.float64:
        raise RuntimeError("out of luck")
    return Findings(bound=problem.x.new_ones(len(problem)))


def silent_in_double(problem: Problem) -> Findings:
    return Findings() if problem.x.dtype == torch.float64 else constant(1.0)(problem)


def too_many(problem: Problem) -> Findings:
    return Findings(bound=problem.x.new_ones(len(problem) + 1))


def too_few(problem: Problem) -> Findings:
    return Findings(bound=problem.x.new_ones(len(problem) - 1))


def one_a_margin(problem: Problem) -> Findings:
    return Findings(bound=problem.x.new_ones(len(problem), 2))


def misshapen(problem: Problem) -> Findings:
    return Findings(witness=problem.x.new_ones(len(problem), 5))


def a_truth_value(problem: Problem) -> Findings:
    return Findings(bound=problem.x[:, 0] > -1)


def nothing(problem: Problem) -> None:
    return None


def no_witness(problem: Problem) -> Findings:
    return Findings(witness=torch.full_like(problem.x, math.nan))


FAILING = {
    "raises": (raising, r"custom: RuntimeError: out of luck"),
    "raises in double": (raising_in_double, r"custom: RuntimeError: out of luck"),
    "says nothing in double": (silent_in_double, r"custom: AssertionError"),
    "NaN": (constant(math.nan), r"custom: the bound is NaN"),
    "NaN in double": (constant(1.0, math.nan), r"custom: the bound is NaN"),
    "infinite": (constant(math.inf), r"custom: .*infinite"),
    "infinite in double": (constant(1.0, math.inf), r"custom: .*infinite"),
    "too many": (too_many, r"custom: "),
    "too few": (too_few, r"custom: "),
    "one a margin": (one_a_margin, r"custom: "),
    "a witness of another shape": (misshapen, r"custom: RuntimeError"),
    "a witness that is NaN": (no_witness, r"custom: the witness is NaN or infinite"),
    "a truth value": (a_truth_value, r"custom: TypeError: the stage gave bounds of torch.bool"),
    "None": (nothing, r"custom: TypeError: the stage returned a NoneType: return ctbench.verify.Findings"),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_stage_that_fails_certifies_nothing_and_the_record_says_why(name):
    look, reason = FAILING[name]
    model = small(0)
    x, y = inputs(model, 20)
    with pytest.warns(StageFailedWarning, match="custom on 17 samples"):
        found = certify(model, x, y, eps=0.01, stages=[Custom(look=look)])
    right = [record for record in found if record.right]
    assert len(right) == 17
    for record in right:
        assert record.open is Open.ERROR
        assert (record.verdict, record.stage) == (Verdict.UNKNOWN, "custom")
        assert record.bound is None
        assert re.search(reason, record.reason), record.reason


@pytest.mark.parametrize(
    ("screening", "exact"), [(math.inf, -1.0), (1.0, -1e-9), (1.0, 0.0), (1e-9, -1e-9), (math.inf, -math.inf)]
)
def test_what_double_precision_does_not_confirm_is_not_certified(screening, exact):
    model = small(0)
    x, y = inputs(model, 20)
    found = certify(model, x, y, eps=0.01, stages=[Custom(look=constant(screening, exact))])
    right = [record for record in found if record.right]
    assert {record.verdict for record in right} == {Verdict.UNKNOWN}
    assert {record.bound for record in right} == {exact if math.isfinite(exact) else None}


def test_confirmation_asks_only_about_what_would_be_certified():
    model = small(0)
    x, y = inputs(model, 20)
    asked: dict[torch.dtype, int] = {torch.float32: 0, torch.float64: 0}

    def look(problem: Problem) -> Findings:
        asked[problem.x.dtype] += len(problem)
        return Findings(bound=problem.x[:, 0] - 0.5)

    found = certify(model, x, y, eps=0.01, stages=[Custom(look=look)])
    right = [record.index for record in found if record.right]
    above = [index for index in right if x[index, 0] > 0.5]
    assert asked == {torch.float32: len(right), torch.float64: len(above)}
    assert [record.index for record in found if record.verdict is Verdict.CERTIFIED] == above
    assert [found[i].bound for i in right] == pytest.approx([x[i, 0].item() - 0.5 for i in right], abs=1e-7)


def test_a_witness_is_moved_into_the_region_and_replayed():
    model, y = linear([[1.0], [0.0]], [0.0, 0.5]), torch.tensor([0])
    outside = Custom(look=lambda problem: Findings(witness=torch.zeros_like(problem.x)))
    assert certify(model, torch.tensor([[0.8]]), y, eps=0.1, stages=[outside])[0].verdict is Verdict.UNKNOWN
    assert certify(model, torch.tensor([[0.55]]), y, eps=0.1, stages=[outside])[0].verdict is Verdict.FALSIFIED


def test_a_replayed_counterexample_outweighs_any_bound():
    model, x, y = linear([[1.0], [0.0]], [0.0, 0.5]), torch.tensor([[0.55]]), torch.tensor([0])

    def look(problem: Problem) -> Findings:
        return Findings(bound=problem.x.new_ones(len(problem)), witness=problem.x - 0.1)

    assert certify(model, x, y, eps=0.1, stages=[Custom(look=look)])[0].verdict is not Verdict.CERTIFIED


def test_what_one_stage_cannot_do_a_later_one_may():
    model = small(0)
    x, y = inputs(model, 20)
    with pytest.warns(StageFailedWarning):
        found = certify(model, x, y, eps=0.01, stages=[Custom(look=raising), Bound(domain="crown")])
    assert found.certified_accuracy > 0.5
    assert all(not record.reason for record in found if record.verdict is Verdict.CERTIFIED)
    assert {record.failed.get("custom") for record in found if record.right} == {"RuntimeError: out of luck"}
    with pytest.warns(StageFailedWarning):
        failed = certify(model, x, y, eps=0.01, stages=[Bound(domain="interval"), Custom(look=raising)])
    left = [record for record in failed if record.reason]
    assert all(record.verdict is Verdict.UNKNOWN and math.isfinite(record.bound) for record in left)


def test_the_best_finite_bound_is_kept():
    model = small(0)
    x, y = inputs(model, 20)
    stages = [Custom(look=constant(value)) for value in (-2.0, -math.inf, -1.0, -3.0)]
    found = certify(model, x, y, eps=0.01, stages=stages)
    assert {record.bound for record in found if record.right} == {-1.0}
    assert {record.bound for record in found if not record.right} == {None}


def test_an_unknown_domain_is_refused():
    with pytest.raises(ValueError, match="no domain is called 'zonotopes'"):
        Bound(domain="zonotopes")


@dataclass(frozen=True, kw_only=True)
class Estimate(Interval):
    sound = False


def test_an_estimate_is_refused():
    with pytest.raises(
        ValueError, match=r"COAP\(projections=50\) estimates bounds, .* give a sound domain, e.g. 'crown'"
    ):
        Bound(domain=COAP(projections=50))
    with pytest.raises(ValueError, match=r"Estimate\(\) estimates bounds"):
        Bound(domain=Estimate())
    assert Bound(domain=COAP()).title == "coap"


def test_a_name_is_short_for_a_domain():
    assert Bound(domain="crown") == Bound(domain=Crown())
    assert repr(Bound(domain="crown")) == "Bound(batch_size=256, domain=Crown(slope=adaptive))"
    with pytest.raises(ValueError, match="the domain is 5: give a name"):
        Bound(domain=5)


def test_a_search_for_bounds_stops_where_all_margins_are_positive(monkeypatch):
    stops = []
    bounds = AlphaCrown.lower_bounds
    monkeypatch.setattr(
        AlphaCrown, "lower_bounds", lambda self, *args, **about: stops.append(self.stop) or bounds(self, *args, **about)
    )
    model = small(0)
    x, y = inputs(model, 5)
    certify(model, x, y, eps=0.01, stages=[ALPHA_CROWN])
    assert set(stops) == {0.0}
    stops.clear()
    certify(model, x, y, eps=0.01, stages=[Bound(domain=AlphaCrown(steps=1, stop=1.0))])
    assert set(stops) == {1.0}


def test_a_sample_is_charged_what_it_took_where_a_stage_can_tell():
    model = small(0)
    x, y = inputs(model, 20)

    def slow(problem: Problem) -> Findings:
        return Findings(seconds=torch.arange(len(problem)) * 10.0)

    found = certify(model, x, y, eps=0.01, stages=[Custom(look=slow)], timeout=None)
    charged = [record.stage_seconds["custom"] for record in found if record.right]
    differences = [later - earlier for earlier, later in pairwise(charged)]
    assert differences == pytest.approx([10.0] * len(differences))
    assert sum(charged) < 1, "no more than the clock says is charged in all"


def test_a_user_who_interrupts_a_stage_is_heard():
    def interrupting(problem: Problem) -> Findings:
        raise KeyboardInterrupt

    model = small(0)
    with pytest.raises(KeyboardInterrupt):
        certify(model, *inputs(model, 5), eps=0.01, stages=[Custom(look=interrupting)])


def test_falsify_stops_at_what_it_has_found():
    model = linear([[1.0], [0.0]], [0.0, 0.5])
    graph = ctbench.graph.freeze(ctbench.graph.trace(model, (1,)), torch.zeros(1, 1))[0].detach()
    problem = Problem.of_labels(graph, torch.tensor([[0.55], [0.9]]), torch.tensor([0, 0]), Linf(eps=0.1))
    findings = Falsify()(problem, torch.Generator().manual_seed(0))
    assert findings.bound is None
    assert findings.witness[0].item() < 0.5
    assert findings.witness[1].item() == pytest.approx(0.8, abs=0.01)

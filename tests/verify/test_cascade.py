"""The cascade: what it says is true, whatever the stages do."""

import copy
import json
import math
import re
import sys
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.small import inputs, linear, right, small, timeless
from tests.stages import BOUNDS, Custom, Proving, constant
from torch import nn

import ctbench
from ctbench import regions
from ctbench.attacks import PGD
from ctbench.deadline import OutOfTime
from ctbench.domains import COAP, AlphaCrown, Crown, Interval, alpha_crown
from ctbench.networks import MLP, Normalize
from ctbench.regions import Linf, threat
from ctbench.results import CertificationFiles, Open, StageFailedWarning, Verdict
from ctbench.specification import margins, violation_at
from ctbench.verify import (
    ALPHA_CROWN,
    DEFAULT_STAGES,
    FAST_STAGES,
    Bound,
    BranchAndBound,
    Falsify,
    Findings,
    InputSplit,
    Milp,
    Problem,
    Records,
    certify,
)

samples = sys.modules["ctbench.verify.job"]


def double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double().eval()


def least_margin(model: nn.Module, points: torch.Tensor, label: int) -> float:
    """The least margin at any of the points, in double precision."""
    labels = torch.full((len(points),), label)
    with torch.no_grad():
        return margins(double(model)(points.double()), labels).min().item()


# ----------------------------------------------------------------------------------------------------------- soundness


@pytest.mark.parametrize(("seed", "batch_norm"), [(0, False), (2, False), (0, True)])
def test_certified_samples_withstand_dense_sampling_and_attack(seed, batch_norm):
    model = small(seed, batch_norm=batch_norm)
    x, y = inputs(model)
    found = certify(model, x, y, eps=0.08)
    assert found.counts[Verdict.CERTIFIED] > 5
    assert found.counts[Verdict.FALSIFIED] > 0
    assert found.counts[Verdict.MISCLASSIFIED] == 9
    exact, generator = double(model), torch.Generator().manual_seed(0)
    region = Linf(eps=0.08).region(x.double())
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4)
    attacked = PGD(steps=30, restarts=5)(violation_at(exact, y), region, x.double(), generator)
    for record in found:
        if record.verdict is Verdict.CERTIFIED:
            low, high = region.lower[record.index], region.upper[record.index]
            random = low + torch.rand(2000, 4, dtype=torch.float64, generator=generator) * (high - low)
            points = torch.cat([random, low + corners * (high - low), attacked[record.index][None]])
            least = least_margin(model, points, record.label)
            assert least > 0
            assert least >= record.bound - 1e-6


def test_falsified_samples_have_a_counterexample_that_replays():
    model = small(0)
    x, y = inputs(model)
    found = certify(model, x, y, eps=0.08)
    falsified = [record.index for record in found if record.verdict is Verdict.FALSIFIED]
    assert falsified
    region = Linf(eps=0.08).region(x.double())
    violation = violation_at(double(model), y)
    points = PGD(steps=100, restarts=20, step_size=0.25)(
        violation, region, x.double(), torch.Generator().manual_seed(0)
    )
    assert (violation(points[None])[0][falsified] > 0).all()
    assert (violation(x.double()[None])[0][falsified] < 0).all(), "right at the clean input"


def test_accuracies_are_in_order_and_counted_by_hand(digits):
    model, x, y = digits
    found = certify(model, x, y, eps=0.05, stages=FAST_STAGES)
    natural = (model(x).argmax(1) == y).double().mean().item()
    assert found.natural_accuracy == pytest.approx(natural)
    complete = certify(model, x, y, eps=0.05)
    assert found.certified_accuracy < complete.certified_accuracy == complete.adversarial_accuracy
    assert complete.adversarial_accuracy <= found.adversarial_accuracy
    assert 0 < found.certified_accuracy < found.adversarial_accuracy < found.natural_accuracy < 1
    assert [record.index for record in found] == list(range(len(y)))
    assert [record.label for record in found] == y.tolist()
    assert [record.prediction for record in found] == model(x).argmax(1).tolist()


def test_radius_zero_certifies_all_that_is_right(digits):
    model, x, y = digits
    found = certify(model, x, y, eps=0.0)
    assert found.certified_accuracy == found.natural_accuracy
    assert {record.stage for record in found} == {"clean", "interval"}


def test_the_data_range_is_not_left_unless_there_is_none():
    model = linear([[1.0], [0.0]], [0.0, -0.05])  # turns at x = -0.05, outside the data range
    x, y = torch.tensor([[0.0]]), torch.tensor([0])
    assert certify(model, x, y, eps=0.2)[0].verdict is Verdict.CERTIFIED
    assert certify(model, x, y, Linf(0.2, clip=None))[0].verdict is Verdict.FALSIFIED


def test_a_margin_of_exactly_zero_is_not_certified():
    model, x, y = linear([[1.0], [0.0]], [0.0, 0.5]), torch.tensor([[0.75]]), torch.tensor([0])
    tie = certify(model, x, y, eps=0.25)
    assert tie[0].verdict is Verdict.UNKNOWN
    assert tie[0].bound == pytest.approx(0.0, abs=1e-12)
    nearly = certify(model, x, y, eps=0.2499)
    assert (nearly[0].verdict, nearly[0].stage) == (Verdict.CERTIFIED, "interval")


def test_a_tie_at_the_clean_input_is_not_certified():
    model = linear([[0.0], [0.0]], [1.0, 1.0])
    assert certify(model, torch.tensor([[0.5]]), torch.tensor([0]), eps=0.1)[0].verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("label", [0, 1])
def test_a_tie_leaves_a_record_that_is_read_again(label, tmp_path):
    """torch predicts the first of two equal logits; the other label is not misclassified either."""
    model, files = linear([[0.0], [0.0]], [1.0, 1.0]), CertificationFiles(tmp_path / "linf.jsonl")
    x, y = torch.tensor([[0.5]]), torch.tensor([label])
    (record,) = certify(model, x, y, eps=0.1, stages=FAST_STAGES, records=Records(files.records))
    assert (record.verdict, record.prediction) == (Verdict.UNKNOWN, 0)
    assert (record.stage == "clean") == (label == 1)
    assert record.reason == "clean: another logit is as great as that of the label"
    (again,) = certify(model, x, y, eps=0.1, stages=FAST_STAGES, records=Records(files.records, resume=True))
    assert again == record


def spike(at: float, width: float) -> nn.Module:
    """Margin 1 everywhere but on [at, at + 2 width], where it falls to -2."""
    model = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.copy_(-torch.tensor([at, at + width, at + 2 * width]))
        model[2].weight.copy_(torch.tensor([[-1.0, 2.0, -1.0], [0.0, 0.0, 0.0]]) * 3 / width)
        model[2].bias.copy_(torch.tensor([1.0, 0.0]))
    return model


def test_a_narrow_spike_that_attacks_miss_is_never_certified():
    model, x, y = spike(0.3, 2**-12), torch.tensor([[0.5]]), torch.tensor([0])
    assert least_margin(model, torch.tensor([[0.3 + 2**-12]]), 0) < -1.9
    for stages in (FAST_STAGES, *((stage,) for stage in FAST_STAGES)):
        found = certify(model, x, y, eps=0.25, stages=stages)
        assert found[0].verdict is Verdict.UNKNOWN, stages
        assert found.adversarial_accuracy == 1
    for stages in (DEFAULT_STAGES, (InputSplit(),), (Milp(),)):
        assert certify(model, x, y, eps=0.25, stages=stages)[0].verdict is Verdict.FALSIFIED
    alone = certify(model, x, y, eps=0.25, stages=[BranchAndBound()])
    assert alone[0].verdict is not Verdict.CERTIFIED


def test_a_spike_outside_the_region_does_no_harm():
    model, x, y = spike(0.125, 2**-6), torch.tensor([[0.5]]), torch.tensor([0])
    found = certify(model, x, y, eps=0.25)
    assert (found[0].verdict, found[0].stage) == (Verdict.CERTIFIED, "crown-ibp")
    assert found[0].bound == pytest.approx(1, abs=1e-3)


def test_certified_is_meant_for_the_network_itself_in_double_precision():
    """The constants of the first layer are rounded once more in single precision: no bound may rest on that."""
    falling = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        mean, std = (torch.rand(2, generator=generator) * 0.5 + 0.01).tolist()
        model = nn.Sequential(Normalize([mean], [std * 1e-3], spatial=0), *linear([[1.0], [0.0]], [0.0, 0.0]))
        exact = double(model)
        worst = torch.tensor([[0.625]], dtype=torch.float64) - 0.125
        # the other logit lies in the middle of what rounding makes of the worst point
        with torch.no_grad():
            model[1].bias[1] = exact(worst)[0, 0]
        found = certify(model, torch.tensor([[0.625]]), torch.tensor([0]), eps=0.125)
        if found[0].verdict is Verdict.CERTIFIED and least_margin(model, worst, 0) <= 0:
            falling.append((seed, found[0].bound, least_margin(model, worst, 0)))
    assert not falling


def test_batch_norm_without_running_statistics_is_refused():
    """Its answer depends on the other samples of a batch, so there is nothing to prove about one."""
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.ReLU(), nn.Linear(6, 3))
    with pytest.raises(ValueError, match="running statistics"):
        certify(model.eval(), torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1]), eps=0.01)
    conv = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(8, 3)
    )
    with pytest.raises(ValueError, match="running statistics"):
        certify(conv.eval(), torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1]), eps=0.01)


def test_a_margin_that_rounding_could_have_made_is_not_certified():
    torch.manual_seed(0)
    weight = 1e6 * torch.rand(1, 200, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(200, 2)).double()
    x = torch.rand(1, 200, dtype=torch.float64)
    with torch.no_grad():
        model[1].weight.copy_(torch.cat([weight, torch.zeros(1, 200)]))
        model[1].bias.copy_(torch.stack([-(weight @ x[0]).squeeze() + 1e-6, torch.tensor(0.0)]))
    (record,) = certify(model, x, torch.zeros(1, dtype=torch.long), eps=0.0)  # a margin of 1e-6 of sums of 1e8
    assert -1e-4 < record.bound < 1e-6
    assert record.verdict is Verdict.UNKNOWN
    with torch.no_grad():
        model[1].bias[0] += 1e-3
    (record,) = certify(model, x, torch.zeros(1, dtype=torch.long), eps=0.0)
    assert record.verdict is Verdict.CERTIFIED


def test_rounding_is_judged_over_the_whole_region():
    verdicts = []
    for seed in range(60):
        torch.manual_seed(seed)
        weight, eps = 1e4 * torch.rand(784, dtype=torch.float64), 8 / 255
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 2)).double()
        least = sum(Fraction(float(value)) for value in weight) * Fraction(eps)
        bias = float(least)
        while Fraction(bias) > least:  # so that the least margin of all is 0 or a little below
            bias = math.nextafter(bias, 0.0)
        with torch.no_grad():
            model[1].weight.copy_(torch.stack([-weight, torch.zeros(784)]))
            model[1].bias.copy_(torch.tensor([bias, 0.0], dtype=torch.float64))
        x = torch.zeros(1, 1, 28, 28, dtype=torch.float64)
        verdicts.append(certify(model, x, torch.tensor([0]), eps=eps)[0].verdict)
    assert set(verdicts) <= {Verdict.UNKNOWN, Verdict.FALSIFIED}  # the corner itself is decided in whole numbers


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_every_norm_has_its_proofs_and_counterexamples(norm, tmp_path):
    model = small(0)
    x, y = inputs(model)
    files = CertificationFiles(tmp_path / f"{norm}.jsonl")
    found = certify(model, x, y, threat(norm, 0.12), records=Records(files.records, counterexamples=True))
    assert json.loads(files.settings.read_text())["norm"] == norm
    assert found.counts[Verdict.CERTIFIED] > 5
    assert found.counts[Verdict.FALSIFIED] > 0
    region, order = regions.threat(norm, 0.12).region(x.double()), {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    points = PGD(steps=30, restarts=5)(violation_at(double(model), y), region, x.double())
    for record in found:
        if record.verdict is Verdict.CERTIFIED:
            assert least_margin(model, points[record.index][None], record.label) > 0
        assert (record.counterexample is not None) == (record.verdict is Verdict.FALSIFIED)
        if record.counterexample is not None:
            point = torch.from_numpy(record.counterexample)
            assert point.dtype == torch.float64
            assert torch.linalg.vector_norm(point - x[record.index].double(), order) <= 0.12
            assert 0 <= point.min() <= point.max() <= 1
            assert least_margin(model, point[None], record.label) < 0
            assert (np.load(files.counterexamples / f"{record.index}.npy") == record.counterexample).all()
    assert len(list(files.counterexamples.iterdir())) == found.counts[Verdict.FALSIFIED]


def test_the_smaller_ball_has_more_proofs():
    model = small(0)
    x, y = inputs(model)
    counts = [certify(model, x, y, threat(norm, 0.12)).counts for norm in ("linf", "l2", "l1")]
    certified, falsified = ([count[verdict] for count in counts] for verdict in (Verdict.CERTIFIED, Verdict.FALSIFIED))
    assert 0 < certified[0] < certified[1] < certified[2]
    assert falsified[0] > falsified[1] > falsified[2] > 0


def test_a_counterexample_must_be_one_in_the_other_implementation_too():
    model = small(0)
    x, y = inputs(model)
    plain = certify(model, x, y, eps=0.08)
    assert plain.counts[Verdict.FALSIFIED] > 0
    assert timeless(certify(model, x, y, eps=0.08, replay=double(model))) == timeless(plain)
    stubborn = certify(model, x, y, eps=0.08, replay=lambda points: torch.zeros(1, 3))
    assert stubborn.counts[Verdict.FALSIFIED] == 0
    assert stubborn.counts[Verdict.CERTIFIED] == plain.counts[Verdict.CERTIFIED]


# -------------------------------------------------------------------------------------------------------------- stages


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


def raising(problem: Problem) -> Findings:
    raise RuntimeError("out of luck")


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
    bounds = alpha_crown.lower_bounds
    monkeypatch.setattr(
        alpha_crown, "lower_bounds", lambda *args, **options: stops.append(options["stop"]) or bounds(*args, **options)
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
    assert {(record.open, record.late) for record in found} == {(Open.ERROR, True)}


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


# ------------------------------------------------------------------------------------------------------------ networks


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(value):
    model = small(0)
    with torch.no_grad():
        model[-1].weight[0, 0] = value
    with pytest.raises(ValueError, match="holds NaN or infinite values"):
        certify(model, *inputs(small(0)), eps=0.01)


def test_logits_that_are_no_numbers_leave_samples_open():
    model = small(0).double()
    with torch.no_grad():
        model[-1].weight[0, 0] = 1e308
        model[-3].bias[0] = 1e3  # the neuron behind that weight is active everywhere: their product is infinite
    x, y = inputs(small(0))
    with pytest.warns(StageFailedWarning, match="clean on 60 samples"):
        found = certify(model, x, y, eps=0.01)
    assert {record.verdict for record in found} == {Verdict.UNKNOWN}
    assert {record.open for record in found} == {Open.ERROR}
    assert {record.prediction for record in found} == {-1}
    assert {record.reason for record in found} == {"clean: the logits are NaN or infinite"}
    assert found.natural_accuracy == found.adversarial_accuracy == found.certified_accuracy == 0


def test_a_network_in_train_mode_is_taken_as_at_test_time_and_left_as_it_was():
    model = small(1, batch_norm=True)
    x, y = inputs(model)
    expected = certify(model, x, y, eps=0.05)
    model.train()
    model[2].eval()  # each module has its own mode
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = certify(model, x, y, eps=0.05)
    assert timeless(found) == timeless(expected)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    model.eval()
    assert [record.prediction for record in found] == model(x).argmax(1).tolist()


def test_a_network_in_double_precision_is_certified_in_it():
    model = small(0)
    x, y = inputs(model)
    found = certify(model.double(), x, y, eps=0.08, stages=BOUNDS)
    expected = certify(model.float(), x, y, eps=0.08, stages=BOUNDS)
    assert [record.verdict for record in found] == [record.verdict for record in expected]
    assert found.certified_accuracy > 0.1


def test_an_unsupported_layer_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Softmax(dim=1))
    with pytest.raises(ctbench.UnsupportedLayerError, match=r"layer '1' \(Softmax\): layer type torch.nn.*not supp"):
        certify(model, torch.rand(2, 4), torch.tensor([0, 1]), eps=0.1)


def test_wong_and_kolters_network_is_certified_on_real_mnist(real_mnist, kw_mnist):
    model = ctbench.networks.ConvSmall().build((1, 28, 28), 10)
    ctbench.load_weights(model, kw_mnist)
    x, y = ctbench.datasets.MNIST().load(real_mnist).test[:]
    with torch.no_grad():
        assert (model(x).argmax(1) != y).sum() == 180
    found = certify(model, x[:2], y[:2], eps=0.1, stages=[Bound(domain="crown")])
    assert found.certified_accuracy == 1


# ----------------------------------------------------------------------------------------------------------- bad input


def test_bad_input_is_explained():
    model, x, y = small(0), torch.rand(3, 4), torch.tensor([0, 1, 2])
    cases = [
        ({"y": torch.tensor([0, 1, 3])}, r"label 3 of sample 2 is out of range: the network has 3 classes"),
        ({"y": torch.tensor([0, -1, 2])}, r"label -1 of sample 1 is out of range"),
        ({"y": y.float()}, r"labels must be integers, these are torch.float32"),
        ({"y": y > 0}, r"labels must be integers, these are torch.bool"),
        ({"y": y[:2]}, r"there are 3 inputs of shape .* and 2 labels"),
        ({"x": x[:0], "y": y[:0]}, r"there are 0 inputs of shape .* and 0 labels: .* at least one"),
        ({"x": torch.rand(3, 5)}, r"takes 4 features, its input has shape \(5,\)"),
        ({"x": x + 1}, r"the inputs lie in \[1.*\] but the data range is \[0, 1\]: give raw pixels"),
        ({"x": x - 1}, r"the inputs lie in \[-"),
        ({"x": x * math.nan}, r"the inputs hold NaN or infinite values"),
        ({"x": x * math.inf, "clip": None}, r"the inputs hold NaN or infinite values"),
        ({"eps": 1.5}, r"eps is 1.5, wider than the data range"),
        ({"eps": -0.1}, r"eps is -0.1: a radius must be a number >= 0"),
        ({"eps": math.nan}, r"eps is nan: a radius must be a number >= 0"),
        ({"eps": math.inf, "clip": None}, r"eps is inf: a radius must be a number >= 0"),
        ({"clip": (1.0, 0.0)}, r"clip is \(1.0, 0.0\)"),
        ({"stages": []}, r"stages must be a list of stages.*: there are none"),
        ({"stages": [BranchAndBound]}, r"stages must be a list of stages.*BranchAndBound'> is none"),
    ]
    for changes, message in cases:
        with pytest.raises(ValueError, match=message):
            certify(**({"model": model, "x": x, "y": y, "eps": 0.1} | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x": torch.tensor(0.5)}, "x is a tensor of shape []"),
        ({"y": torch.tensor(1)}, "y a tensor of shape []"),
        ({"x": [[0.0] * 4]}, "the inputs are a list"),
        ({"eps": True}, "eps is True: a radius must be a number"),
        ({"eps": torch.tensor([0.1, 0.2])}, r"eps is tensor([0.1000, 0.2000]): a radius must be a number"),
        ({"files": "records.jsonl"}, "files is 'records.jsonl': give ctbench.results.CertificationFiles"),
    ],
)
def test_wrong_types_are_explained(changes, said):
    model = small(0)
    x, y = inputs(model, 3)
    arguments = {"x": x, "y": y, "eps": 0.1} | changes
    with pytest.raises(ValueError, match=re.escape(said)):
        certify(model, **arguments)


@pytest.mark.parametrize("shape", [(3, 1), (3, 2)])
def test_labels_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="label"):
        certify(small(0), torch.rand(3, 4), torch.zeros(shape, dtype=torch.int64), eps=0.1)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_labels_of_any_integer_type_mean_the_same(dtype):
    model = small(0)
    x, y = inputs(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = certify(model, x, y.to(dtype), eps=0.08)
    assert timeless(found) == timeless(certify(model, x, y, eps=0.08))


def test_bad_input_is_found_before_a_file_is_made(tmp_path):
    files = CertificationFiles(tmp_path / "certified" / "linf.jsonl")
    with pytest.raises(ValueError, match="eps is 2"):
        certify(small(0), torch.rand(3, 4), torch.tensor([0, 1, 2]), eps=2.0, records=Records(files.records))
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_one_class_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="the network has 1 output: a margin needs two classes or more"):
        certify(model, torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.long), eps=0.1)


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

"""What the cascade says is true: samples that are certified withstand attacks, counterexamples replay."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from tests.small import double, inputs, least_margin, linear, small, timeless
from torch import nn

from ctbench import regions
from ctbench.attacks import PGD
from ctbench.networks import Normalize
from ctbench.regions import Linf, threat
from ctbench.results import CertificationFiles, Verdict
from ctbench.specification import violation_at
from ctbench.verify import (
    DEFAULT_STAGES,
    FAST_STAGES,
    BranchAndBound,
    InputSplit,
    Milp,
    Records,
    certify,
)


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

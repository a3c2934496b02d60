"""The stage of integer programs decides what CROWN leaves open, and claims nothing without time."""

import math
from dataclasses import replace

import pytest
import torch
from tests.piecewise import frozen, network
from torch import Tensor, nn

from ctbench.domains import crown
from ctbench.regions import Linf
from ctbench.results import StageFailedWarning, Verdict
from ctbench.specification import margins
from ctbench.time_budget import Budget
from ctbench.verify import Bound, Findings, Milp, Problem, certify


def test_the_stage_decides_what_crown_leaves_open():
    model, _ = network("mlp", seed=2)
    x = torch.rand(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    bound, eps = Bound(domain="crown"), 0.1
    before = certify(model, x, y, eps=eps, stages=[bound])
    after = certify(model, x, y, eps=eps, stages=[bound, Milp()], timeout=20)
    assert after.counts[Verdict.UNKNOWN] == 0 < before.counts[Verdict.UNKNOWN]
    assert after.counts[Verdict.CERTIFIED] > before.counts[Verdict.CERTIFIED]
    assert after.counts[Verdict.FALSIFIED] > 3
    graph, region = frozen(model, x[:1]), Linf(eps=eps).region(x)
    seen = torch.stack([margins(graph(points), y).amin(1) for points in region.sample(20000)]).amin(0)
    for record in after:
        if record.verdict is Verdict.CERTIFIED:
            assert 0 < record.bound <= seen[record.index].item()
            assert record.stage in ("crown", "milp")
        else:
            assert record.stage == "milp"


def test_the_stage_takes_networks_in_single_precision():
    model, _ = network("residual", seed=1)
    model = model.float()
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    found = certify(model, x, model(x).argmax(1), eps=0.05, stages=[Milp()], timeout=20)
    assert found.counts[Verdict.UNKNOWN] == 0


def findings(stage: Milp, seconds: float = math.inf) -> tuple[Findings, Tensor]:
    """What a stage says of a sample that CROWN leaves open, and CROWN's bound."""
    model, x = network("mlp", seed=2)
    graph = frozen(model, x)
    problem = Problem.of_labels(graph, x, graph(x).argmax(1), Linf(eps=0.3))
    problem = replace(problem, budget=Budget.of([seconds]))
    return stage(problem, torch.Generator()), crown.lower_bounds(problem.proof.net, problem.region, problem.spec).amin(
        1
    )


def test_a_sample_without_time_or_with_too_many_neurons_keeps_the_bound_of_crown():
    for found, bound in (findings(Milp(), seconds=0.0), findings(Milp(unstable=0))):
        assert bool(bound < 0)
        assert found.bound.item() == pytest.approx(bound.item(), abs=1e-9)
    decided, _ = findings(Milp())
    assert bool(decided.bound >= bound)


def test_samples_that_the_stage_fails_on_stay_open():
    model, x = network("mlp")
    smooth = nn.Sequential(model, nn.Tanh())
    with pytest.warns(StageFailedWarning, match="milp on 1 sample"):
        found = certify(smooth, x, smooth(x).argmax(1), eps=0.3, stages=[Milp()])
    assert [record.verdict for record in found] == [Verdict.UNKNOWN]
    assert "not piecewise linear" in next(iter(found)).reason
    timely = certify(model, x, model(x).argmax(1), eps=0.3, stages=[Milp()], timeout=1e-6)
    assert [record.verdict for record in timely] == [Verdict.UNKNOWN]

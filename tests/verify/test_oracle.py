"""No stage and no cascade gives a wrong verdict, on networks whose least margins are known exactly.

`python -m tests.oracle_run` does the same on many more.
"""

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests import oracle_run
from tests.exact import ExactNetwork
from tests.instances import BOUNDS, FAMILIES, SEARCHES, STAGES, Instances, instances
from tests.small import linear
from tests.stages import Custom, constant
from torch import nn

from ctbench.results import SampleRecord, Verdict


@pytest.mark.parametrize("family", FAMILIES)
def test_no_verdict_is_wrong(family):
    seen: Counter[Verdict] = Counter()

    @settings(
        deadline=None, derandomize=True, max_examples=2, database=None, phases=[Phase.generate]
    )  # seeds do not shrink
    @given(st.integers(0, 10**6), st.sampled_from(list(SEARCHES)))
    def check(seed: int, search: str) -> None:
        cases = instances(family, seed, 5)
        for name in (*BOUNDS, search):
            for place, (record, fault) in enumerate(cases.certified(STAGES[name])):
                assert not fault, f"{family}, {seed}, sample {place} of {len(cases)}, {name}: {fault}"
                seen[record.verdict] += 1

    check()
    assert seen[Verdict.UNKNOWN] < seen.total()


def steep() -> Instances:
    """The margin 3 x, minus 1: it is -0.25 at 1/4, and 0.5 at 1/2."""
    model = linear([[3.0], [0.0]], [-1.0, 0.0]).double()
    x = torch.tensor([[0.25], [0.5], [0.75]], dtype=torch.float64)
    return Instances(model, x, torch.tensor([0, 0, 0]), 0.25, ExactNetwork.of(model, 1))


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_plain_is_decided(stage):
    found = [(record.verdict, fault) for record, fault in steep().certified(STAGES[stage])]
    second = Verdict.FALSIFIED if stage in SEARCHES else Verdict.UNKNOWN
    third = Verdict.UNKNOWN if stage == "falsify" else Verdict.CERTIFIED
    assert found == [(Verdict.MISCLASSIFIED, ""), (second, ""), (third, "")]


def record(verdict: Verdict, at: float | None = None) -> SampleRecord:
    point = None if at is None else np.array([at])
    return SampleRecord(
        index=0, label=0, prediction=0, verdict=verdict, stage="", bound=1.0, seconds=0.0, counterexample=point
    )


@pytest.mark.parametrize(
    ("place", "verdict", "at", "fault"),
    [
        (2, Verdict.CERTIFIED, None, ""),
        (1, Verdict.CERTIFIED, None, "the least margin is -0.25"),
        (1, Verdict.FALSIFIED, 0.25, ""),
        (1, Verdict.FALSIFIED, 0.5, "a point whose margin is 0.5"),
        (1, Verdict.FALSIFIED, float(np.nextafter(0.25, 0)), "not in the region"),
        (0, Verdict.FALSIFIED, float(np.nextafter(0, -1)), "not in the region"),
        (0, Verdict.MISCLASSIFIED, None, ""),
        (1, Verdict.MISCLASSIFIED, None, "the margin is 0.5"),
        (1, Verdict.UNKNOWN, None, ""),
    ],
)
def test_the_judge_tells_right_from_wrong(place, verdict, at, fault):
    said = steep().fault(place, record(verdict, at))
    assert fault in said
    assert bool(fault) == bool(said)


def test_the_judge_takes_a_tie_for_no_certificate_and_for_no_mistake():
    cases = steep()
    with torch.no_grad():
        cases.model[0].bias[0] = -1.5
    cases = replace(cases, eps=0.0, exact=ExactNetwork.of(cases.model, 1))
    assert cases.exact.margin([Fraction(1, 2)], 0) == 0
    for verdict, at in ((Verdict.CERTIFIED, None), (Verdict.FALSIFIED, 0.5), (Verdict.MISCLASSIFIED, None)):
        assert cases.fault(1, record(verdict, at))


@pytest.mark.parametrize("family", FAMILIES)
def test_margins_lie_on_both_sides_of_zero_and_near_it(family):
    least = [instances(family, seed, 1).least[0] for seed in range(8)]
    assert any(one.margin < 0 for one in least)
    assert any(one.margin > 0 for one in least)
    assert sum(abs(one.margin) < Fraction(1, 10**6) for one in least) >= 2


def test_instances_are_those_of_their_seed():
    first, again, other = (instances("single precision", seed, 6) for seed in (1, 1, 2))
    assert torch.equal(first.x, again.x)
    assert all(map(torch.equal, first.model.state_dict().values(), again.model.state_dict().values()))
    assert not torch.equal(first.x, other.x)
    assert first.x.dtype == torch.float32
    assert {type(layer) for layer in first.model} == {nn.Linear, nn.ReLU}


def test_the_runner_counts_and_fails_where_a_verdict_is_wrong(monkeypatch, capsys):
    arguments = ["--instances", "8", "--samples", "8", "--family", "ordinary", "--stage", "crown"]
    assert oracle_run.main(arguments) == 0
    said = capsys.readouterr().out
    assert "WRONG" not in said
    assert "exact least margins of 8 samples" in said
    monkeypatch.setitem(oracle_run.STAGES, "crown", (Custom(look=constant(1e9)),))
    assert oracle_run.main(arguments) == 1
    assert "WRONG: 'ordinary', 0, sample" in capsys.readouterr().out

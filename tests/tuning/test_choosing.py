"""What is chosen, and which parameters mattered."""

import pytest

from ctbench.results import TrialRecord
from ctbench.tuning.choosing import choice, importance


def trials(*accuracies):
    """Complete trials with these natural and certified accuracies."""
    return [
        TrialRecord(
            trial=number,
            folder=f"trials/{number:04d}",
            state="complete",
            protocol="held-out",
            parameters={"optimizer.lr": 0.001 + 0.001 * (number % 19), "robust_weight": ("0.5", "1.0")[number % 2]},
            natural_accuracy=natural,
            certified_accuracy=certified,
            bounds={},
        )
        for number, (natural, certified) in enumerate(accuracies)
    ]


def test_of_equal_certified_accuracies_the_natural_one_counts(plan):
    assert choice(plan(), trials((0.9, 0.4), (0.7, 0.5), (0.8, 0.5), (0.8, 0.5)))[0] == [2]


def test_the_front_begins_with_the_highest_certified_accuracy(plan):
    pareto = plan(objective="pareto")
    assert choice(pareto, trials((0.9, 0.3), (0.7, 0.5), (0.6, 0.5), (0.9, 0.2), (0.8, 0.4)))[0] == [1, 4, 0]


def test_without_a_complete_trial_the_errors_are_told(plan):
    (failed,) = trials((0.9, 0.3))
    failed = TrialRecord(**{**failed.to_json(), "state": "failed", "error": "TrainingDivergedError: lr"})
    with pytest.raises(ValueError, match=r"none of 1 trials is complete.*trial 0: TrainingDivergedError: lr"):
        choice(plan(), [failed])


def test_importance_finds_the_parameter_that_matters(plan):
    shares = importance(plan(), trials(*((0.9, 0.5 + 0.4 * (number % 2)) for number in range(24))))
    assert shares["evaluator"] == "PED-ANOVA"
    assert shares["values"]["robust_weight"] > 2 * shares["values"]["optimizer.lr"]
    assert sum(shares["values"].values()) == pytest.approx(1)


@pytest.mark.parametrize(("number", "reason"), [(9, "9 complete trials are too few"), (12, "same certified accuracy")])
def test_importance_says_why_it_is_not_known(plan, number, reason):
    shares = importance(plan(), trials(*[(0.9, 0.5)] * number))
    assert shares["evaluator"] is None
    assert reason in shares["reason"]

"""Plans: when trials are looked at, which recipes runs have, and what is refused."""

import re

import pytest

from ctbench.datasets import Digits, HeldOut
from ctbench.training import SmoothRamp


def test_trials_are_looked_at_from_the_full_radius_on(plan, tiny):
    assert plan().looks == (2,)
    assert plan(recipe=tiny(epochs=40, ramp=SmoothRamp(start=0, end=14.5))).looks == (15, 21, 27, 33)
    assert plan(recipe=tiny(epochs=3, ramp=SmoothRamp(start=0, end=3))).looks == ()
    assert plan(pruner="none").looks == ()
    assert plan(objective="pareto").looks == ()


def test_a_pruner_that_was_asked_for_is_used_or_refused(plan, tiny):
    assert [plan(**each).pruned_by for each in ({}, {"objective": "pareto"})] == ["median", "none"]
    assert plan(objective="pareto", pruner="none").pruned_by == "none"
    assert plan(pruner="hyperband").to_json()["settings"]["pruner"] == "hyperband"
    full_at_the_end = tiny(epochs=3, ramp=SmoothRamp(start=0, end=3))
    assert plan(recipe=full_at_the_end).pruned_by == "median"  # by default it has nothing to do
    with pytest.raises(ValueError, match="pruner is 'median', but the radius is not full before the last epoch, 3"):
        plan(recipe=full_at_the_end, pruner="median")


def test_a_trial_has_no_test_images_and_a_final_run_has_all_training_images(plan, tiny):
    made = plan(recipe=tiny(validation=0.2), seed=3)
    trial, final = made.trial({"robust_weight": "0.5"}), made.final({"robust_weight": "0.5"}, seed=8)
    assert trial.dataset == HeldOut(base=Digits(), share=0.2, seed=3)
    assert (final.dataset, final.seed, final.validation) == (Digits(), 8, 0)
    assert (trial.validation, trial.seed) == (0, tiny().seed)
    assert trial.robust_weight == final.robust_weight == 0.5
    assert plan(validation=0.3).share == 0.3
    assert plan().share == 0.1


def test_the_choice_of_an_epoch_keeps_its_own_images(plan, tiny):
    made = plan(recipe=tiny(validation=0.2, select="best"))
    assert made.trial({}).validation == made.final({}).validation == 0.2


def test_the_protocol_on_test_data_is_in_every_name(plan):
    optimistic = plan(protocol="ctbench-test-data")
    assert optimistic.trial({}).dataset == Digits()
    assert len(optimistic.compared(None)) == 359
    assert len(plan().compared(None)) == 145
    assert (optimistic.compared_on, optimistic.about) == ("test", {"selected_on": "test"})
    assert (plan().compared_on, plan().about) == ("validation", {})
    assert "ctbench-test-data" in optimistic.trial({}).source
    assert "ctbench-test-data" in optimistic.final({}).source


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"objective": "natural"}, "objective is 'natural': give one of certified, pareto"),
        ({"protocol": "test"}, "protocol is 'test': give one of held-out, ctbench-test-data"),
        ({"pruner": "early"}, "pruner is 'early'"),
        (
            {"pruner": "median", "objective": "pareto"},
            "pruner is 'median', but the objective 'pareto' needs all",
        ),
        ({"pruner": "hyperband", "objective": "pareto"}, "pruner is 'hyperband', but the objective 'pareto' needs"),
        ({"seeds": 0}, "seeds is 0"),
        ({"validation": 1.0}, "validation is 1.0: it is a share of the training set"),
        ({"validation": 0.0}, "validation is 0.0: it is a share of the training set"),
        ({"bound": "intervals"}, "no stage is called 'intervals'"),
        ({"space": ()}, "the space is empty"),
    ],
)
def test_what_is_not_valid_is_refused(plan, changes, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        plan(**changes)


def test_an_epoch_is_not_selected_by_test_images_that_are_withheld(plan, tiny):
    with pytest.raises(ValueError, match="set select=last"):
        plan(recipe=tiny(select="test"))
    assert plan(recipe=tiny(select="test"), protocol="ctbench-test-data").looks

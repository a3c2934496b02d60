"""The cascades that have a name, and the strength of their attacks."""

import pytest

from ctbench.attacks import APGD, PGD, LineSearch
from ctbench.verify import (
    CASCADES,
    CTBENCH_STAGES,
    DEFAULT_STAGES,
    FAST_STAGES,
    Bound,
    Falsify,
    stages_by_name,
    timeout_of,
    with_attack,
)


def test_the_evaluation_of_ctbench_ends_with_our_complete_verifier():
    assert stages_by_name("ctbench") == CTBENCH_STAGES
    assert [stage.title for stage in CTBENCH_STAGES] == [stage.title for stage in DEFAULT_STAGES]
    assert CTBENCH_STAGES[3:] == DEFAULT_STAGES[3:]
    assert CTBENCH_STAGES[2] == Falsify(attack=PGD(steps=200, step_size=0.2), rounds=5)
    assert CTBENCH_STAGES[1].domain.every_layer


def test_the_usual_time_of_a_cascade():
    assert {name: timeout_of(name) for name in CASCADES} == {"fast": 60, "complete": 60, "ctbench": 1000}
    assert timeout_of("interval,milp") == 60


def test_the_strength_of_all_attacks_of_a_cascade_changes():
    stages = (Bound(domain="interval"), Falsify(), Falsify(attack=APGD(restarts=2), rounds=1))
    assert with_attack(stages) == stages
    assert with_attack(stages, steps=9) == (
        stages[0],
        Falsify(attack=PGD(steps=9, step_size=0.25)),
        Falsify(attack=APGD(steps=9, restarts=2), rounds=1),
    )
    assert [stage.rounds for stage in with_attack(stages, restarts=4)[1:]] == [4, 4]
    assert with_attack(FAST_STAGES, steps=40, restarts=3) == FAST_STAGES


def test_an_attack_without_steps_and_a_cascade_without_an_attack_are_refused():
    with pytest.raises(ValueError, match="none of interval is an attack: add falsify"):
        with_attack((Bound(domain="interval"),), restarts=2)
    with pytest.raises(ValueError, match="the attack 'line-search' takes no number of steps"):
        with_attack((Falsify(attack=LineSearch()),), steps=2)

"""The journal: a process that was killed in the middle of a line blocks nobody, and loses nothing else."""

import json

import optuna
import pytest

from ctbench.tuning import journal
from ctbench.tuning.proposing import distributions, proposal


def added(study, plan, wanted=30):
    values = proposal(plan, study.get_trials(), wanted=wanted)
    running = optuna.trial.TrialState.RUNNING
    study.add_trial(optuna.trial.create_trial(state=running, params=values, distributions=distributions(plan)))
    return values


def test_a_line_that_was_cut_is_removed_before_the_next_one(plan):
    made = plan()
    values = added(journal.opened(made), made)
    with made.folder.journal.open("a") as file:
        file.write('{"op_code":4,"worker_id":"killed","stu')
    study = journal.opened(made)
    assert study.get_trials()[0].params == values
    study.tell(0, 0.5)
    lines = made.folder.journal.read_text().splitlines()
    assert [json.loads(line)["op_code"] for line in lines if "killed" not in line][-1] == 6
    assert not any("killed" in line for line in lines)
    assert journal.opened(made).get_trials()[0].value == 0.5


def test_a_journal_holds_no_pickle_and_no_process_holds_its_lock_after_a_write(plan):
    made = plan()
    study = journal.opened(made)
    added(study, made)
    assert all(isinstance(json.loads(line), dict) for line in made.folder.journal.read_text().splitlines())
    with journal.Lock(made.folder.journal).lock.acquire(timeout=0):
        pass


def test_a_proposal_depends_on_the_trials_and_the_seed_alone(plan):
    made = plan()
    study = journal.opened(made)
    for _ in range(2):
        added(study, made)
    assert proposal(made, study.get_trials(), wanted=30) == proposal(made, journal.opened(made).get_trials(), wanted=30)
    assert proposal(made, study.get_trials()[:1], wanted=30) != proposal(made, study.get_trials(), wanted=30)
    assert proposal(plan(seed=1), study.get_trials(), wanted=30) != proposal(made, study.get_trials(), wanted=30)


@pytest.mark.parametrize("first", [6, 4])
def test_each_combination_of_choices_has_its_turn_once(plan, first):
    """Even if fewer trials were wanted at first, so that the sampler chose among them."""
    made = plan(space=("robust_weight=0.5,0.8,1.0", "l1=0,1e-6"))
    study = journal.opened(made)
    tried = [tuple(added(study, made, first if number < first else 6).values()) for number in range(6)]
    assert len(set(tried)) == 6


def test_the_sampler_learns_from_trials(plan):
    """Of two choices, one of which was always better, the better one comes much more often."""
    made = plan(space=("robust_weight=0.5,1.0", "l1=0:1e-4"))
    study, chosen = journal.opened(made), []
    for number in range(24):
        values = added(study, made)
        study.tell(number, 0.9 if values["robust_weight"] == "0.5" else 0.1)
        chosen.append(values["robust_weight"])
    assert chosen[12:].count("0.5") > 9

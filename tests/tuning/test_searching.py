"""Several processes on one study: none takes a trial that another one has in hand, and none is left over."""

import threading

import pytest

from ctbench.engine import Here, Local
from ctbench.results import jsonl
from ctbench.tuning import Outcome, tune, writing
from ctbench.tuning.searching import Search

ENDED = Outcome(state="complete", natural_accuracy=0.9, certified_accuracy=0.5)


@pytest.fixture
def searching(plan):
    """Searches in one folder, as of several processes."""

    def make(wanted: int = 3, **changes) -> Search:
        made = plan()
        made.folder.path.mkdir(exist_ok=True)
        if not made.folder.study.exists():
            jsonl.write_json(made.folder.study, writing.begun(made, wanted))
        return Search(made, wanted, **changes)

    return make


def test_a_trial_that_another_process_has_in_hand_is_left_alone(searching):
    first, second = searching(), searching()
    assert [first._claimed()[0], second._claimed()[0], first._claimed()[0]] == [0, 1, 2]
    assert first._claimed() is second._claimed() is None
    assert first._unfinished() == second._unfinished() == 3
    assert not second._choose()


def test_a_trial_whose_process_died_goes_on_before_a_new_one_begins(searching):
    first, second = searching(), searching()
    number, values = first._claimed()
    first.claims.pop(number).release()  # the system does this when the process ends
    assert second._claimed() == (0, values)
    assert second._claimed()[0] == 1


def test_a_trial_that_has_ended_is_not_begun_again(searching):
    first, second = searching(wanted=2), searching(wanted=2)
    for number in range(2):
        assert first._claimed()[0] == number
        first._end(number, ENDED)
    assert second._claimed() is None
    assert second._choose()
    assert jsonl.read_json(second.plan.folder.study)["chosen"] == [0]  # of equal trials the first


def test_no_trial_begins_after_the_choice(searching):
    """Of two processes, one has less time, and chooses while the other one would still make trials."""
    first, second = searching(deadline=0.0), searching()
    second._end(second._claimed()[0], ENDED)
    assert first._choose()
    assert second._claimed() is None
    assert second._unfinished() == 0


def test_a_process_waits_for_the_trials_of_another_one(searching, monkeypatch):
    first, second = searching(wanted=1), searching(wanted=1)
    number, _ = first._claimed()
    monkeypatch.setattr("ctbench.tuning.searching.POLL", 0.01)
    thread = threading.Thread(target=second.run, args=(Here(),))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    first._end(number, ENDED)
    thread.join(30)
    assert not thread.is_alive()
    assert second.closed


def test_workers_find_what_this_process_finds(tiny, tmp_path):
    """In processes of their own, with pruning, of which the journal tells them."""
    settings = {"trials": 2, "bound": "interval", "trial_stages": "interval", "stages": "interval", "samples": 9}
    space = ("robust_weight=0.5,1.0",)
    here, there = (
        tune(tiny(), space, out=tmp_path / name, prune_after=1, engine=engine, **settings)
        for name, engine in (("here", Here()), ("there", Local(workers=1, device="cpu")))
    )
    assert [trial.accuracies for trial in here.chosen] == [trial.accuracies for trial in there.chosen]
    assert [trial.bounds for trial in here.trials] == [trial.bounds for trial in there.trials]
    assert [trial.state for trial in here.trials] == [trial.state for trial in there.trials]
    assert here.results == there.results

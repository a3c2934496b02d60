"""Each trial runs once, even after interruptions, and the records are those of an uninterrupted run."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ctbench.engine import Here, Local, Task, TasksFailedError
from ctbench.experiments import Measures, Trial, measure, run, running
from ctbench.results import jsonl
from ctbench.training import SGD

Watch = Callable[[int, int], None]


@pytest.fixture
def trials(trial) -> list[Trial]:
    return [trial(series=series, x=x, seed=seed) for seed in (0, 1) for x in (1.0, 2.5) for series in ("ST", "AT")]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "deep" / "records.jsonl"


@pytest.fixture
def measured(monkeypatch) -> list[dict[str, Any]]:
    """The measured trials; here measuring takes no time."""
    seen = []

    def quickly(trial: Trial) -> dict[str, Any]:
        seen.append(trial.key)
        return {"quantity": hash(trial.recipe.hash) / 7, "threads": torch.get_num_threads()}

    monkeypatch.setattr(running, "measure", quickly)
    return seen


def quantities(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def stopping(at: int, error: BaseException) -> Watch:
    """A watch that raises an error after this number of trials."""

    def watch(done: int, _: int) -> None:
        if done == at:
            raise error

    return watch


def test_a_record_is_the_trial_and_its_quantities(trial, path):
    (record,) = run([trial()], path)
    key = {"series": "ST", "x": 1.0, "candidate": 0.1, "seed": 0}
    assert quantities([record]) == [{**key, "trial": trial().digest, **measure(trial())}]
    assert record["seconds"] > 0


def test_records_are_told_and_written_as_they_come(trials, path, measured):
    counts = []
    records = run(trials, path, watch=lambda done, count: counts.append((done, count, len(jsonl.read(path)))))
    assert counts == [(done, 8, done) for done in range(9)]
    assert records == jsonl.read(path)
    assert measured == [trial.key for trial in trials]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the disk is full")])
@pytest.mark.parametrize("torn", [b"", b'{"series": "ST", "x": 1.0, "candid'])
def test_what_was_cut_is_taken_up_where_it_was(trials, path, measured, error, torn):
    whole = run(trials, path.with_name("whole.jsonl"))
    measured.clear()
    with pytest.raises(type(error)):
        run(trials, path, watch=stopping(3, error))
    with path.open("ab") as file:
        file.write(torn)
    counts = []
    records = run(trials, path, watch=lambda done, count: counts.append((done, count)))
    assert counts == [(done, 8) for done in range(3, 9)]
    assert measured == [trial.key for trial in trials]
    assert jsonl.read(path) == records
    assert quantities(records) == quantities(whole)


def test_a_trial_that_was_interrupted_is_run_again(trials, path, measured, monkeypatch):
    quickly = running.measure

    def interrupted(trial: Trial) -> dict[str, Any]:
        if trial == trials[2]:
            raise KeyboardInterrupt
        return quickly(trial)

    monkeypatch.setattr(running, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(trials, path)
    assert len(jsonl.read(path)) == 2
    monkeypatch.setattr(running, "measure", quickly)
    assert len(run(trials, path)) == 8
    assert measured == [trial.key for trial in trials]


def test_two_runs_at_once_do_not_write_the_same_records(trials, path, measured):
    def another_begins(done: int, count: int) -> None:
        with pytest.raises(ValueError, match=r"another process writes .*records\.jsonl"):
            run(trials, path)

    assert len(run(trials, path, watch=another_begins)) == len(measured) == 8


def test_other_trials_may_be_in_the_file(trials, path, measured):
    run(trials[4:], path)
    assert [record["seed"] for record in run(trials[:6], path)] == [0, 0, 0, 0, 1, 1]
    assert len(measured) == len(jsonl.read(path)) == 8
    assert len(run(trials[:6], path)) == 6
    assert len(measured) == len(jsonl.read(path)) == 8


@pytest.mark.parametrize(
    "changes", [{"epochs": 4}, {"measures": Measures(attacks=("pgd",))}, {"measures": Measures(followed=3)}]
)
def test_a_trial_that_was_made_or_measured_otherwise_is_refused(trial, path, measured, changes):
    run([trial()], path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"records\.jsonl holds a trial .*'seed': 0.* another recipe or other meas"):
        run([trial(seed=1), trial(**changes)], path)
    assert path.read_bytes() == before
    assert len(measured) == 1


def test_the_name_of_a_recipe_does_not_count(trial, path, measured):
    run([trial()], path)
    run([trial(name="renamed", source="elsewhere")], path)
    assert len(measured) == 1


def test_other_records_are_refused(trials, path, measured):
    path.parent.mkdir()
    path.write_text('{"series": "ST", "x": 1, "candidate": 0.1, "seed": 0}\n')
    with pytest.raises(ValueError, match=r"records\.jsonl holds records that are not trials: choose another"):
        run(trials, path)
    assert path.read_text().count("\n") == 1
    assert not measured


def test_no_trial_is_begun_after_the_total(trials, path, monkeypatch):
    now = 5.0

    def in_ten_seconds(_: Trial) -> dict[str, Any]:
        nonlocal now
        now += 10
        return {}

    monkeypatch.setattr(running, "measure", in_ten_seconds)
    monkeypatch.setattr(running, "time", SimpleNamespace(perf_counter=lambda: now))
    assert [record["seconds"] for record in run(trials, path, total=25)] == [10, 10, 10]
    assert len(run(trials, path, total=10)) == 4
    assert len(run(trials, path, total=-1)) == len(run(trials, path, total=-1, engine=Local(workers=2))) == 4
    assert len(run(trials, path)) == 8


def test_a_trial_that_diverges_is_recorded_and_not_tried_again(trial, path, monkeypatch):
    diverging = trial(optimizer=SGD(lr=1e30))
    (record,) = run([diverging], path)
    assert quantities([record]) == [{**diverging.key, "trial": diverging.digest, "diverged": record["diverged"]}]
    assert "epoch" in record["diverged"]
    monkeypatch.setattr(running, "measure", None)
    assert run([diverging], path) == [record]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_trial_is_measured_in_one_thread(trial, path, measured, threads):
    torch.set_num_threads(threads)
    try:
        assert run([trial()], path)[0]["threads"] == 1
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)


def test_processes_find_what_one_finds_and_end_when_they_are_interrupted(trials, path):
    endless = replace(trials[3], recipe=replace(trials[3].recipe, epochs=10**7))
    with pytest.raises(KeyboardInterrupt):
        run([*trials[:3], endless], path, engine=Local(workers=2), watch=stopping(3, KeyboardInterrupt()))
    ordered = sorted(quantities(jsonl.read(path)), key=str)
    assert ordered == sorted(quantities(run(trials[:3], path.with_name("one.jsonl"))), key=str)


class Twice(Here):
    """An engine whose worker dies after it has sent its record: so each record comes twice."""

    def run(self, tasks: Iterable[Task], *, count: int | None = None) -> Generator[tuple[str, Any]]:
        for task in tasks:
            yield from super().run([task, task])


def test_a_record_that_comes_twice_is_written_once(trials, path, measured):
    assert len(run(trials, path, engine=Twice())) == len(jsonl.read(path)) == len(trials)


def test_a_trial_that_fails_is_told_and_the_others_run(trials, path):
    wrong = replace(trials[1], measures=None)
    with pytest.raises(TasksFailedError, match=r"1 task failed \(trial .*'AT'.*: AttributeError: .*'NoneType'"):
        run([trials[0], wrong, *trials[2:4]], path, engine=Local(workers=2))
    assert len(jsonl.read(path)) == 3

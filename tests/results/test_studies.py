"""Studies are read without torch and without Optuna."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from ctbench.results import Study, StudyFolder, TrialRecord, jsonl
from ctbench.results.studies import ENTRIES, Hindsight, TestedTrial, front, values_in_words


def record(trial, state="complete", natural=None, certified=None):
    return TrialRecord(
        trial=trial,
        folder=f"trials/{trial:04d}",
        state=state,
        protocol="held-out",
        parameters={"l1": "1e-6"},
        natural_accuracy=natural,
        certified_accuracy=certified,
        bounds={"2": 0.25},
        pruned_at=2 if state == "pruned" else None,
    )


@pytest.fixture
def written(tmp_path):
    folder = StudyFolder(tmp_path)
    content = dict.fromkeys(ENTRIES) | {
        "name": "tiny",
        "protocol": "held-out",
        "objective": "certified",
        "chosen": [1],
        "results": [{"trial": 1, "seed": 0, "folder": "final/0001-seed-0", "error": "diverged"}],
        "finished": True,
    }
    jsonl.write_json(folder.study, content)
    jsonl.rewrite(folder.trials, [record(0, "pruned").to_json(), record(1, natural=0.9, certified=0.5).to_json()])
    return folder


def test_a_study_is_read(written):
    study = Study.read(written.path)
    assert [trial.trial for trial in study.chosen] == [1]
    assert study.trials[0].pruned_at == 2
    assert study.trials[1].accuracies == (0.9, 0.5)
    assert [run.path for run in study.runs] == [written.path / "final/0001-seed-0"]
    assert "2 trials, held-out" in repr(study)


def test_neither_torch_nor_optuna_is_needed(written):
    code = (
        "import sys; from ctbench.results import Study; Study.read(sys.argv[1]); "
        "assert not {'torch', 'optuna'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(written.path)], check=True)


def test_before_the_choice_nothing_is_chosen(written):
    jsonl.write_json(written.study, {**jsonl.read_json(written.study), "chosen": None, "results": []})
    assert Study.read(written.path).chosen == ()


def test_a_folder_that_is_no_study_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("is not the folder of a study: it has no study.json")):
        Study.read(tmp_path)
    StudyFolder(tmp_path).study.write_text(json.dumps({"name": "tiny"}))
    with pytest.raises(ValueError, match="it lacks recipe, protocol"):
        Study.read(tmp_path)
    StudyFolder(tmp_path).study.write_text("[]")
    with pytest.raises(ValueError, match="it lacks all entries"):
        Study.read(tmp_path)


def test_a_record_with_another_field_is_refused(written):
    jsonl.append(written.trials, [{**record(2).to_json(), "accuracy": 1.0}])
    with pytest.raises(ValueError, match=r"trials\.jsonl, line 3: not the record of a trial: accuracy"):
        Study.read(written.path)


def test_hindsight_takes_the_first_of_equal_trials():
    trials = (TestedTrial(0, 9, 0.9, 0.4), TestedTrial(1, 9, 0.8, 0.5), TestedTrial(2, 9, 0.8, 0.5))
    assert Hindsight("fast", 60.0, trials).best.trial == 1
    assert Hindsight("fast", 60.0, (*trials, TestedTrial(3, 9, 0.9, 0.5))).best.trial == 3


def test_trials_and_their_values_are_told_in_words(written):
    study = Study.read(written.path)
    assert study.trials_by_state == "1 pruned, 1 complete"
    assert [trial.ending for trial in study.trials] == ["pruned after epoch 2", "complete"]
    assert replace(study.trials[1], state="failed", error="it diverged").ending == "it diverged"
    assert values_in_words({"choices": ["0.5", "1"]}) == "0.5, 1"
    whole = {"low": 1, "high": 8, "log": True, "whole": True}
    assert values_in_words(whole) == "1 to 8 (logarithmic, whole numbers)"
    assert values_in_words(whole | {"log": False, "whole": False}) == "1 to 8"


def test_the_front_has_no_trial_that_another_one_beats():
    trials = [
        record(0, natural=0.9, certified=0.3),
        record(1, natural=0.8, certified=0.5),
        record(2, natural=0.8, certified=0.4),
        record(3, "pruned"),
        record(4, natural=0.8, certified=0.5),
    ]
    assert [trial.trial for trial in front(trials)] == [0, 1, 4]

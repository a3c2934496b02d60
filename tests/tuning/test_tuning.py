"""Studies from their beginning to their end: what is chosen, what is written, and how they go on after a kill."""

import csv
import re
import shutil
from dataclasses import replace

import pytest
from tests.training_runs import Killed

import ctbench
from ctbench import report
from ctbench.datasets import Digits
from ctbench.results import CertificationFiles, RunFolder, Study, jsonl
from ctbench.results.studies import Hindsight, TestedTrial
from ctbench.training import load_run
from ctbench.training.trainer import Trainer
from ctbench.tuning import choosing, final_certification, finishing, searching, tune, writing
from ctbench.tuning import trial as trials
from ctbench.tuning.plan import Plan
from ctbench.verify import stages_by_name, timeout_of


def test_a_study_chooses_by_held_out_images_and_tests_its_choice(tuned, folder):
    told = list[tuple[str, str]]()
    study = tuned(seeds=2, watch=lambda run, what: told.append((run, getattr(what, "step", None) or what.state)))
    assert [trial.trial for trial in study.trials] == [0, 1, 2]
    complete = [trial for trial in study.trials if trial.state == "complete"]
    (best,) = study.chosen
    assert best.certified_accuracy == max(trial.certified_accuracy for trial in complete)
    assert (study.protocol, study.finished, study.content["compared_on"]) == ("held-out", True, "validation")
    assert [(result["trial"], result["seed"], result["samples"]) for result in study.results] == [
        (best.trial, 0, 9),
        (best.trial, 1, 9),
    ]
    final, trial = (load_run(each.path) for each in (study.runs[0], folder.trial(best.trial)))
    assert final.recipe.dataset == Digits()
    assert len(final.load_data().train) == len(trial.load_data().train) + 145
    assert trial.recipe.dataset.share == 0.1
    (tested,) = study.runs[0].certifications()
    certification, settings = tested.read(), tested.read_settings()
    assert (len(certification), settings["dataset"], "selected_on" in settings) == (9, "digits", False)
    assert certification.certified_accuracy == study.results[0]["certified_accuracy"]
    assert report.rows([study.runs[0].path])[0].cells()[3] == "ibp"
    (compared,) = folder.trial(best.trial).certifications()
    assert (len(compared.read()), compared.read_settings()["dataset"]) == (145, "digits-validation")
    assert compared.read().certified_accuracy == best.certified_accuracy
    assert compared.read().natural_accuracy == best.natural_accuracy
    assert {path.name for path in (folder.path / "final").iterdir()} == {run.path.name for run in study.runs}
    assert told[0] == ("trial 0", "train")
    assert told[-4:] == [(result["folder"], what) for result in study.results for what in ("certify", "complete")]


def test_a_study_is_written_to_be_read(finished, folder):
    study = finished
    (best,) = study.chosen
    text, rows = folder.text.read_text(), list(csv.DictReader(folder.table.read_text().splitlines()))
    assert [row["state"] for row in rows] == [trial.state for trial in study.trials]
    assert [float(row["optimizer.lr"]) for row in rows] == [trial.parameters["optimizer.lr"] for trial in study.trials]
    assert {row["protocol"] for row in rows} == {"held-out"}
    assert f"trial {best.trial} has the highest certified accuracy" in text
    assert "Protocol: `held-out`" in text
    assert f"| {study.results[0]['folder']} |" in text
    assert f"{100 * best.certified_accuracy:.2f} %" in study.content["why"]
    assert study.content["importance"]["evaluator"] is None
    assert "complete trials are too few: PED-ANOVA needs 10" in text
    assert Study.read(folder.path) == study


def test_a_study_looks_back_at_its_trials_on_the_test_images(tuned, folder, monkeypatch):
    before = tuned(pruner="none")
    assert (before.hindsight, folder.hindsight.exists()) == (None, False)
    study = tuned(pruner="none", hindsight=True)  # the same command may ask for it later
    assert (study.content, study.trials) == (before.content, before.trials)
    test = Digits().load().test[:9]
    for tested, trial in zip(study.hindsight.trials, study.trials, strict=True):
        run = load_run(folder.trial(trial.trial).path)
        expected = ctbench.certify(run.model, *test, run.recipe.threat, stages=stages_by_name("interval"))
        assert (tested.trial, tested.samples) == (trial.trial, 9)
        assert tested.certified_accuracy == expected.certified_accuracy
        assert tested.natural_accuracy == expected.natural_accuracy
        assert CertificationFiles(folder.hindsight_of(trial.trial)).read_settings()["selected_on"] == "test"
    assert "In hindsight" in folder.text.read_text()
    monkeypatch.setattr(final_certification, "certify", None)
    assert tuned(pruner="none", hindsight=True) == study  # what is there is not done again


def test_hindsight_says_what_a_choice_by_test_images_would_have_given(tuned):
    study = tuned(pruner="none", trials=2)
    (chosen,) = study.chosen
    other = 1 - chosen.trial
    ours, best = (TestedTrial(number, 9, 0.9, share) for number, share in ((chosen.trial, 0.25), (other, 0.5)))
    looked_back = replace(study, hindsight=Hindsight("interval", 60.0, (ours, best)))
    said = writing.text(looked_back)
    assert f"trial {other} would have been chosen: its certified accuracy on them is 50.00 %" in said
    assert f"that of trial {chosen.trial} 25.00 %" in said
    equal = replace(best, certified_accuracy=0.25, natural_accuracy=0.8)
    looked_back = replace(study, hindsight=Hindsight("interval", 60.0, (ours, equal)))
    assert f"trial {chosen.trial} would also have been chosen" in writing.text(looked_back)


def test_a_study_on_test_data_needs_no_hindsight(tuned):
    with pytest.raises(ValueError, match="hindsight is for trials that are compared on held-out images"):
        tuned(protocol="ctbench-test-data", hindsight=True)


def test_a_damaged_hindsight_is_named(tuned, folder):
    tuned(trials=1)
    jsonl.write_json(folder.hindsight, {"stages": "interval", "trials": []})
    with pytest.raises(ValueError, match=r"hindsight.json holds.*timeout"):
        Study.read(folder.path)
    jsonl.write_json(folder.hindsight, {"stages": "interval", "timeout": 60.0, "trials": []})
    with pytest.raises(ValueError, match="not about the complete trials 0"):
        Study.read(folder.path)


def test_a_trial_that_reads_test_images_fails(tuned, monkeypatch):
    """There are none in its data set, so it makes no difference who tries."""
    monkeypatch.setattr(Plan, "compared", lambda plan, root: plan.trial({}).dataset.load(root).test)
    with pytest.raises(ValueError, match=r"none of 3 trials is complete.*the test images are withheld"):
        tuned(pruner="none")


def test_a_run_of_a_study_cannot_be_certified_on_test_images(finished, folder):
    (best,) = finished.chosen
    with pytest.raises(ValueError, match="the test images are withheld"):
        ctbench.certify(load_run(folder.trial(best.trial).path))
    assert not list((folder.trial(best.trial).path / "certified").glob("linf-*"))


def test_test_images_are_not_read_before_the_choice(tuned, folder, monkeypatch):
    """Whenever the test images of the data set are taken in a batch, the choice is in study.json."""
    of_test, batch = Digits().load().test.labels, ctbench.datasets.Images.batch

    def watched(self, index, device):
        if len(self.labels) in (len(of_test), 9):
            assert jsonl.read_json(folder.study)["chosen"] is not None
            read.append(len(self.labels))
        return batch(self, index, device)

    read = list[int]()
    monkeypatch.setattr(ctbench.datasets.Images, "batch", watched)
    tuned()
    assert read


def test_the_protocol_on_test_data_marks_all_that_it_writes(tuned, folder):
    study = tuned(protocol="ctbench-test-data", trials=2)
    (best,) = study.chosen
    assert (study.protocol, study.content["compared_on"]) == ("ctbench-test-data", "test")
    assert {trial.protocol for trial in study.trials} == {"ctbench-test-data"}
    files = [*study.runs[0].certifications(), *folder.trial(best.trial).certifications()]
    assert [each.read_settings()["selected_on"] for each in files] == ["test", "test"]
    assert files[1].records.name.startswith("test-")
    assert report.rows([study.runs[0].path])[0].cells()[3] == "ibp (selected on test data)"
    assert len(files[1].read()) == 359
    assert "the results on these images are optimistic" in folder.text.read_text()
    assert "ctbench-test-data" in load_run(study.runs[0].path).recipe.source
    assert "ctbench-test-data" in folder.table.read_text()


def test_the_front_is_tested(tuned):
    study = tuned(objective="pareto", trials=4, space=("robust_weight=0:1",))
    assert {trial.state for trial in study.trials} == {"complete"}
    for trial in study.trials:
        beaten = any(
            other.natural_accuracy >= trial.natural_accuracy
            and other.certified_accuracy >= trial.certified_accuracy
            and other.accuracies != trial.accuracies
            for other in study.trials
        )
        assert (trial in study.chosen) != beaten
    assert [result["trial"] for result in study.results] == [trial.trial for trial in study.chosen]
    assert sorted(study.chosen, key=lambda trial: -trial.certified_accuracy) == list(study.chosen)


class Cut:
    """Kills the process at a chosen call of a function."""

    def __init__(self, monkeypatch, owner, name, call):
        self.calls, self.call, self.function = 0, call, getattr(owner, name)
        cut = self

        def wrapped(*args, **kwargs):
            cut.calls += 1
            if cut.calls == cut.call:
                raise Killed
            return cut.function(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapped)


PLACES = {
    "in the first training": (Trainer, "epoch", 2),
    "between an epoch and the look at it": (trials.Look, "__call__", 5),
    "before a comparison": (trials, "certify", 3),
    "before the end of a trial is told": (searching.Search, "_end", 2),
    "when the trials are written": (writing, "write_trials", 2),
    "before the choice": (choosing, "choice", 1),
    "in the final training": (finishing, "train", 1),
    "before the test": (final_certification, "certify", 1),
    "before the results": (writing, "write_text", 1),
}


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A study that nothing interrupted."""
    return tune(tiny(), SPACE, out=tmp_path_factory.mktemp("whole") / "study", **SETTINGS)


SPACE = ("optimizer.lr=0.001:0.02:log", "robust_weight=0.5,1.0")
SETTINGS = {"trials": 3, "bound": "interval", "trial_stages": "interval", "stages": "interval", "samples": 9}
SETTINGS["prune_after"] = 1


@pytest.fixture
def finished(whole, folder):
    """A copy of it, in the folder of the test."""
    shutil.copytree(whole.path, folder.path)
    return Study.read(folder.path)


def untimed(study):
    return [replace(trial, seconds=0.0) for trial in study.trials], study.content


@pytest.mark.parametrize("place", PLACES)
def test_a_study_that_was_killed_ends_like_one_that_was_not(place, tiny, folder, whole, monkeypatch):
    with monkeypatch.context() as patch:
        cut = Cut(patch, *PLACES[place])
        with pytest.raises(Killed):
            tune(tiny(), SPACE, out=folder.path, **SETTINGS)
        assert cut.calls == cut.call
    study = tune(tiny(), SPACE, out=folder.path, **SETTINGS)
    assert untimed(study) == untimed(whole)
    for trial in study.trials:
        metrics = jsonl.read(RunFolder(folder.path / trial.folder).metrics)
        assert [record["epoch"] for record in metrics] == list(range(1, (trial.pruned_at or 3) + 1))


def test_a_finished_study_is_only_read(tuned, finished, folder, monkeypatch):
    before = {path: path.read_bytes() for path in folder.path.rglob("*.json*")}
    monkeypatch.setattr("ctbench.tuning.trial.train", None)
    monkeypatch.setattr("ctbench.tuning.finishing.train", None)
    assert tuned() == finished
    assert {path: path.read_bytes() for path in folder.path.rglob("*.json*")} == before


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda lines: [*lines[:1], "garbage\n", *lines[2:]], 2),
        (lambda lines: [*lines[:2], lines[2].replace("complete", "failed").replace("pruned", "failed")], 3),
        (lambda lines: lines[:2], 3),
        (lambda lines: [*lines[:2], lines[2].rstrip()], 3),
        (lambda lines: [*lines, lines[2]], 4),
        (lambda lines: [*lines, '{"trial": 3'], 4),
        (lambda lines: [], 1),
    ],
)
def test_damaged_trials_of_a_finished_study_are_named_and_not_written_again(tuned, folder, damage, line):
    folder.trials.write_text("".join(damage(folder.trials.read_text().splitlines(keepends=True))))
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=rf"trials\.jsonl, line {line}: ") as error:
        tuned()
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("finished")
def test_a_finished_study_without_its_journal_loses_no_trial(tuned, folder):
    folder.journal.unlink()
    before = folder.trials.read_bytes()
    with pytest.raises(ValueError, match=r"trials\.jsonl, line 1: not as the study left it, by journal\.jsonl"):
        tuned()
    assert folder.trials.read_bytes() == before


def test_a_study_goes_on_with_more_trials_until_it_has_chosen(tuned, folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ctbench.tuning.searching.Search._choose", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tuned(trials=2)
    assert len(tuned(trials=4).trials) == 4
    with pytest.raises(ValueError, match="has chosen among 4 trials, and its choice has been tested"):
        tuned(trials=5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"space": ("robust_weight=0.5,1.0",)}, "space.optimizer.lr"),
        ({"protocol": "ctbench-test-data"}, "(it differs in protocol, settings.validation)"),
        ({"objective": "pareto"}, "differs in objective"),
        ({"validation": 0.2}, "differs in settings.validation)"),
        ({"stages": "crown"}, "differs in settings.stages)"),
    ],
)
def test_the_folder_of_another_study_is_refused(tuned, folder, whole, changes, expected):
    folder.path.mkdir()
    jsonl.write_json(folder.study, whole.content)
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        tuned(**changes)
    assert "holds another study" in str(error.value)
    assert "choose another folder (--out)" in str(error.value)


def test_what_a_kill_left_before_the_study_began_is_no_obstacle(tuned, folder):
    folder.path.mkdir()
    folder.lock.touch()
    (folder.path / "study.json.unfinished").touch()
    assert tuned(trials=1).finished


@pytest.mark.parametrize(("seed", "order"), [(0, ["1.0", "0"]), (1, ["0", "1.0"])])
def test_a_bad_trial_is_pruned_at_its_first_look_once_a_better_one_is_complete(tuned, tiny, folder, seed, order):
    """Training without robust loss proves nothing: this trial is given up, unless it comes first."""
    study = tuned(recipe=tiny(epochs=6), space=("robust_weight=0,1.0",), trials=2, seed=seed)
    assert [trial.parameters["robust_weight"] for trial in study.trials] == order
    first, second = study.trials
    assert (first.state, list(first.bounds)) == ("complete", ["2", "3", "4", "5"])
    if order[0] == "0":
        assert (second.state, second.pruned_at) == ("complete", None)
    else:
        assert first.bounds["2"] > second.bounds["2"]
        assert (second.state, second.pruned_at, list(second.bounds)) == ("pruned", 2, ["2"])
        assert len(jsonl.read(folder.trial(1).metrics)) == 2
        assert (second.certified_accuracy, study.chosen) == (None, (first,))


def test_final_runs_are_certified_by_stages_of_their_own(tuned, folder):
    study = tuned(trials=1, trial_stages="interval", stages="crown", timeout=7.0)
    (final,), (trial,) = (run.certifications() for run in (study.runs[0], folder.trial(0)))
    stages = [[repr(stage) for stage in stages_by_name(name)] for name in ("crown", "interval")]
    assert [each.read_settings()["stages"] for each in (final, trial)] == stages
    assert [each.read_settings()["timeout"] for each in (final, trial)] == [7.0, timeout_of("interval")]


def test_hyperband_looks_at_the_same_epochs(tuned, tiny):
    study = tuned(recipe=tiny(epochs=9, train_samples=256), trials=4, pruner="hyperband", space=("robust_weight=0:1",))
    assert [trial for trial in study.trials if trial.state == "complete"]
    for trial in study.trials:
        looked = [epoch for epoch in ("2", "3", "5", "7") if int(epoch) <= (trial.pruned_at or 9)]
        assert list(trial.bounds) == looked


def test_a_folder_of_other_files_is_refused(tuned, folder):
    folder.path.mkdir()
    (folder.path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds other files \(notes.txt\)"):
        tuned()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trials": 0}, "trials is 0"),
        ({"total": 0.0}, "total is 0.0"),
        ({"recipe": "digits_ibp"}, "give a Recipe"),
        ({"space": ("robust_weight=0.5,2",)}, "robust_weight is 2"),
    ],
)
def test_what_is_not_valid_is_refused_before_anything_is_written(tuned, folder, changes, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        tuned(**changes)
    assert not folder.path.exists()


def test_no_trial_begins_after_the_time(tuned, monkeypatch):
    clock = iter(range(0, 10_000, 3))
    monkeypatch.setattr("ctbench.tuning.searching.now", lambda: next(clock))
    monkeypatch.setattr("ctbench.tuning.tuning.now", lambda: 0)
    study = tuned(trials=50, total=25.0)
    assert 1 <= len(study.trials) < 9
    assert study.finished


def test_a_small_space_has_no_more_trials_than_combinations(tuned):
    study = tuned(space=("robust_weight=0.5,1.0",), trials=9, pruner="none")
    assert sorted(trial.parameters["robust_weight"] for trial in study.trials) == ["0.5", "1.0"]
    assert study.content["trials"] == 2


def test_a_trial_that_diverges_is_a_failed_trial(tuned):
    study = tuned(space=("optimizer.lr=0.01,1e30",), trials=2, pruner="none")
    failed, complete = sorted(study.trials, key=lambda trial: trial.state == "complete")
    assert (failed.state, complete.state) == ("failed", "complete")
    assert failed.error.startswith("TrainingDivergedError: tiny diverged in epoch")
    assert (failed.certified_accuracy, failed.parameters) == (None, {"optimizer.lr": "1e30"})
    assert study.chosen == (complete,)


def test_values_that_do_not_fit_together_are_a_failed_trial(tuned, monkeypatch):
    monkeypatch.setattr("ctbench.tuning.space.MOST", 1)
    study = tuned(space=("ramp.end=1,3", "epochs=2,4"), trials=4, pruner="none")
    (failed,) = (trial for trial in study.trials if trial.state == "failed")
    assert failed.parameters == {"ramp.end": "3", "epochs": "2"}
    assert "ramp.end is 3" in failed.error


def test_an_error_of_the_machine_is_not_the_end_of_a_trial(tuned, folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ctbench.training.checkpoints.write_whole", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            tuned()
    assert [trial.state for trial in tuned().trials].count("failed") == 0


def test_a_final_run_that_diverges_is_a_result(tuned, monkeypatch):
    def diverging(*_, **__):
        raise ctbench.training.TrainingDivergedError("the loss is nan")

    monkeypatch.setattr("ctbench.tuning.finishing.train", diverging)
    study = tuned()
    assert study.finished
    assert study.results[0]["error"] == "TrainingDivergedError: the loss is nan"
    assert "the loss is nan" in (study.path / "study.md").read_text()


def test_a_refused_folder_is_left_as_it_is(tuned, folder):
    folder.path.mkdir(parents=True)
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files \(notes.txt\)"):
        tuned()
    assert [path.name for path in folder.path.iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("finished")
def test_a_damaged_line_of_the_journal_is_named(tuned, folder):
    lines = folder.journal.read_text().splitlines()
    folder.journal.write_text("\n".join([*lines[:2], "garbage", *lines[3:]]) + "\n")
    with pytest.raises(ValueError, match=r"journal.jsonl, line 3: not a JSON object"):
        tuned()

"""`ctbench tune`: a study from a shell."""

import re
import sys

import pytest
from tests.cli.short import TINY

import ctbench.tuning
from ctbench.cli import main, tune
from ctbench.engine import Here
from ctbench.results import Study, jsonl
from ctbench.tuning import Outcome

SHORT = ["tune", "digits_ibp", *TINY, "--set", "shi=0", "--trials", "2", "--samples", "9"]
SHORT += ["--stages", "interval", "--trial-stages", "interval", "--bound", "interval"]
SPACE = ["--space", "robust_weight=0.5,1.0"]


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """What workers would do is done in this process."""
    monkeypatch.setattr(tune, "engine", lambda *_, **__: Here())


def test_tune_chooses_tests_and_tells(succeeds, tmp_path):
    said = [succeeds(*SHORT, *SPACE, "--out", tmp_path / "study", "--seeds", 2) for _ in range(2)]
    assert said[0] == said[1]  # the second time there is nothing left to do
    study = Study.read(tmp_path / "study")
    (best,) = study.chosen
    assert f"trial {best.trial} has the highest certified accuracy of 2 complete trials" in said[0]
    for seed in (0, 1):
        (row,) = re.findall(rf"final/{best.trial:04d}-seed-{seed} +(.*)", said[0])
        certified = study.results[seed]["certified_accuracy"]
        assert row.split()[:3] + row.split()[-1:] == [str(best.trial), str(seed), "9", f"{100 * certified:.2f}"]
    assert said[0].endswith(f"{tmp_path / 'study' / 'study.md'}\n")
    assert "optimistic" not in said[0]


def test_tune_tells_what_a_choice_by_test_images_would_have_given(succeeds, tmp_path):
    said = succeeds(*SHORT, *SPACE, "--out", tmp_path / "study", "--hindsight", "--quiet")
    assert re.search(r"By test images, trial \d would", said)


def test_tune_tells_how_trials_go_on(capsys, tmp_path):
    space = ["--space", "optimizer.lr=0.01,1e30"]
    assert main([*SHORT, *space, "--out", str(tmp_path / "study")]) == 0
    told = capsys.readouterr().err
    assert "trial 0: begins" in told
    assert re.search(r"trial \d: certified \d+\.\d\d % after", told)
    assert re.search(r"trial \d: failed after .*: TrainingDivergedError", told)
    assert main([*SHORT, *space, "--out", str(tmp_path / "quiet"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_no_run_of_a_front_or_of_a_study_that_goes_on_waits_longer_than_it_does(capsys, tmp_path, monkeypatch):
    front = [*SHORT, *SPACE, "--objective", "pareto", "--out", str(tmp_path / "study")]
    begin = tune.Watched.__call__

    def interrupted(self, name, message):
        begin(self, name, message)
        if name == "trial 0" and isinstance(message, Outcome):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tune.Watched, "__call__", interrupted)
        assert main(front) == 130
    assert "(0 at work, 2 waiting, 1 complete, 0 failed)" in capsys.readouterr().err
    monkeypatch.setattr("ctbench.tuning.choosing.choice", lambda *_: ([0, 1], "both"))
    assert main(front) == 0
    counts = re.findall(r"\((\d+) at work, (-?\d+) waiting, (\d+) complete", capsys.readouterr().err)
    assert counts == [("0", "1", "1"), ("1", "0", "2"), ("0", "0", "3")]  # trial 1, and two final runs


def test_tune_marks_the_protocol_on_test_data(succeeds, tmp_path):
    said = succeeds(*SHORT, *SPACE, "--out", tmp_path / "study", "--protocol", "ctbench-test-data", "--quiet")
    assert "trials were compared on the test images (--protocol ctbench-test-data)" in said
    assert Study.read(tmp_path / "study").protocol == "ctbench-test-data"


def test_tune_takes_the_options_of_a_recipe_and_files_of_spaces(succeeds, tmp_path):
    jsonl.write_json(tmp_path / "space.json", {"l1": ["0", "1e-6"]})
    space = ["--space", "robust_weight=0.5:1", str(tmp_path / "space.json"), "--validation", "0.3", "--seed", 5]
    succeeds(*SHORT, *space, "--objective", "pareto", "--total", 1000, "--out", tmp_path / "study", "--quiet")
    content = Study.read(tmp_path / "study").content
    assert set(content["space"]) == {"robust_weight", "l1"}
    assert (content["recipe"]["seed"], content["settings"]["validation"]) == (5, 0.3)
    assert content["settings"]["pruner"] == "none"


def test_an_interruption_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ctbench.tuning.trial.train", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main([*SHORT, *SPACE, "--out", str(tmp_path / "study"), "--quiet"]) == 130
    assert "interrupted; the same command continues the study" in capsys.readouterr().err
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--space", "robust_wait=0.5,1"], "has no field 'robust_wait'"),
        (["--space", "l1=1:0"], "the range 1:0 is empty"),
        (["--space", "l1=0:1:log"], "a logarithmic range begins above 0"),
        (["--space", "no.json"], "no.json: there is no such file or folder"),
        (["--space", "threat.eps=0.1,0.2"], "threat.eps is the same in all trials"),
        (["--space", "l1=0,1", "l1=2,3"], "l1 is in the space twice"),
        ([*SPACE, "--trials", "0"], "'0' is not a whole number of 1 or more"),
        ([*SPACE, "--pruner", "median", "--objective", "pareto"], "the objective 'pareto' needs all trials"),
        ([*SPACE, "--validation", "1"], "validation is 1.0"),
        ([*SPACE, "--set", "select=test"], "set select=last"),
        ([*SPACE, "--total=-1"], "'-1' is not a number of seconds"),
        ([], "--space"),
    ],
)
def test_tune_refuses_what_is_not_valid_before_it_trains(fails, tmp_path, options, expected):
    assert expected in fails(*SHORT, *options, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_tune_refuses_the_folder_of_another_study(fails, succeeds, tmp_path):
    succeeds(*SHORT, *SPACE, "--out", tmp_path / "study", "--quiet")
    line = fails(*SHORT, *SPACE, "--seed", "3", "--out", tmp_path / "study")
    assert "holds another study (it differs in recipe.seed)" in line
    assert "has chosen among 2 trials" in fails(*SHORT, *SPACE, "--trials", "1", "--out", tmp_path / "study")


def test_tune_without_optuna_says_what_to_install(fails, tmp_path, monkeypatch):
    for module in ("finishing", "searching", "journal", "proposing", "choosing"):
        monkeypatch.delitem(sys.modules, f"ctbench.tuning.{module}", raising=False)
        monkeypatch.delattr(ctbench.tuning, module, raising=False)  # undone with it: both are one module again
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install optuna" in fails(*SHORT, *SPACE, "--out", tmp_path / "new")


def test_the_spaces_are_listed(succeeds):
    assert "ctbench-cifar10-2" in succeeds("list", "spaces")

"""Tables as pandas.DataFrame: numbers are numbers, of all digits."""

import re
import sys

import pytest
from tests.report.site.runs import certify, make_run, make_study, search

from ctbench import report
from ctbench.report.comparison import UNKNOWN
from ctbench.report.curves import radius_rows
from ctbench.results import Study, jsonl


@pytest.fixture
def runs(tmp_path):
    """Two seeds; the second one has another learning rate, and certifies 1 of 3 samples."""
    pytest.importorskip("pandas")
    return [
        make_run(tmp_path / "a", "ccc", eps=2 / 255, more={"optimizer": {"lr": 0.1}}),
        make_run(tmp_path / "b", "cfu", eps=2 / 255, seed=1, more={"optimizer": {"lr": 0.25}}),
    ]


def test_runs_have_numbers_and_the_parameters_that_differ(runs):
    frame = report.to_pandas(report.rows([run.path for run in runs]))
    assert frame["run"].tolist() == ["a", "b"]
    assert frame["eps"].tolist() == [2 / 255] * 2
    assert frame["certified %"].tolist() == [100, 100 * (1 / 3)]
    assert frame["optimizer.lr"].tolist() == [0.1, 0.25]
    assert (frame["samples"].tolist(), frame["seed"].tolist()) == ([3, 3], [0, 1])
    assert frame["training seconds"].tolist() == [3.0, 3.0]
    numbers = ["eps", "samples", "natural %", "adversarial %", "certified %", *UNKNOWN, "optimizer.lr"]
    assert all(frame[name].dtype.kind in "fi" for name in numbers)
    assert frame.sort_values("certified %")["run"].tolist() == ["b", "a"]


def test_a_run_without_a_certification_has_no_accuracies(runs, tmp_path):
    waiting = make_run(tmp_path / "waiting", "")
    frame = report.to_pandas(report.rows([runs[1].path, waiting.path]))
    assert frame["certified %"].isna().tolist() == [False, True]


def test_groups_have_means_and_intervals(runs):
    groups = report.grouped(report.rows([run.path for run in runs]), over=("seed", "optimizer.lr"))
    (group,) = report.to_pandas(groups).to_dict("records")
    assert (group["method"], group["runs"], group["samples"], group["eps"]) == ("ibp", 2, 3, 2 / 255)
    assert group["certified %"] == pytest.approx((100 + 100 / 3) / 2, rel=1e-15)
    assert (group["certified from"], group["certified to"]) == (0, 100)
    assert group["certified s"] == groups[0].certified.deviation


def test_fronts_have_a_row_for_each_mark(runs):
    marks = report.scatter_marks(report.rows([run.path for run in runs]), "natural", "certified")
    fronts = report.fronts(marks)
    frame = report.to_pandas(fronts)
    ours = frame[frame["by"] == "here"]
    assert (ours["x"].tolist(), ours["y"].tolist()) == ([100, 100], [100, 100 * (1 / 3)])
    assert ours["dominated by"].tolist() == ["", ours["label"].tolist()[0]]
    named = report.to_pandas(report.front_rows(fronts, "natural", "certified"))
    assert named["certified"].tolist() == frame["y"].tolist()


def test_radii_and_curves_are_tables(runs):
    search(runs[0])
    radii = runs[0].searches()[0].read()
    frame = report.to_pandas(radii)
    assert frame["certified"].tolist() == [0.1, 0.2]
    assert frame["falsified"].isna().tolist() == [False, True]
    certify(runs[0], "ccf", eps=0.1)
    rows = radius_rows([runs[0].path])
    assert report.to_pandas(rows)["certified"].tolist() == [row["certified"] for row in rows]


def test_trials_have_their_parameters_as_numbers(tmp_path):
    pytest.importorskip("pandas")
    study = make_study(tmp_path / "study")
    trials = jsonl.read(study.path / "trials.jsonl")
    for trial, eps, name in zip(trials, ("2/255", "0.05", "1e-3"), ("adam", "sgd", "0.1"), strict=True):
        trial["parameters"] |= {"eps": eps, "optimizer": name}
        trial["bounds"] = {"2": 0.25}
    jsonl.rewrite(study.path / "trials.jsonl", trials)
    frame = report.to_pandas(Study.read(study.path))
    assert frame["method.alpha"].tolist() == [0.1, 0.3, 0.5]
    assert frame["eps"].tolist() == [2 / 255, 0.05, 1e-3]
    assert frame["optimizer"].tolist() == ["adam", "sgd", "0.1"]
    assert frame["state"].tolist() == ["complete", "complete", "pruned"]
    assert frame["certified_accuracy"].tolist()[:2] == [0.7, 0.85]
    assert frame["bound after epoch 2"].tolist() == [0.25] * 3


def test_no_rows_are_an_empty_table():
    pytest.importorskip("pandas")
    assert len(report.to_pandas([])) == 0


@pytest.mark.parametrize("table", ["runs/mine", 3, [1, 2], {"run": "a"}])
def test_what_is_no_table_is_refused(table):
    pytest.importorskip("pandas")
    with pytest.raises(ValueError, match=re.escape(f"a {type(table).__name__} is not a table: give rows(...)")):
        report.to_pandas(table)


def test_pandas_is_named_if_it_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r"pandas is not there .*: pip install pandas"):
        report.to_pandas([])

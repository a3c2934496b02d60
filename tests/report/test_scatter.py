"""Runs and published results in one plot."""

import pytest
from tests.report.test_comparison import record

from ctbench import report
from ctbench.results import RunFolder, jsonl


@pytest.fixture
def make(tmp_path):
    """A run on a data set at a radius, certified on four samples."""

    def make(name: str, dataset: str, eps: float, *verdicts: str) -> RunFolder:
        run = RunFolder(tmp_path / name)
        run.path.mkdir(exist_ok=True)
        jsonl.write_json(run.recipe, {"method": {"name": "ibp"}})
        files = run.certification(f"linf-{eps:.10g}")
        files.start({"norm": "linf", "eps": eps, "dataset": dataset, "network": "cnn7"}, resume=False)
        files.append([record(i, verdict) for i, verdict in enumerate(verdicts[:-1])])
        files.append([record(9, verdicts[-1], prediction=int(verdicts[-1] != "misclassified"))])
        return run

    return make


def test_a_run_stands_beside_what_is_published_for_its_setting(make):
    runs = [
        make("ours", "cifar10", 8 / 255, "certified", "unknown", "certified", "misclassified"),
        make("other", "digits", 0.1, "certified", "falsified"),
    ]
    marks = report.scatter_marks(report.rows([run.path for run in runs]), "natural", "certified")
    ours = [mark for mark in marks if not mark.by]
    assert [(mark.label, mark.x, mark.y, mark.panel) for mark in ours] == [
        ("ours", 75.0, 50.0, "cifar10, linf eps 8/255"),
        ("other", 100.0, 50.0, "digits, linf eps 0.1"),
    ]
    published = [mark for mark in marks if mark.by]
    assert {mark.panel for mark in published} == {"cifar10, linf eps 8/255"}
    shown = {(mark.label, mark.by, mark.x, mark.y) for mark in published}
    assert len(shown) == len(published)  # COLT is printed in two papers
    assert ("COLT", "Balunovic & Vechev 2020", 51.7, 27.5) in shown
    assert ("l-infinity-distance net", "Zhang et al. 2022a", 54.30, 40.06) in shown
    assert ("MTL-IBP", "CTBench", 54.28, 35.41) in shown
    assert ("MTL-IBP", "De Palma et al. 2024", 53.35, 35.44) in shown
    assert "PGD" not in {mark.label for mark in published}


def test_other_accuracies_and_norms_have_other_marks(make):
    rows = report.rows([make("ours", "mnist", 0.3, "certified", "certified").path])
    marks = report.scatter_marks(rows, "natural", "adversarial")
    assert {mark.by for mark in marks} == {"", "CTBench", "De Bartolomeis et al. 2023"}
    assert (99.2, 90.5) in {(mark.x, mark.y) for mark in marks if mark.label == "AT"}


def test_what_cannot_be_drawn_is_an_error(make, tmp_path):
    rows = report.rows([make("ours", "mnist", 0.3, "certified", "certified").path])
    with pytest.raises(ValueError, match="'speed' is not an accuracy of a run: give two of natural, adversarial"):
        report.scatter_marks(rows, "natural", "speed")
    run = RunFolder(tmp_path / "new")
    run.path.mkdir()
    jsonl.write_json(run.recipe, {})
    with pytest.raises(ValueError, match="none of the runs has been certified"):
        report.scatter_marks(report.rows([run.path]), "natural", "certified")
    marks = report.scatter_marks(rows, "natural", "certified")
    with pytest.raises(ValueError, match=r"is neither a \.png nor a \.svg file"):
        report.draw_scatter(marks, "natural", "certified", tmp_path / "plot.pdf")


def test_runs_are_filled_and_published_marks_hollow(make, monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    rows = report.rows([make("ours", "tinyimagenet", 1 / 255, "certified", "unknown").path])
    marks = report.scatter_marks(rows, "natural", "certified")
    report.draw_scatter(marks, "natural", "certified", tmp_path / "plot.png")
    (axis,) = drawn[0].axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("natural accuracy (%)", "certified accuracy (%)")
    assert len(axis.collections) == len(marks)
    filled = [each for each in axis.collections if len(each.get_facecolors())]
    assert [each.get_offsets().tolist() for each in filled] == [[[100.0, 50.0]]]
    assert sorted(text.get_text() for text in axis.texts if text.get_text()) == sorted(mark.label for mark in marks)
    legend = [text.get_text() for text in axis.get_legend().get_texts()]
    assert sorted(legend) == sorted({mark.by or "runs" for mark in marks})


def test_the_same_marks_give_the_same_bytes(make, tmp_path):
    rows = report.rows([make("ours", "tinyimagenet", 1 / 255, "certified", "unknown").path])
    for name in ("once.svg", "again.svg"):
        report.draw_scatter(report.scatter_marks(rows, "natural", "certified"), "natural", "certified", tmp_path / name)
    assert (tmp_path / "once.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()

"""Tables and figures of analyses, from records alone."""

import math
from pathlib import Path

import pytest

from ctbench.report import analysis_figures
from ctbench.report.analyses import Result, as_csv, beside_accuracies, table
from ctbench.results import (
    CertificationFiles,
    Layout,
    Measurement,
    Measurements,
    PartRecord,
    RunFolder,
    SampleRecord,
    Verdict,
)

SETTINGS = {"run": "one", "method": "ibp", "train_eps": 0.1, "network_digest": "d", "norm": "linf"}


def record(points, *, eps=0.1, start=0, stop=2) -> PartRecord:
    return PartRecord(eps=eps, start=start, stop=stop, digest="x", seconds=0.0, points=tuple(points))


def result(*records: PartRecord, folder: Path | None = None, **settings) -> Result:
    return Result(SETTINGS | settings, Measurements(records), folder)


def cells(drawn) -> list[list[str]]:
    return [list(row) for row in drawn.rows]


def certified(folder: Path, share: int, *, eps: float = 0.1, digest: str = "d") -> Path:
    """A run of which `share` of 10 samples are certified, and one more withstood attacks."""
    files: CertificationFiles = RunFolder(folder).certification(f"linf-{eps}")
    files.start({"network_digest": digest, "norm": "linf", "eps": eps}, resume=False)
    for index in range(10):
        proved = index < share
        files.append(
            [
                SampleRecord(
                    index=index,
                    label=0,
                    prediction=0,
                    verdict=Verdict.CERTIFIED if proved else Verdict.FALSIFIED if index > share else Verdict.UNKNOWN,
                    stage="interval",
                    bound=1.0 if proved else -1.0,
                    seconds=0.0,
                )
            ]
        )
    return folder


def test_a_table_has_a_row_for_each_run_radius_and_place():
    first = result(
        record([Measurement({"whole": 3.0}), Measurement({"a": [1.0, 2.0]}, 0.5), Measurement({"a": [3.0, 4.0]}, 1.0)]),
        record([Measurement({"whole": 4.0}), Measurement({"a": [5.0, 6.0]}, 0.5)], eps=0.2),
    )
    second = result(record([Measurement({"b": 7.0, "layer 1: b": 9.0})]), run="[two]", method=None, train_eps=None)
    drawn = table("title", [first, second], "lambda")
    assert list(drawn.headings) == ["run", "method", "train eps", "eps", "samples", "lambda", "whole", "a", "b"]
    assert cells(drawn) == [
        ["one", "ibp", "0.1", "0.1", "2", "-", "3", "-", "-"],
        ["one", "ibp", "0.1", "0.1", "2", "0.5", "-", "1.5", "-"],
        ["one", "ibp", "0.1", "0.1", "2", "1", "-", "3.5", "-"],
        ["one", "ibp", "0.1", "0.2", "2", "-", "4", "-", "-"],
        ["one", "ibp", "0.1", "0.2", "2", "0.5", "-", "5.5", "-"],
        ["[two]", "-", "-", "0.1", "2", "-", "-", "-", "7"],
    ]


def test_many_places_are_left_to_the_csv_file():
    many = result(record([Measurement({"whole": 1.0}), *(Measurement({"density": 0.1}, float(x)) for x in range(60))]))
    assert len(cells(table("title", [many]))) == 1
    assert as_csv([("centres", many)]).count("density") == 60


def test_the_csv_file_has_means_and_spreads():
    text = as_csv([("it", result(record([Measurement({"a": [1.0, None, 4.0]})], stop=3)))])
    deviation, error = math.sqrt(4.5), math.sqrt(4.5 / 2)
    assert text.splitlines() == [
        "analysis,run,method,train eps,eps,x,quantity,mean,standard deviation,standard error,samples",
        f"it,one,ibp,0.1,0.1,,a,2.5,{deviation:.6g},{error:.6g},2",
    ]


def test_correlations_with_certified_and_adversarial_accuracy(tmp_path):
    values = {2: 0.1, 5: 0.5, 8: 0.6}
    results = [
        result(
            record([Measurement({"own accuracy": value})], stop=10),
            folder=certified(tmp_path / str(share), share),
            run=str(share),
        )
        for share, value in values.items()
    ]
    whole = record([Measurement({"own accuracy": 1.0})], stop=10)
    results.append(result(whole, folder=tmp_path / "uncertified"))
    results.append(result(whole, folder=tmp_path / "2", network_digest="other"))
    pairs = beside_accuracies(results, "own accuracy")
    assert [(p.accuracy, p.accuracies) for p in pairs] == [
        ("certified", (0.2, 0.5, 0.8)),
        ("adversarial", (0.3, 0.6, 0.9)),
    ]
    # of (.1, .5, .6) and (.2, .5, .8): the products of deviations sum to .15, the squares to .14 and .18
    assert pairs[0].correlation == pytest.approx(0.15 / math.sqrt(0.14 * 0.18))
    assert str(pairs[0]).endswith("3 runs: correlation 0.9449, difference -0.1000 +- 0.1000")
    assert pairs[0].runs == ("2", "5", "8")


def test_accuracies_are_those_of_the_samples_of_the_analysis(tmp_path):
    folder = certified(tmp_path / "run", 3)
    measured = [Measurement({"own accuracy": 0.5})]
    few = result(record(measured, start=2, stop=6), folder=folder)
    (pairs, _) = beside_accuracies([few], "own accuracy")
    assert pairs.accuracies == (0.25,)  # of the samples 2 to 5 only 2 is certified
    assert "one,ibp,0.1,0.1,,certified accuracy,0.25,,,4" in as_csv([("own", few)], accuracies=True)
    assert "certified accuracy" not in as_csv([("own", few)])
    assert not few.certified_elsewhere(0.1)
    more = result(record(measured, start=2, stop=12), folder=folder)  # 10 and 11 were not certified
    assert beside_accuracies([more], "own accuracy") == []
    assert more.certified_elsewhere(0.1)
    nowhere = result(record(measured), folder=tmp_path / "uncertified")
    assert not nowhere.certified_elsewhere(0.1)


def test_one_run_has_no_correlation(tmp_path):
    only = result(record([Measurement({"tightness": 0.5})]), folder=certified(tmp_path / "run", 3))
    (pairs, _) = beside_accuracies([only], "tightness")
    assert pairs.correlation is None
    assert str(pairs) == "tightness and certified accuracy at eps 0.1, 1 run: correlation -"


@pytest.mark.parametrize("kind", ["bars", "lines", "histogram", "scatter"])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_each_kind_of_figure_is_drawn_to_the_same_bytes(kind, suffix, tmp_path):
    pytest.importorskip("matplotlib")
    points = [Measurement({"a": [0.1, 0.4]}), Measurement({"a": [0.1, 0.4]}, 0.5), Measurement({"a": [0.2, 0.5]}, 1.0)]
    folder = certified(tmp_path / "run", 3)
    results = [
        result(record(points), record(points, eps=0.2), folder=folder),
        result(record(points), folder=folder, run="two", train_eps=0.3),
    ]
    layout = Layout(kind=kind, quantities=("a",), label="a", x_label="x", log=kind == "lines")
    contents = []
    for name in ("first", "second"):
        path = tmp_path / f"{name}.{suffix}"
        analysis_figures.draw(results, layout, "title", path)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    assert len(contents[0]) > 1000


def test_a_scatter_needs_certified_runs(tmp_path):
    pytest.importorskip("matplotlib")
    layout = Layout(kind="scatter", quantities=("a",), label="a")
    with pytest.raises(ValueError, match="no run was certified at the radius of its analysis"):
        analysis_figures.draw([result(record([Measurement({"a": 1.0})]))], layout, "title", tmp_path / "it.png")

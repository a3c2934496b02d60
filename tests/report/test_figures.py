"""Figures from records: the chosen candidate, means and spreads, and the written files."""

import math
import sys
from dataclasses import replace
from typing import Any

import pytest

from ctbench import report
from ctbench.report import Panel, Plot, Point

ROBUST = Panel(quantity="robust_error", label="robust error (%)")
PLOT = Plot(title="Fig. 1", x_label="eps", panels=(ROBUST,))


def record(robust_error: float, **changes: Any) -> dict[str, Any]:
    return {
        "series": "AT",
        "x": 1.0,
        "candidate": 0.1,
        "seed": 0,
        "standard_error": 0.0,
        "robust_error": robust_error,
        "train_error": 0.0,
    } | changes


def lost(**changes: Any) -> dict[str, Any]:
    """The record of a trial that diverged."""
    return {"series": "AT", "x": 1.0, "candidate": 0.1, "seed": 0, "diverged": "epoch 2: the loss is inf"} | changes


def seeds(*errors: float, **changes: Any) -> list[dict[str, Any]]:
    return [record(error, seed=seed, **changes) for seed, error in enumerate(errors)]


def candidate(records: list[dict[str, Any]], plot: Plot = PLOT) -> float:
    """The candidate that is shown at the only x."""
    (point,) = report.points(records, plot)
    return point.candidate


# ------------------------------------------------------------------------------------------ candidates


def test_the_candidate_of_least_mean_is_shown():
    records = seeds(0.1, 0.5, candidate=0.1) + seeds(0.25, 0.3, candidate=0.01) + seeds(0.4, 0.0, candidate=0.001)
    assert candidate(records) == 0.001
    assert candidate(records[::-1]) == 0.001
    assert candidate(records[:4]) == 0.01
    better = seeds(0.3, 0.4, candidate=1.0, standard_error=-1.0)
    assert candidate(records + better, replace(PLOT, best="standard_error")) == 1.0


def test_of_equal_candidates_the_smallest_is_shown():
    assert candidate(seeds(0.2, candidate=0.1) + seeds(0.2, candidate=0.01) + seeds(0.2, candidate=1.0)) == 0.01


def test_a_candidate_that_fits_with_every_seed_goes_before_a_better_one():
    records = [
        *seeds(0.1, 0.1, candidate=0.1, train_error=0.5),
        record(0.2, candidate=0.01),
        record(0.2, candidate=0.01, seed=1, train_error=0.02),
        *seeds(0.4, 0.4, candidate=0.001),
        *seeds(0.3, 0.4, candidate=1.0),
    ]
    assert candidate(records) == 0.1
    assert candidate(records, replace(PLOT, fitting=True)) == 1.0
    assert candidate(records[:4], replace(PLOT, fitting=True)) == 0.1, "where none fits, all count"


def test_a_candidate_that_diverged_with_a_seed_is_not_shown():
    records = [record(0.1), lost(seed=1), *seeds(0.4, 0.5, candidate=0.01)]
    assert candidate(records) == 0.01


def test_each_place_and_line_has_its_own_candidate():
    records = [
        record(error, series=series, x=x, candidate=rate)
        for series, x, errors in (
            ("ST", 2.0, (0.3, 0.2)),
            ("AT", 2.0, (0.2, 0.3)),
            ("ST", 1.0, (0.6, 0.7)),
            ("AT", 1.0, (0.9, 0.8)),
        )
        for rate, error in zip((0.1, 0.01), errors, strict=True)
    ]
    drawn = [(point.series, point.x, point.candidate) for point in report.points(records, PLOT)]
    assert drawn == [("ST", 1, 0.1), ("ST", 2, 0.01), ("AT", 1, 0.01), ("AT", 2, 0.1)]
    only = report.points(records, replace(PLOT, series=("AT",)))
    assert [(point.series, point.x) for point in only] == [("AT", 1), ("AT", 2)]


# ------------------------------------------------------------------------------------------ means and spreads


def test_means_and_spreads_by_hand():
    records = seeds(0.1, 0.3, 0.8)  # the mean is 0.4, squares from it 0.09 + 0.01 + 0.16
    deviation = math.sqrt(0.26 / 2)
    (point,) = report.points(records, replace(PLOT, spread="standard deviation"))
    assert point.values["robust_error"] == pytest.approx((0.4, deviation), abs=1e-15)
    (point,) = report.points(records, PLOT)
    assert point.values["robust_error"] == pytest.approx((0.4, deviation / math.sqrt(3)), abs=1e-15)
    assert (point.series, point.x, point.candidate, point.seeds) == ("AT", 1, 0.1, 3)


def test_one_seed_has_no_spread():
    (point,) = report.points(seeds(0.25), PLOT)
    values: dict[str, tuple[float, float | None]] = {"robust_error": (0.25, None)}
    assert point == Point(series="AT", x=1.0, candidate=0.1, seeds=1, fits=True, values=values)


def test_epochs_are_points_from_1_on():
    courses = ([0.5, 0.3, 0.2], [0.7, 0.3, 0.4])
    records = [record(0.2, seed=seed, epochs={"robust_error": course}) for seed, course in enumerate(courses)]
    worse = [record(0.9, seed=seed, candidate=0.01, epochs={"robust_error": [0, 0, 0]}) for seed in (0, 1)]
    points = report.points(records + worse, replace(PLOT, epochs=True))
    assert [(point.x, point.candidate, point.seeds) for point in points] == [(1, 0.1, 2), (2, 0.1, 2), (3, 0.1, 2)]
    expected = [(0.6, 0.1), (0.3, 0.0), (0.3, 0.1)]
    for point, numbers in zip(points, expected, strict=True):
        assert point.values["robust_error"] == pytest.approx(numbers, abs=1e-15)


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("series", [(), ("COAP",)])
def test_no_records_are_told(series):
    with pytest.raises(ValueError, match=r"there are no records to show as 'Fig\. 1': run the experiment first"):
        report.points(seeds(0.1) if series else [], replace(PLOT, series=series))


def test_a_place_where_all_diverged_is_told():
    records = [record(0.1), lost(seed=1), lost(candidate=0.01), record(0.2, x=2.0)]
    with pytest.raises(ValueError, match=r"AT diverged at 1 with every candidate: .* smaller .*\(epoch 2: the loss is"):
        report.points(records, PLOT)


def test_that_matplotlib_is_missing_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"matplotlib is not there .*: pip install matplotlib"):
        report.draw(report.points(seeds(0.1), PLOT), PLOT, tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------ files


@pytest.fixture
def plot() -> Plot:
    panels = (ROBUST, Panel(quantity="standard_error", label="standard error", percent=False))
    return replace(PLOT, panels=panels, x_label="eps, l2", spread="standard deviation")


@pytest.fixture
def records() -> list[dict[str, Any]]:
    return [
        *seeds(0.1, 0.3),
        *seeds(1 / 3, x=2.5, candidate=0.001, train_error=0.1),
        *seeds(0.5, 0.5, series="COAP", standard_error=0.25),
    ]


def test_the_csv_is_whole(records, plot):
    assert report.as_csv(report.points(records, plot), plot).splitlines() == [
        'series,"eps, l2",candidate,fits,seeds,robust_error,robust_error standard deviation,'
        "standard_error,standard_error standard deviation",
        "AT,1,0.1,yes,2,0.2,0.141421,0,0",
        "AT,2.5,0.001,no,1,0.333333,,0,",
        "COAP,1,0.1,yes,2,0.5,0,0.25,0",
    ]


@pytest.mark.parametrize(("kind", "begins"), [("png", b"\x89PNG\r\n"), ("svg", b"<?xml")])
def test_a_drawing_is_the_same_bytes_each_time(tmp_path, records, plot, kind, begins):
    points = report.points(records, plot)
    for name in ("once", "again"):
        report.draw(points, plot, tmp_path / name / f"figure.{kind}")
    once, again = ((tmp_path / name / f"figure.{kind}").read_bytes() for name in ("once", "again"))
    assert once.startswith(begins)
    assert once == again
    report.draw(report.points(records[:2], plot), plot, tmp_path / f"other.{kind}")
    assert (tmp_path / f"other.{kind}").read_bytes() != once


def test_a_drawing_shows_means_spreads_and_names(monkeypatch, tmp_path, records, plot):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    report.draw(report.points(records, plot), plot, tmp_path / "figure.png")
    left, right = drawn[0].axes
    assert (drawn[0].get_suptitle(), left.get_xlabel(), right.get_xlabel()) == ("Fig. 1", "eps, l2", "eps, l2")
    assert (left.get_ylabel(), right.get_ylabel()) == ("robust error (%)", "standard error")
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["AT", "COAP"]
    at, coap = left.get_lines()
    assert at.get_xydata().tolist() == [[1, pytest.approx(20)], [2.5, pytest.approx(100 / 3)]]
    assert coap.get_ydata().tolist() == [50]
    assert right.get_lines()[1].get_ydata().tolist() == [0.25]
    assert at.get_marker() != coap.get_marker()
    heights = left.collections[0].get_paths()[0].get_extents()
    deviation = 100 * math.sqrt(0.02)
    assert (heights.y0, heights.y1) == pytest.approx((20 - deviation, 20 + deviation))

"""What pages show of analyses, from their records alone."""

import math

import pytest
from tests.report.site.runs import analyse, make_run, subjects

from ctbench.report.site.analysis_page import compared_analyses, own_analyses
from ctbench.report.site.measured import AnalysisView
from ctbench.report.site.subjects import Subject
from ctbench.results import Layout, Measurement

VALUES = [0.1, 0.2, 0.3, 0.4]


def lines(table) -> list[list[str]]:
    return [[cell.text for cell in line.cells] for line in table.lines]


def texts(chart) -> list[str]:
    return [point.text for path in chart.paths for point in path.points]


def viewed(subject: Subject, kind: str, *quantities: str, **fields: object) -> Subject:
    layout = Layout(kind=kind, quantities=quantities, label="share", **fields)
    view = AnalysisView(about="What it is.", layout=layout)
    return Subject(folder=subject.folder, name=subject.name, page=subject.page, views={"a": view})


@pytest.fixture
def runs(tmp_path):
    return [
        make_run(tmp_path / name, verdicts, settings={"network_digest": "d"})
        for name, verdicts in (("one", "cccm"), ("two", "ccfm"), ("three", "cffm"))
    ]


def test_a_run_has_a_table_of_means_with_their_errors_at_each_radius(runs):
    analyse(runs[0], "a", Measurement({"sampled": VALUES, "interval": 0.5, "layer 1: sampled": VALUES}))
    runs[0].analysis("a").append(runs[0].analysis("a").read().records[0].__class__(
        eps=0.2, start=0, stop=4, digest="same", seconds=0.0, points=(Measurement({"sampled": [1.0, 1, 1, 1]}),)
    ))  # fmt: skip
    (part,) = own_analyses(subjects(runs)[0])
    (table,) = part.tables
    assert table.headings == ("quantity", "eps 0.1", "eps 0.2")
    assert lines(table) == [["sampled", "0.25", "1"], ["interval", "0.5", "-"]]
    assert [cell.detail for cell in table.lines[0].cells] == ["", "± 0.065", "± 0"]
    assert table.note == "±: the standard error of the mean over the samples."
    numbers = part.numbers.content.splitlines()
    assert numbers[1] == "a,one,ibp,0.1,0.1,,sampled,0.25,0.129099,0.0645497,4"
    assert any("layer 1: sampled" in line for line in numbers)
    assert part.samples == "4 samples"


def test_a_run_without_records_or_with_an_analysis_that_has_just_begun_shows_nothing(runs):
    runs[0].analysis("a").start({"analysis": "a"})
    assert own_analyses(subjects(runs)[0]) == own_analyses(subjects(runs)[1]) == []


def test_bars_of_one_run_are_its_quantities_and_of_several_runs_a_series_each(runs):
    for place, run in enumerate(runs[:2]):
        analyse(run, "a", Measurement({"sampled": [value + place for value in VALUES], "interval": 0.5}))
    several = [viewed(subject, "bars", "sampled") for subject in subjects(runs[:2])]
    (bars,) = own_analyses(several[0])[0].charts
    assert texts(bars) == ["one, sampled: 0.25 ± 0.065", "one, interval: 0.5"]
    (part,) = compared_analyses(several)
    (bars,) = part.charts
    assert [path.name for path in bars.paths] == ["one", "two"]
    assert bars.paths[1].points[0].text == "two, sampled: 1.25 ± 0.065"
    assert bars.paths[1].points[0].href == "run-two.html"
    assert bars.files[0].content.splitlines()[:2] == ["run,quantity,mean,error", "one,sampled,0.25,0.0645497"]
    assert (part.title, part.about) == ("a: digits, linf eps 0.1", "What it is.")
    assert lines(part.tables[0]) == [
        ["one", "0.25", "0.5", "75.00", "ibp", "0.1"],
        ["two", "1.25", "0.5", "50.00", "ibp", "0.1"],
    ]


def test_runs_of_one_name_keep_their_own_layers(runs):
    for place, run in enumerate(runs[:2]):
        analyse(run, "a", Measurement({"q": VALUES, **{f"layer {k}: q": float(10 * place + k) for k in (1, 2)}}))
    alike = [
        Subject(folder=run.folder, name="same", page=run.page, views=viewed(run, "bars", "q").views)
        for run in subjects(runs[:2])
    ]
    (part,) = compared_analyses(alike)
    layers = part.charts[-1]
    assert [[point.text for point in path.points] for path in layers.paths] == [
        ["same, layer 1: 1", "same, layer 2: 2"],
        ["same, layer 1: 11", "same, layer 2: 12"],
    ]


def test_lines_leave_out_what_a_logarithmic_axis_has_no_place_for(runs):
    for run in runs[:2]:
        analyse(
            run,
            "a",
            *(Measurement({"up": x, "down": 1 - x, "layer 1: conv": 2.0, "layer 2: relu": 0.0}, x) for x in (0.1, 1.0)),
        )
    several = [viewed(subject, "lines", "up", "down", x_label="lambda", log=True) for subject in subjects(runs[:2])]
    chart, layers = own_analyses(several[0])[0].charts
    assert texts(chart) == ["up, lambda 0.1: 0.1", "up, lambda 1: 1", "down, lambda 0.1: 0.9"]
    assert (chart.x.log, chart.y.log) == (True, True)
    assert layers.title == "Share by layer at lambda 1, eps 0.1"
    assert texts(layers) == ["conv, layer 1: 2"]
    (part,) = compared_analyses(several)
    assert [chart.title for chart in part.charts] == ["Share: up, eps 0.1", "Share: down, eps 0.1"]
    assert lines(part.tables[0])[0][:3] == ["one", "1", "0"]
    assert part.tables[0].note.startswith("At lambda 1.")


def test_an_axis_with_many_places_has_no_table_and_no_marks(runs):
    analyse(runs[0], "a", *(Measurement({"density": 1.0 / (1 + x)}, float(x)) for x in range(30)))
    (part,) = own_analyses(viewed(subjects(runs)[0], "lines", "density", x_label="centre"))
    assert part.tables == ()
    assert [path.kind for path in part.charts[0].paths] == ["curve"]


def test_a_scatter_of_several_runs_has_the_correlation_with_the_certified_accuracy_and_one_run_a_histogram(runs):
    for place, run in enumerate(runs):
        analyse(run, "a", Measurement({"tight": [value - 0.01 * place for value in VALUES]}))
    several = [viewed(subject, "scatter", "tight") for subject in subjects(runs)]
    (histogram,) = own_analyses(several[0])[0].charts
    heights = [float(line.split(",")[-1]) for line in histogram.files[0].content.splitlines()[1:]]
    assert math.isclose(sum(heights), 100)
    (part,) = compared_analyses(several)
    scatter, _ = part.charts
    assert texts(scatter) == [
        "one: tight 0.25, certified 75.00 %",
        "two: tight 0.24, certified 50.00 %",
        "three: tight 0.23, certified 25.00 %",
    ]
    assert scatter.note == "Tight and certified accuracy at eps 0.1, 3 runs: correlation 1.0000."


@pytest.mark.parametrize(
    "other",
    [
        {"digest": "other images"},
        {"eps": 0.2},
        {"dataset": "mnist"},
        {"norm": "l2"},
        {"seed": 1},
        {"options": {"draws": 3}},
    ],
)
def test_only_the_same_analysis_of_the_same_samples_at_the_same_radius_is_compared(runs, other):
    analyse(runs[0], "a", Measurement({"sampled": VALUES}))
    analyse(runs[1], "a", Measurement({"sampled": VALUES}), **other)
    assert compared_analyses(subjects(runs)) == []
    analyse(runs[2], "a", Measurement({"sampled": VALUES}), options={"method": "that of the run"})
    (part,) = compared_analyses(subjects(runs))
    assert [name for name, _ in part.runs] == ["one", "three"]


def test_a_certified_accuracy_is_that_of_the_same_network(runs):
    analyse(runs[0], "a", Measurement({"sampled": VALUES}))
    analyse(runs[1], "a", Measurement({"sampled": VALUES}), network_digest="other weights")
    table = compared_analyses(subjects(runs))[0].tables[0]
    assert [line.cells[table.headings.index("certified %")].text for line in table.lines] == ["75.00", "-"]


def test_numbers_that_are_not_finite_are_left_out(runs):
    values = {"sampled": [math.nan, 0.1, 0.2, 0.3], "interval": math.inf, "none": [None] * 4, "right": 1.0}
    for run in runs[:2]:
        analyse(run, "a", Measurement(values))
    (part,) = own_analyses(viewed(subjects(runs)[0], "bars", "right"))
    assert lines(part.tables[0]) == [["right", "1"]]
    assert [path.name for path in compared_analyses(subjects(runs))[0].charts] == []

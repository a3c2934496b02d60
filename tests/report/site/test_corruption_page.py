"""What pages show of corrupted images, from their records alone."""

import pytest
from tests.report.site.runs import corrupt, make_run, subjects

from ctbench.report.site.corruption_page import compared_corruptions, own_corruptions
from ctbench.results import jsonl


@pytest.fixture
def runs(tmp_path):
    return [make_run(tmp_path / name) for name in ("one", "two")]


def lines(table) -> list[list[str]]:
    return [[cell.text for cell in line.cells] for line in table.lines]


def test_a_run_has_its_ratios_by_severity_and_their_mean(runs):
    corrupt(runs[0], [9, 0, 6, 3])
    (part,) = own_corruptions(subjects(runs)[0])
    assert part.table.headings == ("corruption", "all", "severity 1", "severity 5")
    assert lines(part.table) == [
        ["fog", "0.500", "1.000", "0.000"],
        ["stripe", "0.500", "0.667", "0.333"],
        ["mean", "0.500", "0.833", "0.167"],
    ]
    assert part.table.note == "Clean accuracy: 90.00 %."
    (chart,) = part.charts
    assert [point.text for point in chart.paths[0].points] == ["severity 1, fog: 1.000", "severity 5, stripe: 0.333"]
    assert [tick.text for tick in chart.x.ticks] == ["1", "2", "3", "4", "5"]
    assert part.numbers.content.splitlines()[2] == "one,fog,1,9,10"


def test_what_was_not_tested_has_no_number(runs):
    corrupt(runs[0], [9, 0, 6, 3])
    path = runs[0].corrupted("ours")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    (part,) = own_corruptions(subjects(runs)[0])
    assert lines(part.table)[1:] == [["stripe", "0.667", "0.667", "-"], ["mean", "0.583", "0.833", "-"]]
    assert part.charts == ()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    assert own_corruptions(subjects(runs)[0]) == []


def test_a_network_that_is_never_right_has_no_ratios(runs):
    corrupt(runs[0], [9, 0, 6, 3])
    path = runs[0].corrupted("ours")
    path.write_bytes(path.read_bytes().replace(b'"right": 9', b'"right": 0'))
    (part,) = own_corruptions(subjects(runs)[0])
    assert lines(part.table)[-1] == ["mean", "-", "-", "-"]


@pytest.mark.parametrize(
    "other", [{"dataset": "mnist"}, {"seed": 1}, {"samples": 5}, {"severities": (1, 4)}, {"source": "mnist-c"}]
)
def test_only_runs_that_were_tested_alike_are_compared(tmp_path, runs, other):
    corrupt(runs[0], [9, 0, 6, 3])
    corrupt(runs[1], [9, 0, 6, 3], **other)
    assert compared_corruptions(subjects(runs)) == []
    three = make_run(tmp_path / "three")
    corrupt(three, [9, 9, 9, 9])
    (part,) = compared_corruptions(subjects([*runs, three]))
    assert lines(part.table) == [
        ["one", "90.00", "0.500", "0.500", "0.500"],
        ["three", "90.00", "1.000", "1.000", "1.000"],
    ]
    assert [path.name for path in part.charts[0].paths] == ["one", "three"]


def test_damaged_settings_are_named(runs):
    corrupt(runs[0], [9, 0, 6, 3])
    jsonl.write_json(runs[0].corrupted("ours").with_suffix(".json"), [1])
    with pytest.raises(ValueError, match=r"ours\.json is not an object: remove it"):
        own_corruptions(subjects(runs)[0])

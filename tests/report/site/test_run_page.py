"""The page of a run."""

from tests.report.site.runs import certify, make_run, search, subjects

from ctbench.report.site.run_page import run_page
from ctbench.results import RunFolder


def page(run: RunFolder):
    return run_page(subjects([run])[0])


def lines(table) -> dict[str, list[str]]:
    """The other cells of each row, by its first one."""
    return {line.cells[0].text: [cell.text for cell in line.cells[1:]] for line in table.lines}


def test_who_decided_what(tmp_path):
    (part,) = page(make_run(tmp_path / "run", "cccfftum")).parts
    stages, classes = part.tables
    assert stages.headings[:2] == ("stage", "decided")
    rows = {stage: dict(zip(stages.headings[1:], cells, strict=True)) for stage, cells in lines(stages).items()}
    assert (rows["interval"]["decided"], rows["interval"]["certified"]) == ("3", "3")
    assert (rows["interval"]["unknown (time)"], rows["interval"]["unknown (not decided)"]) == ("1", "1")
    assert (rows["pgd"]["falsified"], rows["clean"]["misclassified"]) == ("2", "1")
    assert {share.name: share.count for share in part.shares} == {
        "certified": 3, "falsified": 2, "unknown": 2, "misclassified": 1,
    }  # fmt: skip
    assert lines(classes) == {
        "1 one": ["4", "100.00", "75.00", "50.00"],  # samples 0, 2, 4, 6: c c f u
        "2 two": ["4", "75.00", "50.00", "25.00"],  # samples 1, 3, 5, 7: c f t m
    }


def test_the_hardest_samples_are_the_open_ones_and_those_with_the_lowest_bounds(tmp_path):
    (part,) = page(make_run(tmp_path / "run", "ccuf")).parts
    counterexamples, hardest = part.galleries
    assert [exhibit.title for exhibit in counterexamples.exhibits] == ["sample 3"]
    assert [exhibit.title for exhibit in hardest.exhibits] == ["sample 2", "sample 0", "sample 1"]


def test_curves_of_training_are_those_of_the_metrics(tmp_path):
    accuracy, loss, eps = page(make_run(tmp_path / "run")).training
    assert [point.text for path in accuracy.paths for point in path.points] == [
        "natural accuracy, epoch 1: 90 %", "natural accuracy, epoch 2: 95 %",
    ]  # fmt: skip
    assert [point.text for path in loss.paths for point in path.points] == ["loss, epoch 1: 1", "loss, epoch 2: 0.5"]
    assert eps.paths[0].points[1].text == "eps, epoch 2: 0.1"


def test_radii_are_counted_in_bins_and_drawn_over_eps(tmp_path):
    run = make_run(tmp_path / "run", "ccccccffum")
    certify(run, "cccfffffum", eps=0.2)
    search(run)
    curve, histogram = page(run).radii
    certified, falsified = histogram.paths
    assert [point.text for point in certified.points if not point.text.endswith(" 0 samples")] == [
        "certified up to 0.1 to 0.11: 1 samples", "certified up to 0.19 to 0.2: 1 samples",
    ]  # fmt: skip
    assert [point.text for point in falsified.points if not point.text.endswith(" 0 samples")] == [
        "falsified from 0.15 to 0.16: 1 samples",
    ]  # fmt: skip
    texts = [point.text for path in curve.paths for point in path.points]
    assert "run, eps 0.1: certified 60.00 %" in texts
    assert "run, eps 0.2: adversarial 40.00 %" in texts
    assert "run, search, eps 0.2: certified 50.00 %" in texts


def test_a_run_at_one_radius_has_no_curve(tmp_path):
    assert page(make_run(tmp_path / "run")).radii == ()

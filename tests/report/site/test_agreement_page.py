"""The page of agreements."""

from tests.report.site.runs import make_run, subjects

from ctbench.report.site.agreement_page import agreement_pages


def test_runs_on_the_same_samples_are_compared(tmp_path):
    runs = [make_run(tmp_path / "a", "ccff"), make_run(tmp_path / "b", "cfcf"), make_run(tmp_path / "c", "ccc")]
    runs += [make_run(tmp_path / "d", "cccc", eps=0.2)]
    (page,) = agreement_pages(subjects(runs))
    assert [name for name, _ in page.runs] == ["a", "b"]
    assert (page.samples, page.none) == (4, 1)
    assert [[cell.text for cell in line.cells] for line in page.table.lines] == [
        ["0", "1", "1.0"], ["1", "2", "2.0"], ["2", "1", "1.0"],
    ]  # fmt: skip
    assert [cell.text for cell in page.pairs.lines[0].cells] == ["a", "50.00", "1.000", "0.000"]
    assert [line.cells[0].text for line in page.hard.lines] == ["3", "1", "2", "0"]
    assert [exhibit.title for exhibit in page.gallery.exhibits] == ["sample 3"]


def test_a_single_run_agrees_with_nobody(tmp_path):
    assert agreement_pages(subjects([make_run(tmp_path / "a")])) == []

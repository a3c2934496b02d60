"""The page of several studies: means over seeds, and the places of methods by an honest choice and by test images."""

import csv
import io
from dataclasses import replace
from pathlib import Path

from tests.report.site.runs import make_study

from ctbench.report.site import write_report
from ctbench.report.site.studies_page import HEADINGS, studies_tables
from ctbench.report.site.study_page import StudySubject
from ctbench.results.studies import Hindsight, TestedTrial


def subject(folder: Path, name: str, certified: list[float], best: float | None, eps: float = 0.1, **about):
    """A study with final runs of these certified accuracies, and a best trial on the test images."""
    study = make_study(folder / name, **about)
    results = [
        {"trial": 1, "seed": seed, "folder": f"final/0001-seed-{seed}", "samples": 100}
        | {"natural_accuracy": 0.9, "adversarial_accuracy": share, "certified_accuracy": share}
        for seed, share in enumerate(certified)
    ]
    recipe = study.content["recipe"] | {"threat": {"name": "linf", "eps": eps}}
    tested = (
        None
        if best is None
        else Hindsight("fast", 60.0, (TestedTrial(0, 100, 0.9, 0.1), TestedTrial(1, 100, 0.9, best)))
    )
    study = replace(study, content=study.content | {"results": results, "recipe": recipe}, hindsight=tested)
    return StudySubject(study=study, name=name, page=f"study-{name}.html", runs={})


def rows(table):
    return [dict(zip(HEADINGS, (cell.plain for cell in line.cells), strict=True)) for line in table.lines]


def test_places_by_the_mean_and_by_the_best_trial_on_test_images(tmp_path):
    honest = subject(tmp_path, "honest", [0.93, 0.93], best=0.92)
    lucky = subject(tmp_path, "lucky", [0.80, 0.82], best=0.94)
    (table,) = studies_tables([lucky, honest])
    first, second = rows(table)
    assert (first["study"], first["place"], first["its place"]) == ("honest", "1", "2")
    assert (second["study"], second["place"], second["its place"]) == ("lucky", "2", "1")
    assert first["certified %"] == "93.00 ± 0.00"
    assert second["certified %"] == "81.00 ± 12.71"  # t of one degree of freedom, 12.706, times sqrt(2) / sqrt(2)
    assert [row["certified %, compared images"] for row in (first, second)] == ["85.00", "85.00"]
    assert [row["certified %, best trial on test images"] for row in (first, second)] == ["92.00", "94.00"]


def test_a_mean_is_bold_if_its_interval_lies_above_all_others(tmp_path):
    every = [subject(tmp_path, name, accuracies, None) for name, accuracies in (("a", [0.9, 0.9]), ("b", [0.8, 0.81]))]
    (table,) = studies_tables(every)
    assert [line.cells[HEADINGS.index("certified %")].bold for line in table.lines] == [True, False]
    close = subject(tmp_path, "c", [0.85, 0.95], None)
    (table,) = studies_tables([*every, close])
    assert not any(cell.bold for line in table.lines for cell in line.cells)


def test_equal_means_share_a_place(tmp_path):
    (table,) = studies_tables(
        [subject(tmp_path, name, [share], None) for name, share in (("a", 0.9), ("b", 0.9), ("c", 0.8))]
    )
    assert [row["place"] for row in rows(table)] == ["1", "1", "3"]


def test_each_setting_has_a_table(tmp_path):
    every = [subject(tmp_path, name, [0.9], None, eps) for name, eps in (("a", 0.3), ("b", 0.1), ("c", 0.3))]
    tables = studies_tables(every)
    assert [table.caption.rpartition(" ")[2] for table in tables] == ["0.1", "0.3"]
    assert [[row["study"] for row in rows(table)] for table in tables] == [["b"], ["a", "c"]]


def test_a_study_that_goes_on_and_failed_runs_have_no_numbers(tmp_path):
    waiting = subject(tmp_path, "waiting", [], None, chosen=None)
    failed = subject(tmp_path, "failed", [0.9, 0.9], None)
    for result in failed.study.results:
        result["error"] = "it diverged"
    (table,) = studies_tables([waiting, failed])
    for row in rows(table):
        assert [row[name] for name in ("natural %", "certified %", "place", "its place")] == ["-"] * 4
    assert [row["trial"] for row in rows(table)] == ["-", "1"]


def test_choices_by_test_images_and_other_samples_are_told(tmp_path):
    fair, unfair = (
        subject(tmp_path, "fair", [0.9], None),
        subject(tmp_path, "unfair", [0.9], None, protocol="ctbench-test-data"),
    )
    unfair.study.results[0]["samples"] = 50
    (table,) = studies_tables([fair, unfair])
    assert [row["remarks"] for row in rows(table)] == ["-", "chosen on test data"]
    assert table.note.startswith("Rows are not all of the same samples")
    (alone,) = studies_tables([fair])
    assert "same samples" not in alone.note


def test_a_report_of_two_studies_has_the_page_and_its_files(tmp_path):
    every = [subject(tmp_path, name, [0.9], 0.9) for name in ("one", "two")]
    write_report([], tmp_path / "site", studies=every)
    for page in ("index.html", "studies.html", "study-one.html"):
        words = (tmp_path / "site" / page).read_text()
        assert '<a href="studies.html"' in words
        assert "Study: one</a>" not in words
    assert 'href="study-two.html"' in (tmp_path / "site" / "studies.html").read_text()
    (numbers,) = (tmp_path / "site" / "files").glob("studies-*.csv")
    assert {row["study"] for row in csv.DictReader(io.StringIO(numbers.read_text()))} == {"one", "two"}
    write_report([], tmp_path / "site", studies=every[:1])
    assert not (tmp_path / "site" / "studies.html").exists()

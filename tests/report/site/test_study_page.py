"""The page of one study: means over the final runs of each choice, and records that say otherwise than study.json."""

import csv
import io
from dataclasses import replace

import pytest
from tests.report.site.runs import certify, make_study, study_subject

from ctbench.report.site import write_report
from ctbench.report.site.studies_page import studies_tables
from ctbench.report.site.study_page import study_page
from ctbench.results import RunFolder


def rows(table):
    return [dict(zip(table.headings, (cell.plain for cell in line.cells), strict=True)) for line in table.lines]


def result(trial, seed, certified=None):
    """The result of a final run, or that it failed; there are no records of it."""
    about = {"trial": trial, "seed": seed, "folder": f"final/{trial:04d}-seed-{seed}"}
    if certified is None:
        return about | {"error": "it diverged"}
    accuracies = {"natural_accuracy": 0.9, "adversarial_accuracy": 0.8, "certified_accuracy": certified}
    return about | {"samples": 10} | accuracies


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study")


def with_results(study, *results, chosen=(1,), seeds=1, **content):
    settings = study.content["settings"] | {"seeds": seeds}
    content = study.content | {"results": list(results), "chosen": list(chosen), "settings": settings} | content
    return study_subject(replace(study, content=content))


def test_each_choice_of_a_front_has_its_own_means(study):
    front = [result(trial, seed, share) for trial, share in ((1, 0.8), (0, 0.1)) for seed in (4, 5)]
    subject = with_results(study, *front, chosen=(1, 0), seeds=2, objective="pareto")
    means = rows(study_page(subject).means)
    assert [(row["trial"], row["final runs"], row["certified %"]) for row in means] == [
        ("1", "2", "80.00 ± 0.00"),
        ("0", "2", "10.00 ± 0.00"),
    ]


def test_runs_that_failed_are_counted_and_take_no_part_in_means(study):
    page = study_page(with_results(study, result(1, 4, 0.8), result(1, 5), seeds=2))
    (mean,) = rows(page.means)
    assert (mean["final runs"], mean["certified %"]) == ("1 of 2 failed", "80.00")
    assert [row["end"] for row in rows(page.results)] == ["tested", "it diverged"]
    (mean,) = rows(study_page(with_results(study, result(1, 4), seeds=2)).means)
    assert (mean["final runs"], mean["certified %"]) == ("1 of 2 failed, 1 of 2 to come", "-")


def test_records_that_give_what_the_study_says_have_no_remark(study):
    page = study_page(study_subject(study))
    assert rows(page.means)[0]["final runs"] == "1"
    assert rows(page.results)[0]["end"] == "tested"
    assert not page.results.note


def test_records_that_give_other_accuracies_are_told_with_both_numbers(study, tmp_path):
    told = study.results[0] | {"certified_accuracy": 0.9}
    subject = with_results(study, told)
    page = study_page(subject)
    sentence = "final/0001-seed-0: certified 90.00 % in study.json, 80.00 % in linf-0.1.jsonl"
    assert page.results.note == f"{sentence}."
    assert rows(page.results)[0]["end"] == "records differ"
    assert rows(page.means)[0]["final runs"] == "1, records differ"
    assert page.means.remarks[0].said.endswith(sentence)
    (table,) = studies_tables([subject])
    assert rows(table)[0]["final runs"] == "1, records differ"
    write_report([], tmp_path / "site", studies=[subject])
    assert sentence in (tmp_path / "site" / "study-my-study.html").read_text()
    numbers = (tmp_path / "site" / "files" / "study-my-study-means.csv").read_text()
    assert next(csv.DictReader(io.StringIO(numbers)))["certified %"] == "90"


def test_another_certification_of_the_same_regions_is_compared(study):
    run = RunFolder(study.path / "final" / "0001-seed-0")
    certify(run, "cccccccffm", name="linf-0.1-again")
    certify(run, "mmmm", eps=0.2)
    certify(run, "mmmm", name="linf-0.1-fog", dataset="digits in fog")
    assert study_subject(study).differences == {
        "final/0001-seed-0": "adversarial 80.00 % in study.json, 70.00 % in linf-0.1-again.jsonl; certified 80.00 % in "
        "study.json, 70.00 % in linf-0.1-again.jsonl"
    }


def test_records_of_other_samples_are_told(study):
    subject = with_results(study, study.results[0] | {"samples": 12})
    assert "12 samples in study.json, 10 in linf-0.1.jsonl" in study_page(subject).results.note


def test_importance_is_said_to_be_about_the_best_trials(study):
    note = study_page(study_subject(study)).importance.note
    assert (
        note == "The share of each parameter in what makes a trial one of the best in certified accuracy, by PED-ANOVA."
    )

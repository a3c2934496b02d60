"""The page of several studies: means over seeds, and the places of methods by their choices and by test images."""

import csv
import io
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.report.site.runs import make_study

from ctbench.report.site import write_report
from ctbench.report.site.studies_page import studies_tables
from ctbench.report.site.study_subject import StudySubject
from ctbench.results.studies import Hindsight, TestedTrial

LINF = {"name": "linf", "eps": 0.1}
COMPLETE = {"stages": "complete", "timeout": 10.0, "samples": None}


def subject(
    folder: Path,
    name: str,
    certified: Sequence[float],
    best: float | None = None,
    *,
    natural: Sequence[float] = (),
    chosen: Sequence[int] | None = (1,),
    protocol: str = "held-out",
    seeds: int | None = None,
    settings: dict | None = None,
    **content,
):
    """A study whose chosen trials have final runs of these certified accuracies, and the best trial in hindsight.

    The records of these runs are not there.
    """
    study = make_study(folder / name, protocol=protocol, chosen=chosen)
    shutil.rmtree(folder / name / "final")
    results = [
        {"trial": trial, "seed": seed, "folder": f"final/{trial:04d}-seed-{seed}", "samples": 100}
        | {"natural_accuracy": above, "adversarial_accuracy": 0.5, "certified_accuracy": share}
        for trial in chosen or ()
        for seed, (share, above) in enumerate(zip(certified, natural or [0.97] * len(certified), strict=True))
    ]
    recipe = study.content["recipe"] | {"threat": content.pop("threat", LINF)}
    settings = COMPLETE | {"seeds": seeds or len(certified) or 1} | (settings or {})
    content = study.content | {"results": results, "recipe": recipe, "settings": settings} | content
    trials = tuple(replace(trial, natural_accuracy=0.99) for trial in study.trials)
    tested = (
        None
        if best is None
        else Hindsight("fast", 60.0, (TestedTrial(0, 100, 0.9, best), TestedTrial(1, 100, 0.9, 0.1)))
    )
    return StudySubject(
        study=replace(study, content=content, trials=trials, hindsight=tested),
        name=name,
        page=f"study-{name}.html",
        runs={},
    )


def rows(table):
    return [dict(zip(table.headings, (cell.plain for cell in line.cells), strict=True)) for line in table.lines]


def bold(table):
    """The studies and headings of bold cells."""
    return {
        (line.cells[0].text, heading)
        for line in table.lines
        for heading, cell in zip(table.headings, line.cells, strict=True)
        if cell.bold
    }


def test_places_by_the_mean_and_in_hindsight(tmp_path):
    honest = subject(tmp_path, "honest", [0.93, 0.93], best=0.92, natural=[0.95, 0.97])
    lucky = subject(tmp_path, "lucky", [0.80, 0.82], best=0.94)
    (table,) = studies_tables([lucky, honest])
    first, second = rows(table)
    assert first == {
        "study": "honest",
        "recipe": "digits_mtl_ibp",
        "trial": "1",
        "final runs": "2",
        "natural %": "96.00 ± 12.71",  # t of one degree of freedom, 12.706, times sqrt(2) / sqrt(2)
        "certified %": "93.00 ± 0.00",
        "place": "1",
        "certified %, validation images": "85.00",
        "in hindsight: trial": "0",
        "certified %, one run": "92.00",
        "place in hindsight": "2",
    }
    assert [second[name] for name in ("study", "place", "certified %, one run", "place in hindsight")] == [
        *("lucky", "2", "94.00", "1"),
    ]
    assert table.headings[table.order] == "certified %"
    assert "stages fast" in table.note
    assert table.lines[0].cells[0].links == (("honest", "study-honest.html"),)
    assert [table.headings[place] for place in table.texts] == ["study", "recipe", "final runs"]


def test_a_mean_is_bold_if_its_interval_lies_above_all_others(tmp_path):
    high = subject(tmp_path, "high", [0.9, 0.902], natural=[0.90, 0.94])
    low = subject(tmp_path, "low", [0.8, 0.802], natural=[0.98, 0.98])
    (table,) = studies_tables([low, high])
    assert bold(table) == {("high", "certified %")}
    (table,) = studies_tables([low, high, subject(tmp_path, "wide", [0.85, 0.95])])
    assert not bold(table)
    (table,) = studies_tables([high])
    assert not bold(table)


def test_equal_means_share_a_place_also_if_they_are_rounded_otherwise(tmp_path):
    every = [("a", [0.29, 0.29]), ("b", [0.28, 0.30]), ("c", [0.2, 0.2])]
    (table,) = studies_tables([subject(tmp_path, name, shares) for name, shares in every])
    assert [row["place"] for row in rows(table)] == ["1", "1", "3"]


@pytest.mark.parametrize(
    "other",
    [
        {"threat": {"name": "linf", "eps": 0.3}},
        {"threat": {"name": "random-segments", "eps": 0.1, "count": 10}},
        {"protocol": "ctbench-test-data"},
        {"settings": {"stages": "fast"}},
        {"settings": {"timeout": 1.0}},
        {"settings": {"samples": 500}},
    ],
    ids=str,
)
def test_what_cannot_be_compared_stands_in_tables_of_their_own(other, tmp_path):
    one, two = subject(tmp_path, "one", [0.9]), subject(tmp_path, "two", [0.8], **other)
    tables = studies_tables([two, one])
    assert len(tables) == 2
    assert all(row["place"] == "1" for table in tables for row in rows(table))
    assert len({table.name for table in tables}) == 2  # of their files
    assert len({table.caption for table in tables}) == 2


def test_seeds_of_segments_do_not_part_studies(tmp_path):
    threats = [{"name": "random-segments", "eps": 5.0, "count": 2, "seed": seed} for seed in (0, 1)]
    every = [subject(tmp_path, str(threat["seed"]), [0.9], threat=threat) for threat in threats]
    assert len(studies_tables(every)) == 1


def test_tables_come_by_their_radius(tmp_path):
    radii = (16 / 255, 2 / 255, 0.3)
    tables = studies_tables([subject(tmp_path, str(at), [0.9], threat=LINF | {"eps": at}) for at in radii])
    assert [rows(table)[0]["study"] for table in tables] == [str(at) for at in sorted(radii)]
    assert tables[0].caption == "digits, linf, eps 2/255, stages complete, 10 s for each image"


def test_choices_by_test_images_are_told(tmp_path):
    (table,) = studies_tables([subject(tmp_path, "one", [0.9], protocol="ctbench-test-data")])
    assert "chosen on test data" in table.caption
    assert "certified %, test images" in table.headings


def test_runs_that_failed_or_are_to_come_take_no_place(tmp_path):
    good = subject(tmp_path, "good", [0.86, 0.87], best=0.9)
    failed = subject(tmp_path, "failed", [0.99, 0.99], best=0.9)
    failed.study.content["results"][1]["error"] = "it diverged"
    unfinished = subject(tmp_path, "unfinished", [0.98], seeds=2)
    waiting = subject(tmp_path, "waiting", [], chosen=None)
    (table,) = studies_tables([waiting, failed, unfinished, good])
    shown = {row["study"]: row for row in rows(table)}
    assert next(iter(shown)) == "good"
    assert {name: (row["final runs"], row["place"]) for name, row in shown.items()} == {
        "good": ("2", "1"),
        "failed": ("1 of 2 failed", "-"),
        "unfinished": ("1 of 2 to come", "-"),
        "waiting": ("1 of 1 to come", "-"),
    }
    assert shown["failed"]["certified %"] == "99.00"
    assert (shown["good"]["place in hindsight"], shown["failed"]["place in hindsight"]) == ("1", "-")
    assert shown["waiting"]["trial"] == shown["waiting"]["certified %"] == "-"
    assert not bold(table)


def test_places_in_hindsight_need_the_hindsight_of_all(tmp_path):
    (table,) = studies_tables([subject(tmp_path, "a", [0.9], 0.8), subject(tmp_path, "b", [0.8])])
    assert [row["place in hindsight"] for row in rows(table)] == ["-", "-"]
    assert [row["certified %, one run"] for row in rows(table)] == ["80.00", "-"]


def test_a_front_has_a_row_for_each_choice_with_its_own_runs(tmp_path):
    front = subject(tmp_path, "front", [0.9, 0.91], 0.95, chosen=(0, 1), objective="pareto")
    for result in front.study.content["results"]:
        if result["trial"] == 0:
            result["certified_accuracy"] -= 0.1
    (table,) = studies_tables([front, subject(tmp_path, "low", [0.5, 0.51])])
    found = [(row["study"], row["trial"], row["certified %"], row["in hindsight: trial"]) for row in rows(table)]
    assert found == [
        ("front", "1", "90.50 ± 6.35", "-"),
        ("front", "0", "80.50 ± 6.35", "-"),
        ("low", "1", "50.50 ± 6.35", "-"),
    ]
    assert bold(table) == {("front", "certified %")}  # both choices lie above the other study


def test_other_samples_are_told(tmp_path):
    one, two = subject(tmp_path, "one", [0.9]), subject(tmp_path, "two", [0.9])
    assert "same samples" not in studies_tables([one, two])[0].note
    two.study.content["results"][0]["samples"] = 50
    assert studies_tables([one, two])[0].note.startswith("Rows are not all of the same samples")


def test_a_report_of_two_studies_has_the_page_and_its_files(tmp_path):
    every = [subject(tmp_path, name, [0.9], 0.9) for name in ("one", "two")]
    write_report([], tmp_path / "site", studies=every)
    for page in ("index.html", "studies.html", "study-one.html"):
        words = (tmp_path / "site" / page).read_text()
        assert '<a href="studies.html"' in words
        assert "Study: one</a>" not in words
    assert 'href="study-two.html">two</a>' in (tmp_path / "site" / "studies.html").read_text()
    (numbers,) = (tmp_path / "site" / "files").glob("studies-digits-linf-eps-0.1-*.csv")
    assert {row["study"] for row in csv.DictReader(io.StringIO(numbers.read_text()))} == {"one", "two"}
    write_report([], tmp_path / "site", studies=every[:1])
    assert not (tmp_path / "site" / "studies.html").exists()

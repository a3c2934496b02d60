"""The files of a report."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tests.report.site.runs import analyse, certify, corrupt, make_run, make_study, search, study_subject, subjects

from ctbench.report.site import write_report
from ctbench.results import Measurement, RunFolder, jsonl
from ctbench.results.studies import Hindsight, TestedTrial

NASTY = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a page refers to, and its own scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.ids, self.scripts, self.images = list[str](), set[str](), 0, list[dict[str, str | None]]()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [value for name in ("href", "src") if (value := values.get(name))]
        self.ids |= {value for value in (values.get("id"),) if value}
        self.scripts += tag == "script"
        self.images += [values] if tag == "img" else []


@pytest.fixture
def runs(tmp_path) -> list[RunFolder]:
    made = [make_run(tmp_path / "a", seed=0), make_run(tmp_path / "b", "cccccccffm", seed=1)]
    certify(made[0], "cccfffffum", eps=0.2)
    certify(made[0], "ccccccccum", eps=0.05)
    search(made[0])
    for run in made:
        analyse(run, "fragmentation", Measurement({"sampled": [0.1, 0.2, 0.3, 0.4]}))
        corrupt(run, [8, 2, 9, 1])
    return [*made, make_run(tmp_path / "mnist", dataset="mnist"), make_run(tmp_path / "waiting", "")]


def test_all_links_lead_to_files_of_the_report(runs, tmp_path):
    out = tmp_path / "site"
    study = make_study(tmp_path / "study")
    index = write_report(subjects(runs), out, studies=[study_subject(study)], title="Ours")
    assert index == out / "index.html"
    pages = {path.name: Page(path) for path in out.glob("*.html")}
    assert {
        "index.html",
        "curves.html",
        "agreements.html",
        "analyses.html",
        "run-a.html",
        "study-my-study.html",
    } <= pages.keys()
    for name, page in pages.items():
        for link in page.links:
            if link.startswith("data:"):
                continue
            target, _, anchor = link.partition("#")
            assert (out / (target or name)).is_file(), (name, link)
            assert not anchor or anchor in pages[target or name].ids, (name, link)
    linked = {link for page in pages.values() for link in page.links}
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        assert path.is_dir() or name == "report.json" or name in linked, f"no page links to {name}"


def test_a_page_needs_nothing_from_elsewhere(runs, tmp_path):
    write_report(subjects(runs), tmp_path / "site")
    for path in (tmp_path / "site").glob("*.html"):
        words = path.read_text()
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", words), path
        assert "default-src 'none'" in words


def test_all_texts_are_escaped(tmp_path):
    nasty = make_run(tmp_path / "nasty", method=NASTY, more={"source": NASTY, "network": {"name": NASTY}})
    other = make_run(tmp_path / "other", "ccccccccfm", settings={"threat": NASTY})
    certify(nasty, "ccc", eps=0.2, settings={"threat": NASTY, "network": NASTY})
    for run in (nasty, other):
        analyse(run, "own", Measurement({NASTY: [0.1, 0.2, 0.3, 0.4]}), options={NASTY: NASTY}, method=NASTY)
    study = make_study(tmp_path / "study")
    write_report(
        subjects([nasty, other], [NASTY, "o'ther\" | &"]),
        tmp_path / "site",
        studies=[study_subject(study)],
        title=NASTY,
    )
    for path in (tmp_path / "site").glob("*.html"):
        assert Page(path).scripts == 1, path  # our own
        assert "alert(1)</script>" not in path.read_text()
    tables = "".join(path.read_text() for path in (tmp_path / "site" / "files").glob("*certifications.tex"))
    assert r"linf eps 0.1" in tables


def test_an_earlier_report_is_replaced_and_nothing_else(runs, tmp_path):
    out = tmp_path / "site"
    write_report(subjects(runs), out)
    assert (out / "run-waiting.html").is_file()
    write_report(subjects(runs[:2]), out)
    assert not (out / "run-waiting.html").exists()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds notes\.txt, which is not of a report"):
        write_report(subjects(runs), out)
    assert not (out / "run-waiting.html").exists()
    (out / "notes.txt").unlink()
    listed = jsonl.read_json(out / "report.json")
    for wrong in ("../victim", "/etc/passwd", "files/../../x.html"):
        (out / "report.json").write_text(json.dumps(listed | {"files": [*listed["files"], wrong]}))
        with pytest.raises(ValueError, match="is not the list of a report"):
            write_report(subjects(runs), out)


def test_a_folder_with_other_files_and_a_file_are_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="not of a report"):
        write_report(subjects(runs), runs[0].path)
    with pytest.raises(NotADirectoryError, match="is a file"):
        write_report(subjects(runs), runs[0].recipe)
    with pytest.raises(ValueError, match="there are no runs"):
        write_report([], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_the_same_runs_give_the_same_bytes(runs, tmp_path):
    contents = []
    for name in ("one", "two"):
        write_report(subjects(runs), tmp_path / name)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()})
    assert contents[0] == contents[1]


def test_a_page_shows_counterexamples_with_their_images(runs, tmp_path):
    write_report(subjects(runs), tmp_path / "site")
    page = Page(tmp_path / "site" / "run-b.html")
    assert [image["alt"] for image in page.images][:3] == [
        "test image 7, label 2", "the counterexample of sample 7", "the difference of the two, at most 0.1",
    ]  # fmt: skip
    assert "largest change 0.1" in (tmp_path / "site" / "run-b.html").read_text()


@pytest.mark.parametrize("content", [b"no array", b"\x93NUMPY\x01\x00", b""])
def test_damaged_counterexamples_are_left_out(tmp_path, content):
    run = make_run(tmp_path / "run", "ccf")
    place = run.certification("linf-0.1").counterexamples / "2.npy"
    place.write_bytes(content)
    write_report(subjects([run]), tmp_path / "site")
    assert "Counterexamples" not in (tmp_path / "site" / "run-run.html").read_text()


def test_a_counterexample_that_claims_a_huge_array_takes_no_memory(tmp_path):
    run = make_run(tmp_path / "run", "ccf")
    place = run.certification("linf-0.1").counterexamples / "2.npy"
    np.save(place, np.zeros((1, 4, 4)))
    place.write_bytes(place.read_bytes().replace(b"(1, 4, 4)", b"(99999, 99999, 99)").replace(b" " * 9 + b"\n", b"\n"))
    write_report(subjects([run]), tmp_path / "site")
    assert "Counterexamples" not in (tmp_path / "site" / "run-run.html").read_text()


def test_a_run_without_records_has_a_page_that_says_so(tmp_path):
    write_report(subjects([make_run(tmp_path / "waiting", "")]), tmp_path / "site")
    assert "no certification" in (tmp_path / "site" / "run-waiting.html").read_text()
    index = (tmp_path / "site" / "index.html").read_text()
    assert "Not certified yet" in index
    assert 'href="run-waiting.html"' in index


@pytest.mark.parametrize(("protocol", "warned"), [("held-out", False), ("ctbench-test-data", True)])
def test_the_page_of_a_study(tmp_path, protocol, warned):
    study = make_study(tmp_path / "study", protocol=protocol)
    write_report([], tmp_path / "site", studies=[study_subject(study)])
    words = (tmp_path / "site" / "study-my-study.html").read_text()
    assert ("the results on these images are optimistic" in words) is warned
    assert "Trial 1 has the highest certified accuracy." in words
    assert "-5.00" in words  # certified 85 % in validation, 80 % in the test
    trials = (tmp_path / "site" / "files" / "study-my-study-trials.csv").read_text().splitlines()
    assert trials[0] == "trial,remarks,end,natural %,certified %,method.alpha,time"
    assert trials[2] == '1,"chosen, front",complete,85,85,0.3,3'
    assert trials[3].startswith("2,-,pruned after epoch 2,-,-,0.5")


def test_the_page_of_a_study_that_looked_back(tmp_path):
    study = make_study(tmp_path / "study")
    tested = (TestedTrial(0, 10, 0.9, 0.75), TestedTrial(1, 10, 0.8, 0.625))
    write_report(
        [], tmp_path / "site", studies=[study_subject(replace(study, hindsight=Hindsight("fast", 60.0, tested)))]
    )
    assert 'id="hindsight"' in (tmp_path / "site" / "study-my-study.html").read_text()
    rows = (tmp_path / "site" / "files" / "study-my-study-hindsight.csv").read_text().splitlines()
    assert rows[1:] == ["0,best on test,70,75,90,5", "1,chosen,85,62.5,80,-22.5"]


def test_a_study_that_goes_on_has_a_page(tmp_path):
    study = make_study(tmp_path / "study", chosen=None)
    write_report([], tmp_path / "site", studies=[study_subject(study)])
    assert "Nothing is chosen yet" in (tmp_path / "site" / "study-my-study.html").read_text()

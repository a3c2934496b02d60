"""The pages about tuned methods say what the studies say, and the final runs of the studies are there."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from ctbench.experiments.networks import TITLES
from ctbench.results import Study

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("make_tuned", DOCS / "make_tuned.py")
make_tuned = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_tuned)
TABLES = make_tuned.tables()
PAGE, LIST = make_tuned.PAGES
FOLDERS = sorted(path.parent for path in make_tuned.FOLDER.glob("*/study.json"))


@pytest.mark.parametrize("page", make_tuned.PAGES, ids=lambda page: page.name)
def test_a_page_is_up_to_date(page):
    text = page.read_text()
    assert make_tuned.filled(text) == text, "run `python docs/make_tuned.py`"


def test_every_table_stands_on_a_page():
    shown = [name for page in make_tuned.PAGES for name in re.findall("from the studies: (.*) -->", page.read_text())]
    assert sorted(shown) == sorted(TABLES)


def test_every_study_is_listed_and_in_a_table():
    assert sorted(re.findall(r"\]\(([^)]*)/study.md\)", LIST.read_text())) == [folder.name for folder in FOLDERS]
    for folder in FOLDERS:
        radius, _, method = folder.name.partition("-")
        assert f"| {TITLES[method]} | " in TABLES[f"results at {radius}"]


def test_the_report_has_a_page_for_each_study_and_final_run():
    folder = DOCS / "pages" / "tuned"
    files = json.loads((folder / "report.json").read_text())["files"]
    assert sorted(files) == sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*.*") if p.name != "report.json"
    )
    names = [study.name.replace("_", "-") for study in FOLDERS]
    assert {f"study-{name}.html" for name in names} == {file for file in files if re.fullmatch("study-.*html", file)}
    runs = [
        f"run-{name}-{run.path.name}.html"
        for name, path in zip(names, FOLDERS, strict=True)
        for run in Study.read(path).runs
    ]
    assert sorted(runs) == sorted(file for file in files if re.fullmatch("run-.*html", file))


@pytest.mark.parametrize(
    "text",
    [
        "<!-- from the studies: all -->\nwords <!-- from the studies: all -->\n<!-- end -->",
        "<!-- from the studies: all -->\nwords",
        "<!-- from the studies: al -->\n<!-- end -->",
    ],
)
def test_a_damaged_page_is_refused_and_no_text_is_lost(text):
    with pytest.raises(ValueError, match=r"has an <!-- end -->|there are no tables al: expected all"):
        make_tuned.filled(text)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_study_is_finished_with_the_same_budget_as_the_others(folder):
    study, first = Study.read(folder), Study.read(FOLDERS[0])
    radius, _, method = folder.name.partition("-")
    recipe, settings, same = study.content["recipe"], study.content["settings"], first.content["settings"]
    assert (study.finished, study.protocol, study.objective) == (True, "held-out", "certified")
    assert len(study.trials) == study.content["trials"] == first.content["trials"]
    assert [result["seed"] for result in study.results] == [0, 1, 2]
    assert {result["samples"] for result in study.results} == {10_000}
    assert all(run.weights.is_file() for run in study.runs)
    assert (recipe["name"], recipe["threat"]["eps"]) == (study.content["name"], float(radius))
    assert recipe["name"] == f"mnist_small_{'03_' if radius == '0.3' else ''}{method}"
    for name in (
        "epochs",
        "batch_size",
        "network",
        "optimizer",
        "ramp",
        "dataset",
        "normalize",
        "swa",
        "train_samples",
    ):
        assert recipe[name] == first.content["recipe"][name], name
    assert settings.pop("stages") == ("fast" if method == "pgd" else "complete")
    assert settings == {name: value for name, value in same.items() if name != "stages"}
    assert study.hindsight is not None
    assert study.hindsight.stages == settings["trial_stages"]

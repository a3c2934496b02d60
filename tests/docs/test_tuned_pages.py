"""The pages about tuned methods say what the studies say, and the final runs of the studies are there."""

import importlib.util
from pathlib import Path

import pytest

from ctbench.results import Study

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("make_tuned", DOCS / "make_tuned.py")
make_tuned = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_tuned)
FOLDERS = sorted(path.parent for path in make_tuned.FOLDER.glob("*/study.json"))


@pytest.mark.parametrize("page", [make_tuned.PAGE, make_tuned.FOLDER / "README.md"], ids=lambda page: page.name)
def test_a_page_is_up_to_date(page):
    text = page.read_text()
    assert make_tuned.filled(text) == text, "run `python docs/make_tuned.py`"


def test_every_study_is_on_the_page():
    shown = [study.path for radius in make_tuned.RADII for study in make_tuned.studies(radius).values()]
    assert sorted(shown) == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_study_is_finished_with_the_same_budget_as_the_others(folder):
    study, first = Study.read(folder), Study.read(FOLDERS[0])
    assert (study.finished, study.protocol, study.objective) == (True, "held-out", "certified")
    assert (len(study.trials), study.content["trials"]) == (first.content["trials"],) * 2
    assert [result["seed"] for result in study.results] == [0, 1, 2]
    assert {result["samples"] for result in study.results} == {10_000}
    assert all(run.weights.is_file() for run in study.runs)
    for name in ("epochs", "batch_size", "network", "optimizer", "ramp", "dataset", "normalize"):
        assert study.content["recipe"][name] == first.content["recipe"][name], name
    for name in ("validation", "pruner", "trial_stages", "timeout"):
        assert study.content["settings"][name] == first.content["settings"][name], name

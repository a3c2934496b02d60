"""Accuracies over the radius: what verdicts imply at other radii counts, and each certification is in one curve."""

import re
from dataclasses import replace

import pytest
from tests.report.site.runs import certify, make_run, record, subjects

from ctbench.report.curves import NoSampleInCommonError, radius_rows
from ctbench.report.site import write_report
from ctbench.results.implications import ContradictionError

SAME = {"network_digest": "n", "precision": "torch.float32", "rounding": "outward", "replayed": False}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "mine", "")


@pytest.fixture
def certified(run):
    """A certification is added to the run, by letters, which say what is known of each sample."""

    def add(eps, letters, name="", first=0, digest="digest", **settings):
        files = run.certification(f"linf-{eps:g}{name}")
        about = {"norm": "linf", "eps": eps, "threat": f"Linf(eps={eps}, clip=(0.0, 1.0))", "dataset": "digits"}
        files.start({**about, **SAME, "stages": ["Bound()"], "timeout": 5.0, **settings}, resume=False)
        places = enumerate(letters, start=first)
        records = [record(place, letter) for place, letter in places]
        files.append([replace(one, digest=digest and f"{digest} {one.index}") for one in records])

    return add


def curve(run, name="mine"):
    """The points of a curve: (eps, certified, adversarial)."""
    rows = [row for row in radius_rows([run.path]) if row["run"] == name]
    return [(row["eps"], row["certified"], row["adversarial"]) for row in rows]


def test_verdicts_count_at_the_radii_where_they_imply_another(run, certified):
    certified(0.05, "fuuc")
    certified(0.1, "uucu")
    certified(0.2, "uuuu")
    assert curve(run) == [(0, 100, 100), (0.05, 50, 75), (0.1, 25, 75), (0.2, 0, 75)]


def test_certified_accuracy_never_rises_with_the_radius(run, certified):
    certified(0.05, "uuuu")
    certified(0.1, "cccu")
    certified(0.2, "uufu")
    assert curve(run) == [(0, 100, 100), (0.05, 75, 100), (0.1, 75, 100), (0.2, 0, 75)]


@pytest.mark.parametrize(
    "other",
    [
        {"network_digest": "other"},
        {"threat": "Linf(eps=0.1, clip=None)"},
        {"threat": "Shells(eps=0.1, clip=(0.0, 1.0))"},
        {"rounding": "to nearest"},
        {"digest": ""},
    ],
    ids=str,
)
def test_nothing_is_implied_where_it_would_not_be_sound(run, certified, other):
    certified(0.05, "uf")
    certified(0.1, "cu", **other)
    assert curve(run) == [(0, 100, 100), (0.05, 0, 50), (0.1, 50, 100)]


def test_a_contradiction_is_an_error(run, certified):
    certified(0.05, "cf")
    certified(0.1, "cc")
    with pytest.raises(ContradictionError, match=r"mine: sample 1 is certified at eps 0.1, but falsified at eps 0.05"):
        radius_rows([run.path])


def test_a_contradiction_is_not_hidden_in_a_report(run, certified, tmp_path):
    certified(0.05, "cf")
    certified(0.1, "cc")
    with pytest.raises(ContradictionError):
        write_report(subjects([run]), tmp_path / "site")


def test_other_images_of_the_same_index_are_not_the_same_sample(run, certified):
    certified(0.05, "uu")
    certified(0.1, "cc", digest="other")
    with pytest.raises(NoSampleInCommonError, match=re.escape("mine at linf 0.05, 0.1 have no sample in common")):
        radius_rows([run.path])


def test_two_certifications_at_one_radius_are_in_two_curves(run, certified):
    certified(0.05, "cu")
    certified(0.05, "cc", name="-x")
    certified(0.1, "cu")
    certified(0.1, "uu", name="-x")
    assert curve(run) == [(0, 100, 100), (0.05, 50, 100), (0.1, 50, 100)]
    assert curve(run, "mine, x") == [(0, 100, 100), (0.05, 100, 100), (0.1, 0, 100)]


def test_files_of_other_names_are_one_curve_if_their_radii_differ(run, certified):
    certified(0.05, "cu", name="-a")
    certified(0.1, "uu", name="-b")
    assert curve(run) == [(0, 100, 100), (0.05, 50, 100), (0.1, 0, 100)]


def test_a_report_says_why_there_is_no_curve(run, certified, tmp_path):
    certified(0.05, "cu")
    certified(0.1, "cu", first=5)
    write_report(subjects([run]), tmp_path / "site")
    for page in ("curves.html", "run-mine.html"):
        words = (tmp_path / "site" / page).read_text()
        assert "mine has no curve at linf 0.05, 0.1: these certifications have no sample in common." in words


def test_a_curve_of_a_report_has_several_radii(tmp_path):
    run = make_run(tmp_path / "mine", "ccf", eps=0.05)
    write_report(subjects([run]), tmp_path / "site")
    assert "Accuracy over the radius" not in (tmp_path / "site" / "run-mine.html").read_text()
    certify(run, "ccf", eps=0.1)
    write_report(subjects([run]), tmp_path / "site")
    assert "Accuracy over the radius" in (tmp_path / "site" / "run-mine.html").read_text()

"""`ctbench radius` and `ctbench curves`: the radii of samples, and accuracies over radii and seconds."""

import csv
from pathlib import Path
from statistics import median

import pytest

from ctbench.results import RunFolder


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_radius_finds_radii_and_goes_on(succeeds, fails, run):
    out = succeeds("radius", run, "--samples", 10, "--tolerance", 0.02)
    files = RunFolder(run).radii("linf-0.1")
    assert out.splitlines()[-1] == str(files.records)
    found = files.read()
    assert (len(found), found.largest, found.tolerance) == (10, 0.1, 0.02)
    assert f"certified up to {median(s.certified for s in found if s.right):.4g}" in out
    rows = [line.split("│")[1:-1] for line in out.splitlines() if "│" in line]
    assert [float(row[2]) for row in rows] == sorted((float(row[2]) for row in rows), reverse=True)
    assert float(rows[0][1]) == float(rows[0][2]) == 100 * found.certified_accuracy(0)
    assert "exists already" in fails("radius", run, "--samples", 10, "--tolerance", 0.02)
    succeeds("radius", run, "--samples", 12, "--tolerance", 0.02, "--resume")
    assert len(files.read()) == 12
    elsewhere = succeeds("radius", run, "--samples", 10, "--tolerance", 0.02, "--on", "local:1", "--out", "on.jsonl")
    assert elsewhere.splitlines()[:-1] == out.splitlines()[:-1]
    assert files.read().samples[:10] == found.samples


def test_radius_refuses_a_tolerance_above_the_largest(fails, run):
    message = fails("radius", run, "--samples", 2, "--largest", 0.1, "--tolerance", 0.2)
    assert "tolerance is 0.2" in message


@pytest.mark.parametrize("option", ["--largest", "--tolerance"])
@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf"])
def test_a_radius_that_is_none_is_named_with_its_option(fails, run, option, value):
    message = fails("radius", run, f"{option}={value}")
    assert f"argument {option}: '{value}' is not a radius above 0, e.g. 0.1 or 8/255" in message


@pytest.fixture
def certified(succeeds, run):
    succeeds("certify", run, "--samples", 20, "--eps", "0.01,0.03,0.06")
    return run


def test_curves_over_radii_show_certifications_and_searches(succeeds, certified):
    succeeds("radius", certified, "--samples", 5, "--tolerance", 0.05)
    out = succeeds("curves", certified, "--figure", "figures/curves.svg")
    assert out.splitlines() == ["figures/curves.svg", "figures/curves.csv"]
    assert Path("figures/curves.svg").read_text().startswith("<?xml")
    rows = table("figures/curves.csv")
    ours = [row for row in rows if row["run"] == "run"]
    assert [float(row["eps"]) for row in ours] == [0, 0.01, 0.03, 0.06]
    files = RunFolder(certified).certifications()
    assert [float(row["certified"]) for row in ours[1:]] == [100 * each.read().certified_accuracy for each in files]
    assert ours[0]["certified"] == ours[0]["adversarial"]
    searched = [row for row in rows if row["run"] == "run, search"]
    assert {row["samples"] for row in searched} == {"5"}
    assert [float(row["certified"]) for row in searched] == sorted(
        (float(row["certified"]) for row in searched), reverse=True
    )


def test_curves_over_radii_are_of_the_samples_in_common(succeeds, fails, run):
    succeeds("certify", run, "--samples", "0:20", "--eps", "0.01", "--stages", "interval")
    succeeds("certify", run, "--samples", "10:30", "--eps", "0.02", "--stages", "interval")
    succeeds("curves", run)
    assert {row["samples"] for row in table("curves.csv")} == {"10"}
    succeeds("certify", run, "--samples", "40:41", "--eps", "0.03", "--stages", "interval")
    assert "at linf 0.01, 0.02, 0.03 have no sample in common" in fails("curves", run)


def test_curves_over_seconds_end_at_the_accuracies(succeeds, fails, certified):
    succeeds("curves", certified, "--over", "seconds", "--eps", "0.03")
    rows = table("curves.csv")
    certification = RunFolder(certified).certification("linf-0.03").read()
    assert float(rows[-1]["certified"]) == pytest.approx(100 * certification.certified_accuracy, rel=1e-4)
    assert float(rows[-1]["adversarial"]) == pytest.approx(100 * certification.adversarial_accuracy, rel=1e-4)
    assert [float(row["seconds"]) for row in rows] == sorted(float(row["seconds"]) for row in rows)
    assert float(rows[0]["seconds"]) > 0, "a sample that another radius decided has the seconds of that radius"
    assert "has no certification at eps 0.5" in fails("curves", certified, "--over", "seconds", "--eps", "0.5")
    assert "--eps chooses the radius of curves over seconds" in fails("curves", certified, "--eps", "0.03")


def test_curves_need_a_certification(fails, run, tmp_path):
    assert "has no certification" in fails("curves", run)
    assert "there is no run folder" in fails("curves", tmp_path / "nowhere")

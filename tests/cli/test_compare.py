"""Plots of `ctbench compare`."""

import csv
from pathlib import Path

import pytest
from tests.report.test_comparison import record

from ctbench.cli import main
from ctbench.results import RunFolder, jsonl


def test_compare_draws_one_accuracy_over_another(succeeds, fails, run):
    assert "none of the runs has been certified" in fails("compare", run, "--plot", "natural,certified")
    succeeds("certify", run, "--samples", 20, "--stages", "interval")
    out = succeeds("compare", run, "--plot", "natural,certified", "--figure", "figures/plot.svg")
    assert out.endswith("figures/plot.svg\n")
    assert Path("figures/plot.svg").read_text().startswith("<?xml")
    succeeds("compare", run, "--plot", "natural,adversarial")
    assert Path("compare.png").is_file()
    assert "--plot is 'natural': give two different accuracies" in fails("compare", run, "--plot", "natural")


@pytest.fixture
def seeds(tmp_path) -> list[Path]:
    """Two seeds of each of two methods, certified on ten samples."""
    folders = []
    for method, seed, certified in (("ibp", 0, 6), ("ibp", 1, 7), ("standard", 0, 1), ("standard", 1, 0)):
        run = RunFolder(tmp_path / f"{method}-{seed}")
        run.path.mkdir()
        jsonl.write_json(run.recipe, {"method": {"name": method}, "seed": seed})
        files = run.certification("linf-0.05")
        files.start({"norm": "linf", "eps": 0.05, "dataset": "digits", "samples": [0, 10]}, resume=False)
        files.append([record(i, "certified" if i < certified else "falsified") for i in range(10)])
        folders.append(run.path)
    return folders


def test_compare_shows_means_over_seeds_and_fronts(succeeds, fails, seeds, run, capsys):
    out = succeeds("compare", *seeds, "--group-by", "method", "--over", "seed", "--markdown")
    means = {line.split("|")[1].strip(): line.split("|") for line in out.splitlines() if line.startswith("|")}
    assert means.keys() >= {"ibp", "standard"}
    assert [means[name][14].strip() for name in ("ibp", "standard")] == ["65.00", "5.00"]
    assert "Student's t" in out
    out = succeeds("compare", *seeds, "--group-by", "method", "--pareto", "natural,certified", "--reference", "10,0")
    assert "hypervolume" in out
    assert "natural 10 %, certified 0 %" in out
    assert out.splitlines()[-1] == "compare.png"
    with Path("compare.csv").open() as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"ibp", "standard"}
    out = succeeds("compare", *seeds, "--pareto", "natural,certified", "--figure", "front.svg")
    assert "on the front" in out
    assert Path("front.svg").is_file()
    assert "both have seed 0: give each run once" in fails("compare", *seeds, seeds[0], "--group-by", "method")
    assert main(["compare", *map(str, seeds), str(run), "--group-by", "method"]) == 0
    assert "not certified, so left out: run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plot", "natural,certified", "--pareto", "natural,certified"], "give one of them"),
        (["--over", "seed"], "give --group-by as well"),
        (["--reference", "0,0"], "give --pareto as well"),
        (["--reference", "nan,0", "--pareto", "natural,certified"], "give two percents in [0, 100), e.g. 90,0"),
        (["--pareto", "natural,natural"], "give two different accuracies, e.g. natural,certified"),
        (["--figure", "x.png"], "--figure is where a picture goes: say what it shows by --plot X,Y or --pareto X,Y"),
        (["--reference", "0"], "is not two percents"),
        (["--group-by", "method,"], "has an empty name"),
        (["--pareto", "natural"], "--pareto is 'natural': give two different accuracies"),
    ],
    ids=" ".join,
)
def test_options_that_do_not_go_together_are_refused(fails, run, options, message):
    assert message in fails("compare", run, *options)

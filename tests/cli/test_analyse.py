"""`ctbench analyse`: what it prints and writes, how it continues, and what it refuses."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest

from ctbench import load_run, save_onnx
from ctbench.analyses import Fragmentation, OwnAccuracy, Tightness, fragmentation, own_accuracy, tightness
from ctbench.cli import main
from ctbench.cli.analyse import _of_run
from ctbench.datasets import Spheres
from ctbench.methods.ibp import IBP
from ctbench.methods.taps import TAPS
from ctbench.networks import MLP
from ctbench.recipes import recipe
from ctbench.regions import Linf
from ctbench.report.analyses import Result
from ctbench.results import AnalysisFiles, jsonl
from ctbench.training import SGD, ConstantRamp, Recipe, train

QUICK = ("--what", "fragmentation,tightness", "--samples", 40)


def rows(text: str) -> list[list[str]]:
    """The cells of the tables."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def samples(run: Path, count: int):
    loaded = load_run(run)
    return loaded.model, *loaded.recipe.dataset.load().test[:count]


def test_it_prints_and_writes_what_python_measures(succeeds, run):
    out = succeeds("analyse", run, *QUICK, "--eps", "0.05,0.1", "--seed", 3)
    model, x, y = samples(run, 40)
    expected = []
    for eps in (0.05, 0.1):
        found = fragmentation(model, x, eps=eps, seed=3)
        means = [f"{found.mean(name):.4g}" for name in ("sampled", "crown", "interval")]
        expected.append(["run", "ibp", "0.05", f"{eps:g}", "40", *means])
    for eps in (0.05, 0.1):
        mean = tightness(model, x, y, eps=eps).mean("tightness")
        expected.append(["run", "ibp", "0.05", f"{eps:g}", "40", f"{mean:.4g}"])
    assert rows(out) == expected
    files = AnalysisFiles(run / "analysed" / "fragmentation.jsonl")
    assert files.read().radii == [0.05, 0.1]
    settings = files.read_settings()
    names = {name: settings[name] for name in ("analysis", "run", "dataset", "method", "train_eps", "norm", "seed")}
    assert names == {
        "analysis": "fragmentation",
        "run": "run",
        "dataset": "digits",
        "method": "ibp",
        "train_eps": 0.05,
        "norm": "linf",
        "seed": 3,
    }
    assert settings["options"] == {"name": "fragmentation", "draws": 50}
    assert len(settings["network_digest"]) == 64


def test_two_workers_measure_what_one_process_measures(succeeds, run):
    radii = ("--eps", "0.05,0.1")
    alone = succeeds("analyse", run, *QUICK, *radii, "--out", "alone")
    assert succeeds("analyse", run, *QUICK, *radii, "--out", "both", "--on", "local:2") == alone
    folders = [Path(name) / "run" / "analysed" for name in ("alone", "both")]
    for first, second in zip(*(sorted(folder.glob("*.jsonl")) for folder in folders), strict=True):
        untimed = {"seconds": 0, "checksum": ""}
        records = [sorted((str(record | untimed) for record in jsonl.read(path)), key=str) for path in (first, second)]
        assert records[0] == records[1]
        assert len(records[0]) == 2


def test_it_continues_and_computes_nothing_twice(succeeds, run, monkeypatch):
    first = succeeds("analyse", run, *QUICK)
    records = run / "analysed" / "fragmentation.jsonl"
    content = records.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Fragmentation, "measure", None)
        assert succeeds("analyse", run, *QUICK) == first
    assert records.read_bytes() == content
    records.write_bytes(content[:-20])  # as if killed while it was written
    assert succeeds("analyse", run, *QUICK) == first
    (again,) = jsonl.read(records)
    untimed = {"seconds": 0, "checksum": ""}
    assert again | untimed == json.loads(content) | untimed


def test_an_interruption_keeps_the_records(run, monkeypatch, capsys):
    def interrupted(self, part):
        raise KeyboardInterrupt

    monkeypatch.setattr(Tightness, "measure", interrupted)
    assert main(["analyse", str(run), *map(str, QUICK)]) == 130
    assert "interrupted; records are kept, and the same command continues" in capsys.readouterr().err
    assert AnalysisFiles(run / "analysed" / "fragmentation.jsonl").read().samples() == 40
    assert AnalysisFiles(run / "analysed" / "tightness.jsonl").read().records == ()


def test_more_samples_and_radii_add_to_the_records(succeeds, run):
    whole = rows(succeeds("analyse", run, "--what", "utilisation", "--out", "other"))
    few = rows(succeeds("analyse", run, "--what", "utilisation", "--samples", 40))
    assert rows(succeeds("analyse", run, "--what", "utilisation")) == whole
    assert rows(succeeds("analyse", run, "--what", "utilisation", "--samples", 40)) == few != whole
    succeeds("analyse", run, "--what", "utilisation", "--eps", 0.2)
    assert AnalysisFiles(run / "analysed" / "utilisation.jsonl").read().radii == [0.05, 0.2]
    assert Path("other/run/analysed/utilisation.jsonl").is_file()


def test_runs_stand_side_by_side_with_csv_and_figures(succeeds, run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in run.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    succeeds("certify", run, "--stages", "interval", "--samples", 40, "--quiet")
    succeeds("certify", other, "--stages", "interval", "--samples", 30, "--quiet")
    what = "fragmentation,states,tightness,box-growth,centres"
    out = succeeds(
        "analyse", run, other, "--what", what, "--samples", 40, "--csv", "numbers.csv", "--plot", "figures/it.svg"
    )
    names = ["it-fragmentation", "it-states", "it-tightness", "it-box-growth", "it-centres"]
    assert [line for line in out.splitlines() if line.startswith("figures/")] == [f"figures/{n}.svg" for n in names]
    assert all(Path(f"figures/{name}.{kind}").stat().st_size for name in names for kind in ("svg", "csv"))
    assert "tightness and certified accuracy at eps 0.05, 1 run: correlation -" in out
    assert "tightness: other was certified at eps 0.05, but not on all 40 samples here: give --samples" in out
    table = list(csv.DictReader(Path("numbers.csv").read_text().splitlines()))
    assert {line["analysis"] for line in table} == set(what.split(","))
    assert {line["run"] for line in table} == {"run", "other"}
    line = next(line for line in table if line["quantity"] == "crown")
    model, x, _ = samples(run, 40)
    summary = fragmentation(model, x, eps=0.05).summary("crown")
    numbers = [float(line[name]) for name in ("mean", "standard deviation", "standard error", "samples")]
    expected = [summary.mean, summary.deviation, summary.error, 40]
    assert numbers == pytest.approx(expected, rel=1e-5)
    assert any(line["quantity"].startswith("layer 2: ") for line in table)


def test_options_are_set_and_have_files_of_their_own(succeeds, run):
    draws = succeeds("analyse", run, "--what", "fragmentation", "--samples", 40, "--set", "fragmentation.draws=200")
    model, x, y = samples(run, 40)
    assert rows(draws)[0][5] == f"{fragmentation(model, x, eps=0.05, draws=200).mean('sampled'):.4g}"
    own = ("analyse", run, "--what", "own-accuracy", "--samples", 40)
    assert rows(succeeds(*own))[0][5] == f"{own_accuracy(model, IBP(), x, y, eps=0.05).mean('own accuracy'):.4g}"
    taps = ("--set", "own-accuracy.method=taps", "--set", "own-accuracy.method.classifier_relus=0")
    mean = own_accuracy(model, TAPS(classifier_relus=0), x, y, eps=0.05).mean("own accuracy")
    assert rows(succeeds(*own, *taps))[0][5] == f"{mean:.4g}"
    stems = sorted(path.stem for path in (run / "analysed").glob("*.jsonl"))
    assert len(stems) == 3
    assert stems[1] == "own-accuracy"


def test_records_are_read_without_the_network(succeeds, run):
    succeeds("analyse", run, *QUICK)
    files = AnalysisFiles(run / "analysed" / "fragmentation.jsonl")
    result = Result.read(files)
    model, x, _ = samples(run, 40)
    assert result.measurements.mean("sampled") == pytest.approx(fragmentation(model, x, eps=0.05).mean("sampled"))
    assert result.labels == ("run", "ibp", "0.05")


def test_runs_of_one_name_are_told_apart(succeeds, run):
    for name in ("a/run", "b/run"):
        shutil.copytree(run, name)
    succeeds("analyse", "a/run", "b/run", "--what", "fragmentation", "--samples", 5, "--csv", "all.csv")
    lines = list(csv.DictReader(Path("all.csv").read_text().splitlines()))
    assert {line["run"] for line in lines} == {"a/run", "b/run"}


def test_weights_and_onnx_files_are_analysed(succeeds, fails, run):
    save_onnx(load_run(run).model, "net.onnx", (1, 8, 8))
    data = ("--dataset", "digits", "--eps", 0.05)
    from_run = rows(succeeds("analyse", run, *QUICK))
    found = rows(succeeds("analyse", "net.onnx", run / "weights.safetensors", *QUICK, *data))
    assert [row[3:] for row in found] == [row[3:] for row in from_run for _ in range(2)]
    assert {row[1] for row in found} == {"-"}
    assert "does not define its eps or its data" in fails("analyse", "net.onnx", *QUICK)
    message = fails("analyse", "net.onnx", "--what", "own-accuracy", *data)
    assert "own-accuracy needs a training method: give --set own-accuracy.method=NAME, or a run folder" in message


def test_generalisation_is_measured_by_the_command_of_corruptions(succeeds, fails, run, monkeypatch):
    printed = succeeds("corruptions", run, "--samples", 30, "--kinds", "fog,stripe", "--severities", "1,5", "--csv")
    expected = [float(number) for number in printed.splitlines()[1].split(",")[2:]]
    records = run / "corrupted" / "ours-30.jsonl"
    content = records.read_bytes()
    some = ("--set", 'generalisation.kinds=["fog", "stripe"]', "--set", "generalisation.severities=[1, 5]")
    asked = ("analyse", run, "--what", "states,generalisation", "--samples", 30, *some)
    monkeypatch.setattr("ctbench.analyses.generalisation.count_right", lambda *_: pytest.fail("computed again"))
    out = succeeds(*asked, "--csv", "all.csv", "--plot", "it.svg")
    assert records.read_bytes() == content
    table = list(csv.DictReader(Path("all.csv").read_text().splitlines()))
    mine = [line for line in table if line["analysis"].startswith("generalisation")]
    whole = [line for line in mine if not line["x"]]
    assert [line["quantity"] for line in whole] == ["clean", "fog", "stripe", "mean"]
    assert [float(line["mean"]) for line in whole] == pytest.approx(expected, rel=1e-5)
    assert {line["x"] for line in mine} == {"", "1", "5"}
    assert {(line["run"], line["method"], line["eps"], line["samples"]) for line in mine} == {("run", "ibp", "0", "30")}
    assert [row[:6] for row in rows(out)[-3:]] == [
        ["run", "ibp", "0.05", "0", "30", place] for place in ("-", "1", "5")
    ]
    assert [path.suffix for path in sorted(Path().glob("it-generalisation-*"))] == [".csv", ".svg"]
    by_place = {(line["quantity"], line["x"]): float(line["mean"]) for line in mine}
    for place in ("", "1", "5"):
        assert by_place["mean", place] == pytest.approx(
            (by_place["fog", place] + by_place["stripe", place]) / 2, rel=1e-5
        )
    assert by_place["mean", "1"] != by_place["mean", "5"]
    assert "generalisation" in succeeds("list", "analyses")


def test_generalisation_of_another_folder_is_written_there(succeeds, run):
    some = ("--set", 'generalisation.kinds=["fog"]', "--set", "generalisation.severities=[1]")
    succeeds("analyse", run, "--what", "generalisation", "--samples", 5, *some, "--out", "elsewhere")
    assert (Path("elsewhere") / run.name / "corrupted" / "ours-5.jsonl").is_file()
    assert not (run / "corrupted").exists()


def test_generalisation_needs_the_images_of_a_run(succeeds, fails, run, tmp_path):
    what = ("--what", "generalisation", "--samples")
    weights = ("analyse", run / "weights.safetensors", *what, 5, "--dataset", "digits", "--eps", 0.05)
    assert "generalisation needs a run folder, whose test images it corrupts" in fails(*weights)
    assert "leave out --corruption" in fails("analyse", run, *what, 5, "--corruption", "fog")
    assert "generalisation takes the first images, not 3:5: give --samples N" in fails("analyse", run, *what, "3:5")
    absent = ("--data", tmp_path, "--set", "generalisation.source=mnist-c")
    assert "mnist_c or mnist_c.zip is neither in" in fails("analyse", run, *what, 5, *absent)
    assert "severities are (9,): give whole" in fails(
        "analyse", run, *what, 5, "--set", "generalisation.severities=[9]"
    )
    vectors = Spheres(dimension=3, samples=20, test_samples=9, inner_radius=1.0, margin=2.0)
    threat = Linf(eps=0.1, clip=None)
    recipe = Recipe(
        dataset=vectors,
        network=MLP(),
        threat=threat,
        method=IBP(),
        ramp=ConstantRamp(),
        epochs=1,
        batch_size=9,
        optimizer=SGD(lr=0.1),
        name="spheres",
    )
    train(recipe, out="spheres", quiet=True)
    assert "spheres was trained on spheres, which holds no images" in fails("analyse", "spheres", *what, 5)


def test_an_analysis_of_your_own_is_found(succeeds, fails, run, monkeypatch):
    Path("analyses_of_the_user.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from ctbench.analyses import Analysis, measurement\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Brightness(Analysis):\n    '''The mean pixel.'''\n"
        "    name: ClassVar[str] = 'your-own-brightness'\n    factor: float = 1.0\n"
        "    def measure(self, part):\n"
        "        return [measurement({'brightness': self.factor * part.x.flatten(1).mean(1)})]\n"
    )
    monkeypatch.setattr(sys, "path", sys.path.copy())
    assert "no analysis is called 'your-own-brightness'" in fails("analyse", run, "--what", "your-own-brightness")
    user = ("--import", "analyses_of_the_user")
    out = succeeds(*user, "analyse", run, "--what", "your-own-brightness", "--set", "your-own-brightness.factor=2")
    _, x, _ = samples(run, 359)
    assert float(rows(out)[0][5]) == pytest.approx(2 * float(x.mean()), abs=1e-3)
    listed = succeeds(*user, "list", "analyses")
    assert "your-own-brightness" in listed
    assert "The mean pixel." in listed
    assert "fragmentation" in listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--what", "nothing"], "no analysis is called 'nothing'; there are box-growth, centres, fragmentation"),
        (["--what", "states,states"], "--what is states,states: name each analysis once"),
        (["--eps", "-0.1"], "eps is -0.1: a radius must be a number >= 0"),
        (["--eps", "0.1,0.2,0.10"], "--eps is 0.1,0.2,0.1: name each radius once"),
        (["--eps", "0.1,x"], "'x' is not a radius"),
        (["--samples", "0"], "'0' is not a whole number of 1 or more"),
        (["--samples", "1000"], "there are 359 test images"),
        (["--seed", "-1"], "seed is -1"),
        (["--norm", "l9"], "norm is 'l9'"),
        (["--what", "tightness", "--norm", "l2"], "the threat model is l2: tightness divides radii of boxes"),
        (["--what", "box-growth", "--eps", "0"], "eps is 0: boxes of no radius do not grow"),
        (["--set", "states.draws=3"], "has no field 'draws'"),
        (["--set", "fragmentation.draws=1"], "draws is 1"),
        (["--set", "nothing.draws=1"], "--set nothing.draws=1: it must begin with one of the analyses"),
        (["--plot", "it.txt"], "--plot is it.txt: give a file that ends in .png or .svg"),
    ],
)
def test_bad_input_is_one_line(fails, run, arguments, message):
    assert message in fails("analyse", run, *arguments)


def test_other_places_and_settings_are_refused(succeeds, fails, run):
    assert "there is no run folder nowhere" in fails("analyse", "nowhere")
    succeeds("analyse", run, "--what", "states", "--samples", 40)
    message = fails("analyse", run, "--what", "states", "--samples", 40, "--seed", 1)
    assert "was made under other settings (seed was 0, now 1): choose another place (--out)" in message
    (run / "analysed" / "states.json").unlink()
    assert "states.jsonl exists, but not states.json next to it" in fails("analyse", run, "--what", "states")


def test_a_scheduled_method_is_that_of_the_end_of_training():
    trained = recipe("mnist_small_l2_crown_ibp")
    assert trained.method.beta == 1
    assert _of_run(OwnAccuracy(), trained).method.beta == trained.final_method.beta == 0
    assert _of_run(OwnAccuracy(method=IBP()), trained).method == IBP()
    plain = recipe("digits_ibp")
    assert plain.final_method == plain.method


def test_a_copied_run_keeps_its_records(succeeds, run, monkeypatch):
    first = succeeds("analyse", run, *QUICK)
    copied = run.rename(run.with_name("moved"))
    monkeypatch.setattr(Fragmentation, "measure", None)
    again = succeeds("analyse", copied, *QUICK)
    assert [row[1:] for row in rows(again)] == [row[1:] for row in rows(first)]
    assert {row[0] for row in rows(again)} == {"moved"}
    assert AnalysisFiles(copied / "analysed" / "fragmentation.jsonl").read_settings()["run"] == "moved"


def test_a_figure_needs_something_to_show(succeeds, fails, run, capsys):
    status = main(["analyse", str(run), "--what", "tightness", "--samples", "40", "--plot", "it.png"])
    assert status == 2
    assert "no run was certified at the radius of its analysis" in capsys.readouterr().err
    out = succeeds("analyse", run, *QUICK, "--plot", "it.png")
    assert "tightness has no figure: no run was certified on these samples at its radius" in out
    assert Path("it-fragmentation.png").is_file()


def test_a_network_without_relus_is_one_line(fails, capsys):
    Path("my_linear.py").write_text(
        "import torch\n\ndef net():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    message = fails("analyse", "my_linear:net", "--dataset", "digits", "--eps", 0.1, "--samples", 5)
    assert "the network has no ReLU or other piecewise linear activation: no neuron can switch" in message

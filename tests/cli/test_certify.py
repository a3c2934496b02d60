"""`ctbench certify` and `merge`: what they prove, print and write, however often they are interrupted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ctbench import load_network, load_onnx, load_run, read_vnnlib, save_onnx
from ctbench.analyses.fairness import discrepancy
from ctbench.cli import main
from ctbench.cli.vnncomp import read_instances
from ctbench.networks import CNN3
from ctbench.results import Certification, CertificationFiles, RunFolder, Verdict, jsonl
from ctbench.training.blueprint import Blueprint
from ctbench.training.checkpoints import save_network


def shares(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"(natural|adversarial|certified) ([\d.]+) %", text)}


def test_certify_proves_the_test_images_of_a_run(succeeds, run):
    out = succeeds("certify", run, "--samples", 60)
    files = RunFolder(run).certification("linf-0.05")
    found = files.read()
    assert [record.index for record in found] == list(range(60))
    said = shares(out)
    assert said["certified"] == pytest.approx(100 * found.certified_accuracy, abs=0.01)
    assert said["adversarial"] == pytest.approx(100 * found.adversarial_accuracy, abs=0.01)
    assert said["natural"] == pytest.approx(100 * found.natural_accuracy, abs=0.01)
    assert 0 < said["certified"] <= said["adversarial"] <= said["natural"]
    assert out.splitlines()[-1] == str(files.records)
    assert "60 samples, linf eps 0.05" in out
    labels = torch.tensor([record.label for record in found])
    kinds = {
        "natural": [record.prediction != record.label for record in found],
        "adversarial": [record.verdict in ("misclassified", "falsified") for record in found],
        "certified": [record.verdict != "certified" for record in found],
    }
    unfair = (f"{name} {discrepancy(torch.tensor(wrong), labels):.3f}" for name, wrong in kinds.items())
    assert f"accuracy discrepancy (0: all classes alike): {', '.join(unfair)}\n" in out


def test_certify_counts_by_stage(succeeds, run):
    out = succeeds("certify", run, "--samples", 60)
    found = RunFolder(run).certification("linf-0.05").read()
    rows = {line.split()[1]: line.split("│")[2:-1] for line in out.splitlines() if "│" in line}
    seconds = {stage: float(row.pop()) for stage, row in rows.items()}
    rows = {stage: [int(count) for count in row] for stage, row in rows.items()}
    assert rows.pop("all") == list(found.outcomes.values())
    assert seconds.pop("all") == pytest.approx(found.seconds, abs=0.06)
    assert seconds == pytest.approx(found.seconds_by_stage, abs=0.06)
    assert rows.keys() == found.stages.keys()
    assert [sum(column) for column in zip(*rows.values(), strict=True)] == list(found.outcomes.values())


def test_certify_takes_the_radius_of_the_recipe_or_another(succeeds, run):
    usual = shares(succeeds("certify", run, "--samples", 60))
    small = shares(succeeds("certify", run, "--samples", 60, "--eps", 0.001))
    assert small["natural"] == usual["natural"]
    assert small["certified"] > usual["certified"]
    names = [files.records.name for files in RunFolder(run).certifications()]
    assert names == ["linf-0.001.jsonl", "linf-0.05.jsonl"]


def test_certify_resumes(succeeds, fails, run):
    succeeds("certify", run, "--samples", 20)
    files = RunFolder(run).certification("linf-0.05")
    first = files.records.read_text().splitlines()
    assert "exists already: resume it (--resume), or choose another place (--out)" in fails(
        "certify", run, "--samples", 20
    )
    files.records.write_text("\n".join(first[:11]))  # the eleventh is torn: it has no end
    out = succeeds("certify", run, "--samples", 30, "--resume")
    records = jsonl.read(files.records)
    assert [json.loads(line) for line in first[:10]] == records[:10]
    assert sorted(record["index"] for record in records) == list(range(30))
    assert "30 samples" in out
    jsonl.write_json(files.settings, {**files.read_settings(), "rounding": "nearest"})
    assert "made under other settings (rounding was 'nearest', now 'outward')" in fails(
        "certify", run, "--samples", 30, "--resume"
    )


def test_certify_writes_where_it_is_told(succeeds, run):
    out = succeeds("certify", run, "--samples", 10, "--out", "records.jsonl")
    assert out.splitlines()[-1] == "records.jsonl"
    assert len(CertificationFiles(Path("records.jsonl")).read()) == 10
    assert not (run / "certified").exists()


def test_certify_never_overwrites_other_files(fails, run):
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.suffix != ".lock"}
    for name in ("metrics.jsonl", "recipe.jsonl", "recipe.json", "weights.safetensors"):
        fails("certify", run, "--samples", 5, "--out", run / name)
        assert {path.name: path.read_bytes() for path in run.iterdir() if path.suffix != ".lock"} == before, name


def test_certify_takes_a_file_of_weights(succeeds, run):
    from_run = shares(succeeds("certify", run, "--samples", 60))
    weights = run / "weights.safetensors"
    out = succeeds("certify", weights, "--dataset", "digits", "--eps", 0.05, "--samples", 60)
    assert shares(out) == from_run
    assert out.splitlines()[-1] == "runs/run-weights/certified/linf-0.05.jsonl"


def test_certify_takes_weights_of_a_network_that_is_named(succeeds, fails):
    blueprint = Blueprint(network=CNN3(), input_shape=(1, 8, 8), classes=10)
    save_network(blueprint.build(), blueprint, Path("other.safetensors"))
    certify = ["certify", "other.safetensors", "--dataset", "digits", "--eps", 0.01, "--samples", 5]
    assert "5 samples" in succeeds(*certify, "--network", "cnn3", "--out", "a.jsonl")
    assert json.loads(Path("a.json").read_text())["network"] == "cnn3"
    assert "holds the weights of another network" in fails(*certify, "--network", "mlp", "--out", "b.jsonl")


def cells(text: str) -> dict[str, list[str]]:
    """The cells of printed tables, by their first one."""
    lines = ([cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line)
    return {first: rest for first, *rest in lines}


def test_certify_names_a_stage_that_failed(capsys, run, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck")

    for name in ("interval", "crown", "alpha_crown"):
        monkeypatch.setattr(f"ctbench.domains.{name}.lower_bounds", broken)
    assert main(["certify", str(run), "--samples", "9", "--stages", "fast"]) == 0
    said = capsys.readouterr()
    found = RunFolder(run).certification("linf-0.05").read()
    left = [record.index for record in found if record.reason]
    assert shares(said.out)["certified"] == 0 < len(left)
    assert f"{len(left)} samples stayed open, e.g. sample {left[0]}: interval: RuntimeError: out of luck" in said.out
    assert "StageFailedWarning" not in said.err
    told = cells(said.err)
    assert told == {
        "interval": [str(found.natural_accuracy * 9)[0], "RuntimeError: out of luck"],
        "crown-ibp": [told["interval"][0], "RuntimeError: out of luck"],
        "crown": [str(len(left)), "RuntimeError: out of luck"],
        "alpha-crown": [str(len(left)), "RuntimeError: out of luck"],
    }
    decided = cells(said.out)["all"]
    assert decided[2:5] == [str(len(left)), "0", "0"]


def test_certify_is_strict_about_stages_that_failed_when_all_is_written(capsys, run, monkeypatch):
    command = ["certify", str(run), "--samples", "9", "--stages", "fast", "--strict"]
    with monkeypatch.context() as patch:
        patch.setattr("ctbench.verify.stages.Bound.__call__", lambda *_: 1 / 0)
        assert main(command) == 2
    said = capsys.readouterr()
    assert "9 samples, linf" in said.out
    assert said.err.splitlines()[-1] == (
        "ctbench: error: --strict, and stages failed (interval, crown-ibp, crown, alpha-crown): fix the errors in the "
        "table, and certify again"
    )
    assert cells(said.err)["interval"][1] == "ZeroDivisionError: division by zero"
    assert len(RunFolder(run).certification("linf-0.05").read()) == 9
    assert main([*command, "--resume"]) == 2
    assert main(["certify", str(run), "--samples", "9", "--strict", "--out", "good.jsonl"]) == 0


def test_samples_that_had_no_time_are_not_counted_as_errors(capsys, run):
    assert main(["certify", str(run), "--samples", "60", "--timeout", "1e-9", "--strict"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    found = RunFolder(run).certification("linf-0.05").read()
    late = found.counts[Verdict.UNKNOWN]
    assert late > 0
    assert cells(said.out)["all"][2:5] == ["0", str(late), "0"]


@pytest.mark.parametrize("change", [{"verdict": "certified", "bound": -5}, {"verdict": "certified", "bound": None}])
def test_certify_and_attack_refuse_records_that_were_edited(succeeds, fails, run, change):
    succeeds("certify", run, "--samples", 20)
    path = RunFolder(run).certification("linf-0.05").records
    records = jsonl.read(path)
    jsonl.rewrite(path, [*records[:3], records[3] | change, *records[4:]])
    for command in (("certify", run, "--resume"), ("attack", run, "--certified", path), ("compare", run)):
        line = fails(*command, *(() if command[0] == "compare" else ("--samples", 20)))
        assert "linf-0.05.jsonl, line 4: not the record of a certified sample (its bound is" in line
        assert "take it out, and certify again" in line


def test_certify_wong_and_kolters_network_on_real_mnist(succeeds, real_mnist, kw_mnist):
    out = succeeds(
        "certify", kw_mnist, "--network", "conv-small", "--dataset", "mnist", "--data", real_mnist, "--eps", 0.001,
        "--samples", 20,
    )  # fmt: skip
    assert shares(out)["certified"] == shares(out)["natural"] == 95  # one of them is a famous mistake
    assert "20 samples" in out


# ---------------------------------------------------------------------------------------------- subjects


def verdicts(found: Certification) -> list[tuple[int, Verdict, str]]:
    return [(record.index, record.verdict, record.stage) for record in found]


@pytest.fixture
def exported(run: Path) -> Path:
    """The network of the run as an ONNX file in the working folder."""
    save_onnx(load_network(run / "weights.safetensors"), "net.onnx", (1, 8, 8))
    return Path("net.onnx")


def test_certify_takes_an_onnx_file_and_replays_counterexamples(succeeds, run, exported, monkeypatch):
    succeeds("certify", run, "--samples", 60)
    expected = RunFolder(run).certification("linf-0.05").read()
    assert expected.counts[Verdict.FALSIFIED] > 0
    out = succeeds("certify", exported, "--dataset", "digits", "--eps", 0.05, "--samples", 60)
    files = CertificationFiles(Path(out.splitlines()[-1]))
    assert files.records == Path("runs/net/certified/linf-0.05.jsonl")
    assert verdicts(files.read()) == verdicts(expected)
    settings = json.loads(files.settings.read_text())
    assert (settings["network"], settings["replayed"]) == ("net", True)
    # a runtime that always finds all outputs equal sees no counterexample
    monkeypatch.setattr("ctbench.cli.subjects._session", lambda path: lambda x: torch.zeros(1, 10))
    stubborn = succeeds("certify", exported, "--dataset", "digits", "--eps", 0.05, "--samples", 60, "--out", "b.jsonl")
    assert shares(stubborn)["adversarial"] == shares(stubborn)["natural"]


def test_certify_says_that_there_is_no_runtime_to_replay_in(capsys, exported, monkeypatch):
    monkeypatch.setattr("ctbench.cli.subjects.can_replay", lambda: False)
    assert main(["certify", "net.onnx", "--dataset", "digits", "--eps", "0.05", "--samples", "5"]) == 0
    assert capsys.readouterr().err == (
        "no onnxruntime: counterexamples are not replayed there (pip install 'ctbench[replay]')\n"
    )
    assert json.loads(Path("runs/net/certified/linf-0.05.json").read_text())["replayed"] is False


MODULE = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 10)).train()

def deep():
    torch.manual_seed(0)
    widths = [64, 400, 400, 400, 400]
    layers = [part for a, b in zip(widths, widths[1:]) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(400, 10))

def needy(width):
    return nn.Linear(64, width)

def wrong():
    return 3
"""


def test_certify_takes_what_a_python_function_returns(succeeds):
    Path("my_networks.py").write_text(MODULE)
    out = succeeds("certify", "my_networks:small", "--dataset", "digits", "--eps", 0.01, "--samples", 5)
    assert "5 samples" in out
    assert out.splitlines()[-1] == "runs/my_networks.small/certified/linf-0.01.jsonl"


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("nowhere_at_all:net", "made no network (ModuleNotFoundError: No module named 'nowhere_at_all')"),
        ("my_networks:absent", "made no network (AttributeError: module 'my_networks' has no attribute 'absent')"),
        ("my_networks:needy", "made no network (TypeError: needy() missing 1 required"),
        ("my_networks:wrong", "my_networks:wrong returned a int: it must return a torch.nn.Module"),
        ("broken_networks:net", "made no network (SyntaxError"),
    ],
)
def test_functions_that_make_no_network_are_explained(fails, subject, said):
    Path("my_networks.py").write_text(MODULE)
    Path("broken_networks.py").write_text("def net(:")
    assert said in fails("certify", subject, "--dataset", "digits", "--eps", 0.01)


def test_onnx_files_that_cannot_be_certified_are_explained(fails, exported):
    options = ("--dataset", "digits", "--eps", 0.05)
    assert "does not define its eps or its data: give --eps and --dataset" in fails("certify", exported)
    assert "--network and --normalize are for a file of weights" in fails(
        "certify", exported, *options, "--network", "cnn3"
    )
    content = exported.read_bytes()
    for damaged in (b"", content[:100], b"not a network"):
        Path("damaged.onnx").write_bytes(damaged)
        assert "damaged.onnx: " in fails("certify", "damaged.onnx", *options)
    assert "nowhere.onnx: there is no such file" in fails("certify", "nowhere.onnx", *options)
    save_onnx(CNN3(width=2).build((3, 8, 8), 10), "color.onnx", (3, 8, 8))
    assert "takes inputs of shape (3, 8, 8), but the images of digits have shape (1, 8, 8)" in fails(
        "certify", "color.onnx", *options
    )


# ---------------------------------------------------------------------------------------------- jobs


def test_certify_in_another_norm_has_its_own_records(succeeds, run):
    out = succeeds("certify", run, "--norm", "l2", "--eps", 0.1, "--samples", 60)
    files = RunFolder(run).certification("l2-0.1")
    assert out.splitlines()[-1] == str(files.records)
    assert "60 samples, l2 eps 0.1: " in out
    settings = json.loads(files.settings.read_text())
    assert (settings["norm"], settings["eps"]) == ("l2", 0.1)
    assert "norm 'l7'" not in out


def test_parts_of_a_data_set_go_into_one_file(succeeds, run):
    files = RunFolder(run).certification("linf-0.05")
    assert "20 samples" in succeeds("certify", run, "--samples", "20:40")
    assert [record.index for record in files.read()] == list(range(20, 40))
    assert "25 samples" in succeeds("certify", run, "--samples", "0:25", "--resume")
    assert [record.index for record in files.read()] == list(range(40))
    labels = load_run(run).recipe.dataset.load().test.labels
    assert [record.label for record in files.read()] == labels[:40].tolist()


def test_parts_that_several_machines_certified_are_merged(succeeds, fails, run):
    succeeds("certify", run, "--samples", "0:30", "--out", "a.jsonl")
    succeeds("certify", run, "--samples", "30:60", "--out", "b.jsonl")
    succeeds("certify", run, "--samples", "30:31", "--out", "c.jsonl", "--eps", 0.01)
    whole = succeeds("certify", run, "--samples", 60)
    merged = succeeds("merge", "all.jsonl", "b.jsonl", "a.jsonl")
    assert shares(merged) == shares(whole)
    assert merged.splitlines()[-1] == "all.jsonl"
    expected = RunFolder(run).certification("linf-0.05").read()
    assert [(r.index, r.verdict) for r in CertificationFiles(Path("all.jsonl")).read()] == [
        (r.index, r.verdict) for r in expected
    ]
    assert "eps was 0.05, now 0.01" in fails("merge", "other.jsonl", "a.jsonl", "c.jsonl")
    assert "there is no file none.jsonl" in fails("merge", "other.jsonl", "a.jsonl", "none.jsonl")
    assert "sample 0 has two records, in a.jsonl and in a.jsonl" in fails("merge", "other.jsonl", "a.jsonl", "a.jsonl")
    assert "all.jsonl exists already: merge into a new file" in fails("merge", "all.jsonl", "a.jsonl", "b.jsonl")
    assert not Path("other.jsonl").exists()
    succeeds("certify", run, "--samples", 60, "--out", "all.jsonl", "--resume")


def test_a_record_that_was_cut_short_is_told_and_can_be_made_again(capsys, run):
    for name, samples in (("a", "0:5"), ("b", "5:10")):
        assert main(["certify", str(run), "--samples", samples, "--out", f"{name}.jsonl"]) == 0
    Path("b.jsonl").write_bytes(Path("b.jsonl").read_bytes()[:-20])
    capsys.readouterr()
    assert main(["merge", "all.jsonl", "a.jsonl", "b.jsonl"]) == 0
    said = capsys.readouterr()
    assert "9 samples" in said.out
    assert said.err == (
        "b.jsonl, line 5: the record was truncated and is ignored: certify --resume --out all.jsonl computes it again\n"
        "1 of the samples 0 to 9 are in no part\n"
    )
    assert main(["certify", str(run), "--samples", "10", "--resume", "--out", "all.jsonl"]) == 0
    assert len(CertificationFiles(Path("all.jsonl")).read()) == 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--samples", "5:5"], "'5:5' is not a range A:B with A < B"),
        (["--samples", "7:3"], "'7:3' is not a range A:B with A < B"),
        (["--samples", ":3"], "':3' is not a range A:B with A < B"),
        (["--samples", "350:360"], "there are 359 test images: samples 350:360 are not among them"),
        (["--samples", "360"], "there are 359 test images: samples 0:360 are not among them"),
        (["--timeout", "0"], "'0' is not a number of seconds > 0, e.g. 60"),
        (["--timeout", "inf"], "'inf' is not a number of seconds > 0"),
        (["--timeout", "None"], "'None' is not a number of seconds > 0"),
        (["--total", "nan"], "'nan' is not a number of seconds > 0"),
        (["--workers", "0"], "'0' is not a whole number of 1 or more"),
        (["--norm", "l7"], "norm is 'l7': it must be one of first-coordinate, l1, l2, linf"),
        (["--norm", "l2", "--export", "open"], "--export writes boxes, but the norm is l2"),
    ],
)
def test_jobs_that_cannot_be_are_explained_in_a_line(fails, run, options, said):
    assert said in fails("certify", run, *options)
    assert not (run / "certified").exists()


@pytest.mark.timeout(120)
def test_two_workers_find_what_one_process_finds(succeeds, run):
    alone = succeeds("certify", run, "--samples", 60, "--out", "a.jsonl")
    both = succeeds("certify", run, "--samples", 60, "--out", "b.jsonl", "--workers", 2)
    assert shares(both) == shares(alone)
    found = [jsonl.read(Path(name)) for name in ("a.jsonl", "b.jsonl")]
    verdicts = [{record["index"]: record["verdict"] for record in records} for records in found]
    assert verdicts[0] == verdicts[1]
    assert len(found[1]) == 60


def test_counterexamples_are_written_on_demand(succeeds, run):
    succeeds("certify", run, "--samples", 60, "--counterexamples", "--out", "a.jsonl")
    files = CertificationFiles(Path("a.jsonl"))
    falsified = [record for record in files.read() if record.verdict is Verdict.FALSIFIED]
    assert {path.name for path in Path("a.counterexamples").iterdir()} == {f"{r.index}.npy" for r in falsified}
    x, _ = load_run(run).recipe.dataset.load().test[:60]
    model = load_network(run / "weights.safetensors").double()
    for record in falsified:
        point = torch.from_numpy(np.load(f"a.counterexamples/{record.index}.npy"))
        assert (point - x[record.index].double()).abs().max() <= 0.05 + 1e-15
        assert model(point[None]).argmax().item() != record.label


@pytest.fixture
def ticking(monkeypatch) -> None:
    """Every look at the clock takes a millisecond."""
    now = iter(range(10**9))
    monkeypatch.setattr("time.perf_counter", lambda: next(now) / 1000)


@pytest.mark.usefixtures("ticking")
def test_open_samples_are_exported_for_other_verifiers(succeeds, run, fails):
    succeeds("certify", run, "--samples", "20:60", "--timeout", 30, "--total", 0.01, "--export", "open")
    again = fails("certify", run, "--samples", "20:60", "--total", 0.01, "--resume", "--export", "open")
    assert "open already holds exported properties: choose another folder for --export" in again
    closed = {record.index for record in RunFolder(run).certification("linf-0.05").read()}
    standing = [index for index in range(20, 60) if index not in closed]
    assert closed
    assert standing
    instances = read_instances(Path("open/instances.csv"))
    assert [one.vnnlib for one in instances] == [f"{index}.vnnlib.gz" for index in standing]
    assert {(one.onnx, one.timeout) for one in instances} == {("network.onnx", 30)}
    x, y = load_run(run).recipe.dataset.load().test[:60]
    network = load_onnx("open/network.onnx")
    onnx.checker.check_model("open/network.onnx")
    assert torch.allclose(network(x), load_network(run / "weights.safetensors")(x), atol=1e-5)
    for index, instance in zip(standing, instances, strict=True):
        (case,) = read_vnnlib(instance.property_path).cases
        center = x[index].double().flatten()
        # rounded outward, by no more than a unit in the last place
        for corner, end in ((case.lower, (center - 0.05).clamp(0, 1)), (case.upper, (center + 0.05).clamp(0, 1))):
            torch.testing.assert_close(corner, end, rtol=0, atol=1e-15)
        for low, high, middle in zip(case.lower.tolist(), case.upper.tolist(), center.tolist(), strict=True):
            assert low == 0 or Fraction(low) <= Fraction(middle) - Fraction(0.05)
            assert high == 1 or Fraction(high) >= Fraction(middle) + Fraction(0.05)
        outputs = torch.eye(10, dtype=torch.float64)
        assert case.violated(outputs).tolist() == [label != y[index] for label in range(10)]


def test_an_impossible_folder_for_open_samples_is_refused_before_anything_is_certified(fails, run, monkeypatch):
    Path("file").touch()
    assert "file: it is a file, but a folder is expected" in fails("certify", run, "--export", "file")
    Path("open").mkdir()
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "open: no permission to read or write it" in fails("certify", run, "--export", "open")
    assert not (run / "certified").exists()


def test_where_no_sample_is_open_none_is_exported(succeeds, run):
    out = succeeds("certify", run, "--samples", 5, "--eps", 0.001, "--export", "open")
    assert "no sample is open: nothing is written to open\n" in out
    assert not Path("open").exists()


@pytest.mark.usefixtures("ticking")
def test_what_is_not_decided_in_time_is_told_and_resumed(succeeds, run):
    out = succeeds("certify", run, "--total", 0.015)
    files = RunFolder(run).certification("linf-0.05")
    kept = len(files.read())
    assert 0 < kept < 359
    assert f"{kept} samples, linf" in out
    assert f"{359 - kept} more samples were not decided in time: --resume continues with them" in out
    assert "359 samples, linf" in succeeds("certify", run, "--resume")
    assert len(files.read()) == 359


def test_a_bar_shows_verdicts_and_rate(capsys, run, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["certify", str(run), "--samples", "30"]) == 0
    capsys.readouterr()
    assert main(["certify", str(run), "--samples", "60", "--resume"]) == 0
    found = RunFolder(run).certification("linf-0.05").read()
    told = "  ".join(f"{verdict} {count}" for verdict, count in found.counts.items())
    said = capsys.readouterr().err
    assert re.search(rf"60/60.* {told}  [\d.e+]+ samples/s", said)


# ---------------------------------------------------------------------------------------------- interruption


def test_an_interruption_tells_what_is_kept(capsys, run, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ctbench.verify.stages.Falsify.__call__", interrupted)
        assert main(["certify", str(run), "--samples", "60"]) == 130
    files = RunFolder(run).certification("linf-0.05")
    kept = len(files.read())
    assert 0 < kept < 60
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"ctbench: interrupted; {kept} records are kept in {files.records}, "
        f"and the same command with --resume continues\n"
    )
    assert main(["certify", str(run), "--samples", "60", "--resume"]) == 0
    assert [record.index for record in files.read()] == list(range(60))


@pytest.mark.timeout(120)
def test_an_interruption_ends_all_processes_with_one_line():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children would inherit what `nohup ... &` ignores
    Path("my_networks.py").write_text(MODULE)
    records = Path("records.jsonl")
    command = [sys.executable, "-m", "ctbench", "certify", "my_networks:deep", "--dataset", "digits", "--eps", "0.01"]
    with subprocess.Popen(
        [*command, "--workers", "2", "--out", str(records)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while not (records.exists() and records.stat().st_size):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everyone hears of it
        out, told = process.communicate()
    assert process.returncode == 130
    kept = len(CertificationFiles(records).read())
    assert (out, told) == (
        "",
        f"ctbench: interrupted; {kept} records are kept in {records}, and the same command with --resume continues\n",
    )

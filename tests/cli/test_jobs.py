"""Jobs of `ctbench certify`: parts that are merged, workers, time limits, and interruptions."""

import errno
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
from tests.cli.printed import shares

from ctbench import load_network, load_onnx, load_run, read_vnnlib
from ctbench.cli import main
from ctbench.cli.vnncomp import read_instances
from ctbench.results import CertificationFiles, RunFolder, Verdict, jsonl


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
        (["--workers", "2", "--on", "local:2"], "--on local:2 and 2 workers are two answers to one question"),
        (
            ["--on", "cluster"],
            "there is no engine 'cluster': give local, local:N with N processes, ray, or ray://HOST:",
        ),
        (["--on", "ray://127.0.0.1:1"], "no connection to a Ray cluster at ray://127.0.0.1:1 ("),
        (["--device", "nonsense"], "--device: there is no device 'nonsense' to compute on"),
        (["--norm", "l7"], "norm is 'l7': it must be one of first-coordinate, l1, l2, linf"),
        (["--norm", "l2", "--export", "open"], "--export writes boxes, but the norm is l2"),
    ],
)
def test_jobs_that_cannot_be_are_explained_in_a_line(fails, run, options, said):
    assert said in fails("certify", run, *options)
    assert not (run / "certified").exists()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("option", [("--workers", 2), ("--on", "local:2")])
def test_two_workers_find_what_one_process_finds(succeeds, run, option):
    alone = succeeds("certify", run, "--samples", 60, "--out", "a.jsonl")
    both = succeeds("certify", run, "--samples", 60, "--out", "b.jsonl", *option)
    assert shares(both) == shares(alone)
    parts = [jsonl.read(Path(name)) for name in ("a.jsonl", "b.jsonl")]
    verdicts = [{record["index"]: record["verdict"] for record in records} for records in parts]
    assert verdicts[0] == verdicts[1]
    assert len(parts[1]) == 60


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

    def refused(**_: object) -> None:
        raise PermissionError(errno.EACCES, "no", "open/tmp")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
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
    certification = RunFolder(run).certification("linf-0.05").read()
    summary = "  ".join(f"{verdict} {count}" for verdict, count in certification.counts.items())
    said = capsys.readouterr().err
    assert re.search(rf"60/60.* {summary}  [\d.e+]+ samples/s", said)


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


DEEP = """
import torch
from torch import nn

def deep():
    torch.manual_seed(0)
    widths = [64, 400, 400, 400, 400]
    layers = [part for a, b in zip(widths, widths[1:]) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(400, 10))
"""


@pytest.mark.timeout(120)
def test_an_interruption_ends_all_processes_with_one_line():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children would inherit what `nohup ... &` ignores
    Path("my_networks.py").write_text(DEEP)
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

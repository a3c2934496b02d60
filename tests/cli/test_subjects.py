"""What `ctbench certify` takes: ONNX files and functions of Python, and what it says of those that make no network."""

import json
from pathlib import Path

import pytest
import torch
from tests.cli.printed import shares

from ctbench import load_network, save_onnx
from ctbench.cli import main
from ctbench.networks import CNN3
from ctbench.results import Certification, CertificationFiles, RunFolder, Verdict


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
        "no onnxruntime: counterexamples are not replayed there (pip install onnxruntime)\n"
    )
    assert json.loads(Path("runs/net/certified/linf-0.05.json").read_text())["replayed"] is False


MODULE = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 10)).train()

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

"""Commands with a module and data of the user's own, from a module or from a file."""

import re
import sys
from pathlib import Path

import pytest

from ctbench.results import jsonl

OWN = """
import torch
from torch import nn

from ctbench.datasets import Data, Digits


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))


def data():
    digits = Digits().load()
    return Data.of(digits.train[:300], digits.test[:40])


def other_data():
    digits = Digits().load()
    return Data.of(digits.train[:300], digits.test[:39])
"""
SHORT = ("--set", "epochs=2", "--set", "shi=0", "--set", "ramp.end=1", "--set", "optimizer.milestones=[]")


@pytest.fixture
def own(monkeypatch) -> str:
    monkeypatch.delitem(sys.modules, "own_net_of_test", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("nets").mkdir()
    path = Path("nets/own_net_of_test.py")
    path.write_text(OWN)
    return str(path)


def test_a_module_of_ones_own_is_trained_certified_attacked_and_compared(own, succeeds, fails):
    own_members = ("--model", f"{own}:net", "--data-from", f"{own}:data")
    succeeds("train", "digits_ibp", *SHORT, *own_members, "--out", "mine", "--quiet")
    again = succeeds("train", "digits_ibp", *SHORT, *own_members, "--out", "mine", "--quiet", "--resume")
    assert again == "mine\n"
    data = ("--data-from", f"{own}:data", "--stages", "fast")
    graph = succeeds("certify", "mine", *data, "--out", "graph.jsonl")
    module = succeeds("certify", "mine", *data, "--model", f"{own}:net")
    natural = [re.search(r"natural [\d.]+ %", out).group() for out in (graph, module)]
    assert natural[0] == natural[1]
    assert "40 samples" in module
    succeeds("attack", "mine", *data[:2], "--attacks", "pgd")
    assert "Sequential" in succeeds("compare", "mine")
    assert len(jsonl.read(Path("mine/certified/linf-0.1.jsonl"))) == 40

    assert "were given in memory and are not stored: give them again" in fails("certify", "mine")
    assert "these are not the data of the run" in fails("certify", "mine", "--data-from", f"{own}:other_data")
    Path("mine/network.onnx").unlink()
    assert "--model MODULE:FUNCTION" in fails("certify", "mine", *data)


def test_a_report_shows_the_images_of_data_of_ones_own_if_they_are_given(own, succeeds):
    own_members = ("--model", f"{own}:net", "--data-from", f"{own}:data")
    succeeds("train", "digits_ibp", *SHORT, *own_members, "--out", "mine", "--quiet")
    succeeds("certify", "mine", "--data-from", f"{own}:data", "--stages", "fast", "--counterexamples")
    page = Path("report/run-mine.html")
    succeeds("report", "mine")
    assert "own (ctbench report --data-from MODULE:FUNCTION gives them)" in page.read_text()
    succeeds("report", "mine", "--data-from", f"{own}:other_data")
    assert "the data that were given (--data-from) are not those of this run" in page.read_text()
    assert 'alt="test image' not in page.read_text()
    succeeds("report", "mine", "--data-from", f"{own}:data")
    assert 'alt="test image' in page.read_text()
    assert "No test images" not in page.read_text()


def test_a_function_of_data_takes_the_place_of_a_data_set(own, succeeds, fails, run):
    options = ("--data-from", f"{own}:data", "--eps", "0.01", "--stages", "fast")
    out = succeeds("certify", f"{own}:net", *options)
    assert "40 samples" in out
    assert out.splitlines()[-1] == "runs/nets-own_net_of_test.net/certified/linf-0.01.jsonl"
    assert "give --eps and --dataset (or --data-from)" in fails(
        "certify", f"{own}:net", "--dataset", "digits", *options
    )
    assert "this run has digits: leave it out" in fails("certify", run, "--data-from", f"{own}:data")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "nowhere.py:net"), "nowhere.py:net made no network (ImportError: there is no file nowhere.py)"),
        (("--model", "{own}:absent"), "made no network (AttributeError: "),
        (("--data-from", "{own}:net"), "returned a Sequential: it must return a ctbench.datasets.Data"),
    ],
)
def test_what_cannot_be_given_is_explained_in_a_line(own, fails, options, said):
    assert said in fails("train", "digits_ibp", options[0], options[1].format(own=own), "--out", "mine")

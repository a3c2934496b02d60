"""Lists of instances from Python: what is read, decided, written and resumed."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from ctbench import save_onnx, write_robustness
from ctbench.results import jsonl
from ctbench.verify import Instance, decide_instances, read_instances

BOXES = {"proved": ([0.6, 0.0], [1.0, 0.4]), "broken": ([0.4, 0.0], [1.0, 0.6])}  # the first input is the greater one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A list of two instances; the two outputs of the network are its two inputs."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
        layer.bias.zero_()
    save_onnx(layer, tmp_path / "net.onnx", (2,))
    for name, corners in BOXES.items():
        lower, upper = (torch.tensor(corner, dtype=torch.float64) for corner in corners)
        write_robustness(tmp_path / f"{name}.vnnlib", lower, upper, y=0, classes=2)
    path = tmp_path / "list.csv"
    path.write_text("net.onnx,proved.vnnlib,20\nnet.onnx,broken.vnnlib,30\n")
    return path


def test_a_list_is_read_with_the_smaller_of_two_limits(path):
    first, second = read_instances(path, timeout=25.0)
    assert first == Instance("net.onnx", "proved.vnnlib", 20.0, "", path.parent)
    assert (first.name, second.name) == ("net_proved", "net_broken")
    assert (first.timeout, second.timeout) == (20.0, 25.0)
    assert [instance.timeout for instance in read_instances(path)] == [20.0, 30.0]
    assert first.network_path == path.parent / "net.onnx"
    assert first.property_path.is_file()


def test_instances_are_decided_and_written_one_by_one(path, tmp_path):
    folder, seen = tmp_path / "out", list[tuple[int, str]]()
    records = decide_instances(
        read_instances(path), folder, on_record=lambda place, record: seen.append((place, record["verdict"]))
    )
    assert seen == [(0, "unsat"), (1, "sat")]
    assert list(jsonl.read(folder / "results.jsonl")) == records
    proved, broken = records
    assert (proved["bound"] > 0, proved["reason"], proved["failed"]) == (True, "", {})
    assert proved["seconds"] >= proved["solve_seconds"] >= 0
    assert (folder / "net_proved.txt").read_text() == "unsat\n"
    assert (folder / "net_broken.txt").read_text().startswith("sat\n((X_0 0.")
    assert broken["onnx_sha256"] == proved["onnx_sha256"]


def test_a_resumed_list_decides_only_the_missing_instances(path, tmp_path):
    instances, folder = read_instances(path), tmp_path / "out"
    (first,) = decide_instances(instances[:1], folder)
    with pytest.raises(ValueError, match=r"results.jsonl exists already: resume it"):
        decide_instances(instances, folder)
    seen = list[int]()
    records = decide_instances(instances, folder, resume=True, on_record=lambda place, _: seen.append(place))
    assert seen == [1]
    assert records[0] == first
    assert [record["verdict"] for record in records] == ["unsat", "sat"]


def test_an_instance_that_cannot_be_read_is_an_error_and_is_tried_again(path, tmp_path):
    (tmp_path / "proved.vnnlib").rename(tmp_path / "away.vnnlib")
    instances, folder = read_instances(path), tmp_path / "out"
    records = decide_instances(instances, folder)
    assert [record["verdict"] for record in records] == ["error", "sat"]
    assert records[0]["reason"].startswith("FileNotFoundError")
    assert records[0]["vnnlib_sha256"] is None
    (tmp_path / "away.vnnlib").rename(tmp_path / "proved.vnnlib")
    with pytest.raises(ValueError, match="two instances are called net_proved"):
        decide_instances([*instances, instances[0]], folder, resume=True)
    records = decide_instances(instances, folder, resume=True)
    assert [record["verdict"] for record in records] == ["unsat", "sat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no instances"),
        ("net.onnx,proved.vnnlib\n", "line 1: expected onnx, vnnlib, timeout_s"),
        ("net.onnx,proved.vnnlib,0\n", "line 1: .*'0' is not a number of seconds"),
        ("onnx,vnnlib\nnet.onnx,proved.vnnlib\n", "has no column timeout_s"),
        ("onnx,vnnlib,timeout_s,known_verdict\nnet.onnx,proved.vnnlib,1,safe\n", "line 2: known_verdict is 'safe'"),
    ],
)
def test_a_list_in_another_format_is_refused(path, text, message):
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_instances(path, timeout=math.inf)

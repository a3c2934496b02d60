"""Lists of instances from Python: what is read, decided, written and resumed."""

import gzip
import math
import re
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from ctbench import load_onnx, save_onnx, write_robustness
from ctbench.results import jsonl
from ctbench.verify import InputSplit, Instance, PropertyResult, decide_instances, read_instances, verify_property
from ctbench.verify.instances import LAST, _load, decide
from ctbench.vnnlib import parse_vnnlib, read_vnnlib

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


def test_equal_file_names_in_different_folders_get_names_of_their_own(path, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("net.onnx", "proved.vnnlib"):
            (tmp_path / folder / name).write_bytes((tmp_path / name).read_bytes())
    (tmp_path / "b" / "proved.vnnlib").write_bytes((tmp_path / "broken.vnnlib").read_bytes())
    lines = ["net.onnx,broken.vnnlib", "a/net.onnx,a/proved.vnnlib", "b/net.onnx,./b/proved.vnnlib"]
    lines.append(lines[1])
    path.write_text("".join(f"{line},20\n" for line in lines))
    instances, folder = read_instances(path), tmp_path / "out"
    names = ["net_broken", "a_net_a_proved", "b_net_b_proved", "a_net_a_proved_2"]
    assert [instance.name for instance in instances] == names
    assert [record["verdict"] for record in decide_instances(instances[1:3], folder)] == ["unsat", "sat"]
    seen = list[int]()
    records = decide_instances(instances, folder, resume=True, on_record=lambda place, _: seen.append(place))
    assert seen == [0, 3]  # the others are kept
    assert [record["verdict"] for record in records] == ["sat", "unsat", "sat", "unsat"]
    assert all((folder / f"{name}.txt").is_file() for name in names)


def test_packed_networks_are_found_with_and_without_the_suffix(path, tmp_path):
    packed = gzip.compress((tmp_path / "net.onnx").read_bytes())
    (tmp_path / "net.onnx").unlink()
    (tmp_path / "net.onnx.gz").write_bytes(packed)
    path.write_text("net.onnx,proved.vnnlib,20\nnet.onnx.gz,broken.vnnlib,20\n")
    records = decide_instances(read_instances(path), tmp_path / "out")
    assert [(record["name"], record["verdict"]) for record in records] == [
        ("net_proved", "unsat"),
        ("net_broken", "sat"),
    ]


def test_reading_counts_toward_the_time_limit(path, tmp_path, monkeypatch):
    def slow(*args):
        time.sleep(0.3)
        return read_vnnlib(*args)

    monkeypatch.setattr("ctbench.verify.instances.read_vnnlib", slow)
    record, _ = decide(read_instances(path, timeout=0.2)[0], _load)
    assert (record["verdict"], record["stage"]) == ("timeout", "")
    assert re.fullmatch(r"0\.2 seconds were not enough: reading the files took 0\.\d", record["reason"])
    limits = list[float]()
    monkeypatch.setattr("ctbench.verify.instances.verify_property", lambda *_, timeout, **__: limits.append(timeout))
    record, _ = decide(read_instances(path, timeout=9.0)[0], _load)
    assert 0 < limits[0] < 8.7


TIE = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1"))
TIE += "(assert (<= 0.5 X_0 1))(assert (<= 0 X_1 0.5))(assert (> Y_1 Y_0))"


def test_an_unknown_instance_with_time_left_has_a_reason(path, tmp_path):
    """y_1 > y_0 holds nowhere in the box, but y_1 = y_0 at a corner: no bound is positive, and no point is unsafe."""
    (tmp_path / "proved.vnnlib").write_text(TIE)
    (instance, _) = read_instances(path, timeout=60.0)
    record, _ = decide(instance, _load)
    assert record["verdict"] == "unknown"
    assert "the least margin is above" in record["reason"]
    assert "the search over boxes has ended: the margin may be 0" in record["reason"]
    assert record["seconds"] < 50


def test_what_other_stages_leave_open_is_searched_until_the_end(path, monkeypatch):
    stages = []

    def unknown(*args, **options):
        stages.append(options.get("stages"))
        decided = options.get("stages") is LAST
        return PropertyResult(verdict="holds" if decided else "unknown", stage="s", bound=0.5, seconds=0.1, open=None)

    monkeypatch.setattr("ctbench.verify.instances.verify_property", unknown)
    monkeypatch.setattr(InputSplit, "inputs", 1)  # as if the network had many inputs
    record, _ = decide(read_instances(path)[0], _load)
    assert stages == [None, LAST]
    assert (record["verdict"], record["solve_seconds"]) == ("unsat", 0.2)


TWICE = """(vnnlib-version <2.0>)
(declare-network f (declare-input X Real [1,2]) (declare-output Y Real [2]))
(declare-network g {} (declare-input U Real [1,2]) (declare-output V Real [2]))
(assert (and (<= 0 X[0,0] 1) (<= 0 X[0,1] 1) (<= 0 U[0,0] 1) (<= 0 U[0,1] 1)))
(assert (and (<= X[0,0] U[0,0]) (= X[0,1] U[0,1])))
(assert (>= Y[0] (+ V[0] {})))
"""


def test_a_property_of_two_copies_of_a_network(path, tmp_path):
    """The first output is the first input, so it is monotone in it."""
    for offset, verdict in (("0.125", "unsat"), ("-0.125", "sat")):
        (tmp_path / "proved.vnnlib").write_text(TWICE.format("(equal-to f)", offset))
        record, text = decide(read_instances(path)[0], _load)
        assert record["verdict"] == verdict, record["reason"]
        assert ("(X_3 " in text) == (verdict == "sat")
    (tmp_path / "proved.vnnlib").write_text(TWICE.format("", "0.125"))
    record, _ = decide(read_instances(path)[0], _load)
    assert record["verdict"] == "error"
    assert "declares the networks f, g, and the list gives one" in record["reason"]


def test_two_networks_from_python(tmp_path):
    double, same = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        for layer, factor in ((double, 2.0), (same, 1.0)):
            layer.weight.copy_(factor * torch.eye(2))
            layer.bias.zero_()
    prop = parse_vnnlib(TWICE.format("", "1.125"))  # 2 x0 >= u0 + 1.125 with x0 <= u0 <= 1
    assert verify_property({"f": double, "g": same}, prop).verdict == "holds"
    prop = parse_vnnlib(TWICE.format("", "0.875"))
    assert verify_property({"f": double, "g": same}, prop).verdict == "violated"
    with pytest.raises(ValueError, match=r"declares the networks f, g: give these, not \['f'\]"):
        verify_property({"f": double}, prop)
    with pytest.raises(ValueError, match="declares the networks f, g: give each by its name"):
        verify_property(double, prop)
    save_onnx(nn.Linear(3, 2), tmp_path / "three.onnx", (3,))
    three = load_onnx(tmp_path / "three.onnx")
    with pytest.raises(ValueError, match="declares 2 inputs of g, but its network takes inputs of shape"):
        verify_property({"f": double, "g": three}, prop)

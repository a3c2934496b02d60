"""`ctbench vnncomp`: verdicts and their files, also if an instance or a run fails."""

import gzip
import re
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from ctbench import save_onnx, write_robustness
from ctbench.cli import main
from ctbench.domains import AlphaCrown, Crown, CrownIBP, Interval
from ctbench.results import jsonl, locks
from ctbench.verify import cascade, instances, verify_property

PROVED = ("proved", [0.6, 0.0], [1.0, 0.4])  # that the first of two numbers is the greater one
BROKEN = ("broken", [0.4, 0.0], [1.0, 0.6])
TIED = ("tied", [0.5, 0.0], [1.0, 0.5])  # that the second is not the greater one: they are equal at a corner


@pytest.fixture(autouse=True)
def _beside_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with "net.onnx", whose two outputs are its two inputs, and three properties."""
    monkeypatch.chdir(tmp_path)
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
        layer.bias.zero_()
    save_onnx(layer, "net.onnx", (2,))
    for name, lower, upper in (PROVED, BROKEN, TIED):
        box = (torch.tensor(corner, dtype=torch.float64) for corner in (lower, upper))
        write_robustness(f"{name}.vnnlib", *box, y=0, classes=2)
    strict = Path("tied.vnnlib").read_text().replace("(>= Y_1 Y_0)", "(> Y_1 Y_0)")
    Path("tied.vnnlib").write_text(strict)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command on a list of these lines; returns its status and its output on both streams."""

    def run(lines: str, *arguments: object) -> tuple[int, str, str]:
        Path("list.csv").write_text(lines)
        try:
            status = main(["vnncomp", "list.csv", "--quiet", *map(str, arguments)])
        except SystemExit as error:
            status = error.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def results(folder: str = "runs/vnncomp/list") -> dict[str, dict[str, object]]:
    """The records by the names of their properties."""
    records = jsonl.read(Path(folder, "results.jsonl"))
    return {Path(record["vnnlib"]).stem: record for record in records}


def rows(table: str) -> dict[str, list[str]]:
    """The cells of a printed table, by their first one."""
    cells = ([cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if "│" in line)
    return {first: rest for first, *rest in cells}


PLAIN = "net.onnx,proved.vnnlib,20\nnet.onnx,broken.vnnlib,20\nnet.onnx,tied.vnnlib,20\n"


# Verdicts and files


def test_a_list_is_decided_and_counted(call):
    status, out, _ = call(PLAIN)
    assert status == 0
    folder = Path("runs/vnncomp/list")
    assert sorted(path.name for path in folder.iterdir()) == [
        "net_broken.txt",
        "net_proved.txt",
        "net_tied.txt",
        "results.jsonl",
        "results.lock",
    ]
    assert (folder / "net_proved.txt").read_text() == "unsat\n"
    assert (folder / "net_tied.txt").read_text() == "unknown\n"
    records = results()
    assert {name: (record["verdict"], record["stage"]) for name, record in records.items()} == {
        "proved": ("unsat", "interval"),
        "broken": ("sat", "pgd"),
        "tied": ("unknown", list(records.values())[2]["stage"]),
    }
    assert records["proved"]["bound"] == pytest.approx(0.2)
    for record in records.values():
        assert 0 < record["solve_seconds"] < record["seconds"]
        assert (record["timeout_s"], record["known_verdict"]) == (20, "")
        assert record["reason"].startswith(cascade.NOT_DECIDED if record["verdict"] == "unknown" else "")
        assert bool(record["reason"]) == (record["verdict"] == "unknown")
    counted = rows(out)
    assert counted["interval"][:5] == ["1", "0", "0", "0", "0"]
    assert counted["pgd"][:5] == ["0", "1", "0", "0", "0"]
    assert counted["all"][:5] == ["1", "1", "1", "0", "0"]
    assert out.splitlines()[-1] == str(folder / "results.jsonl")


def test_a_counterexample_is_written_as_in_the_competition(call):
    call("net.onnx,broken.vnnlib,20\n", "--out", "out")
    text = Path("out/net_broken.txt").read_text()
    number = r"(-?\d+\.\d+)"
    match = re.fullmatch(rf"sat\n\(\(X_0 {number}\)\n \(X_1 {number}\)\n \(Y_0 {number}\)\n \(Y_1 {number}\)\)\n", text)
    assert match is not None, text
    x, y = [float(n) for n in match.groups()[:2]], [float(n) for n in match.groups()[2:]]
    assert x == y
    assert 0.4 <= x[0] < x[1] <= 0.6


def test_an_edge_is_a_counterexample_and_a_bound_of_less_is_kept(call):
    """0.3 in float64 is below 0.3, but its shortest decimal is 0.3."""
    declared = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1"))
    box = "(assert (>= X_0 0))(assert (< X_0 0.3))(assert (>= X_1 0))(assert (<= X_1 1))"
    Path("edge.vnnlib").write_text(f"{declared}{box}(assert (<= Y_0 0))")
    Path("below.vnnlib").write_text(f"{declared}{box}(assert (>= Y_0 0.2999999999))")
    call("net.onnx,edge.vnnlib,20\nnet.onnx,below.vnnlib,20\n", "--out", "out")
    assert [record["verdict"] for record in results("out").values()] == ["sat", "sat"]
    edge, below = (
        Fraction(re.search(r"X_0 ([-0-9.]+)", Path(f"out/net_{name}.txt").read_text())[1]) for name in ("edge", "below")
    )
    assert edge == 0
    assert Fraction("0.2999") < below < Fraction("0.3")


def test_a_header_names_the_columns(call):
    status, out, _ = call(
        "onnx,vnnlib,source,timeout_s,known_verdict\n"
        "net.onnx,proved.vnnlib,mine,20,unsat\n"
        "net.onnx,broken.vnnlib,mine,20,sat\n"
        "\n"
        "net.onnx,tied.vnnlib,mine,20,unknown\n"
    )
    assert status == 0
    assert "2 of 2 known verdicts found, 0 contradicted" in out
    assert [record["known_verdict"] for record in results().values()] == ["unsat", "sat", "unknown"]


def test_a_verdict_that_contradicts_a_known_one_is_an_error(call):
    status, out, err = call(
        "onnx,vnnlib,timeout_s,known_verdict\nnet.onnx,proved.vnnlib,20,sat\nnet.onnx,broken.vnnlib,20,sat\n"
        "net.onnx,tied.vnnlib,20,unsat\n"
    )
    assert status == 2
    assert "1 of 3 known verdicts found, 1 contradicted" in out
    assert err == "ctbench: error: verdicts contradict the known verdicts: net_proved is sat but was found unsat\n"


def test_a_property_is_found_packed_or_not(call):
    Path("proved.vnnlib.gz").write_bytes(gzip.compress(Path("proved.vnnlib").read_bytes()))
    Path("proved.vnnlib").unlink()
    call("net.onnx,proved.vnnlib,20\nnet.onnx,broken.vnnlib.gz,20\n")
    assert [record["verdict"] for record in results().values()] == ["unsat", "sat"]


def test_paths_are_relative_to_the_list(capsys, tmp_path, monkeypatch):
    Path("list.csv").write_text(PLAIN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["vnncomp", "../list.csv", "--quiet"]) == 0
    assert [record["verdict"] for record in results().values()] == ["unsat", "sat", "unknown"]


def test_a_timeout_caps_those_of_the_list(call):
    call("net.onnx,proved.vnnlib,20\nnet.onnx,broken.vnnlib,1e-9\n", "--timeout", 7)
    records = results()
    assert [record["timeout_s"] for record in records.values()] == [7, 1e-9]
    assert records["broken"]["verdict"] == "timeout"
    assert records["broken"]["reason"].startswith("1e-09 seconds were not enough")
    assert Path("runs/vnncomp/list/net_broken.txt").read_text() == "timeout\n"


def test_some_instances_are_chosen(call):
    call(PLAIN, "--instances", "1:2")
    assert list(results()) == ["broken"]
    call(PLAIN, "--instances", ":2", "--resume")
    assert list(results()) == ["broken", "proved"]
    status, _, err = call(PLAIN, "--instances", "3:", "--out", "other")
    assert status == 2
    assert "list.csv has 3 instances, but the chosen range is empty" in err


def test_one_network_is_loaded_once(call, monkeypatch):
    loaded = []

    def load(path: Path, **names: object) -> nn.Module:
        loaded.append(path.name)
        return instances_load(path, **names)

    instances_load = instances.load_onnx
    monkeypatch.setattr(instances, "load_onnx", load)
    Path("copy.onnx").write_bytes(Path("net.onnx").read_bytes())
    call(f"{PLAIN}copy.onnx,proved.vnnlib,20\ncopy.onnx,broken.vnnlib,20\n")
    assert loaded == ["net.onnx", "copy.onnx"]


def test_progress_is_told_on_standard_error(capsys):
    Path("list.csv").write_text(PLAIN)
    main(["vnncomp", "list.csv"])
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [
        ["1/3", "net_proved:", "unsat"],
        ["2/3", "net_broken:", "sat"],
    ]


# Replay


def test_a_counterexample_must_be_one_for_onnx_runtime(call, monkeypatch):
    def sound(path: Path, **names: object) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.tensor([[1.0, 0.0]])

    monkeypatch.setattr(instances, "replay", sound)
    proved, *others = PLAIN.splitlines()
    call("\n".join([proved, *(line.replace(",20", ",2") for line in others)]) + "\n")
    first, *others = [record["verdict"] for record in results().values()]
    assert first == "unsat"
    assert set(others) <= {"unknown", "timeout"}  # the search goes on for another counterexample


def test_without_onnx_runtime_it_is_said_that_nothing_is_replayed(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, _, err = call(PLAIN)
    assert status == 0
    assert err == "no onnxruntime: counterexamples are not replayed there (pip install onnxruntime)\n"
    assert results()["broken"]["verdict"] == "sat"


# What breaks


def test_instances_that_break_are_errors_and_the_others_are_decided(call):
    Path("torn.onnx").write_bytes(Path("net.onnx").read_bytes()[:50])
    unknown = helper.make_node("Det", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    opset = [helper.make_opsetid("", 17)]
    graph = helper.make_graph([unknown], "unknown", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), "unknown.onnx")
    Path("syntax.vnnlib").write_text("(assert")
    three = torch.zeros(3, dtype=torch.float64)
    write_robustness("three.vnnlib", three, three + 1, y=0, classes=2)
    expected = {
        ("torn.onnx", "proved.vnnlib"): "it cannot be decoded|breaks the rules of ONNX",
        ("none.onnx", "proved.vnnlib"): "there is no such file",
        ("unknown.onnx", "proved.vnnlib"): r"Det.*not supported|not supported.*Det",
        ("net.onnx", "syntax.vnnlib"): r"syntax\.vnnlib, line 1: this '\(' has no '\)'",
        ("net.onnx", "none.vnnlib"): r"there is no file .*none\.vnnlib",
        ("net.onnx", "three.vnnlib"): r"the property has 3 inputs, but an input of the network has shape \(2,\)",
    }
    status, out, said = call("".join(f"{network},{prop},20\n" for network, prop in expected) + PLAIN)
    assert status == 2
    records = {(r["onnx"], r["vnnlib"]): r for r in jsonl.read(Path("runs/vnncomp/list/results.jsonl"))}
    for instance, reason in expected.items():
        assert records[instance]["verdict"] == "error"
        assert re.search(reason, records[instance]["reason"]), records[instance]["reason"]
    assert [records["net.onnx", f"{name}.vnnlib"]["verdict"] for name in ("proved", "broken", "tied")] == [
        "unsat",
        "sat",
        "unknown",
    ]
    assert Path("runs/vnncomp/list/none_proved.txt").read_text() == "error\n"
    assert rows(out)["all"][:5] == ["1", "1", "1", "0", "6"]
    assert "6 of 9 instances could not be read or decided, e.g. torn_proved: OnnxError: " in said


def test_a_stage_that_failed_is_a_column_a_table_and_with_strict_a_status(call, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck")

    for domain in (Interval, Crown, CrownIBP, AlphaCrown):
        monkeypatch.setattr(domain, "lower_bounds", broken)
    monkeypatch.setattr("ctbench.verify.input_split.InputSplit.__call__", broken)
    monkeypatch.setattr("ctbench.verify.branch_and_bound.BranchAndBound.__call__", broken)
    status, out, err = call(PLAIN)
    assert status == 0
    records = results()
    assert [records[name]["verdict"] for name in ("proved", "broken", "tied")] == ["unknown", "sat", "unknown"]
    assert records["proved"]["failed"]["crown"] == "RuntimeError: out of luck"
    assert records["broken"]["failed"]["interval"] == "RuntimeError: out of luck"
    assert rows(out)["all"][:6] == ["0", "1", "0", "0", "0", "2"]
    assert "unknown (error)" in out
    assert rows(err)["interval"] == ["3", "RuntimeError: out of luck"]
    assert rows(err)["crown"] == ["2", "RuntimeError: out of luck"]
    status, _, err = call(PLAIN, "--resume", "--strict")
    assert status == 2
    assert err.splitlines()[-1].startswith("ctbench: error: --strict, and stages failed (interval, crown-ibp, ")
    assert rows(err)["interval"] == ["3", "RuntimeError: out of luck"]


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("proved", {"bound": -5}, "line 1: .*its bound is -5, but unsat needs a bound > 0"),
        ("proved", {"verdict": "sat", "bound": None}, "line 1: the verdict of net_proved is sat, but .*net_proved.txt"),
        (
            "broken",
            {"verdict": "unsat", "bound": 1},
            "line 2: the verdict of net_broken is unsat, but .* hold only the",
        ),
        (
            "tied",
            {"verdict": "proved"},
            "line 3: .*its verdict is 'proved', expected unsat, sat, unknown, timeout, err",
        ),
        ("tied", {"name": "net_proved"}, "line 3: net_proved already has a result, in another line"),
    ],
)
def test_results_that_were_edited_are_refused(call, name, change, told):
    call(PLAIN)
    path = Path("runs/vnncomp/list/results.jsonl")
    jsonl.rewrite(path, [one | change if one["name"] == f"net_{name}" else one for one in jsonl.read(path)])
    before = path.read_bytes()
    status, _, err = call(PLAIN, "--resume")
    assert status == 2
    assert re.search(rf"results\.jsonl, {told}", err), err
    assert path.read_bytes() == before


def test_a_counterexample_that_is_gone_is_missed(call):
    call(PLAIN)
    Path("runs/vnncomp/list/net_broken.txt").write_text("sat\n")
    assert "net_broken.txt does not hold the verdict, and a counterexample" in call(PLAIN, "--resume")[2]
    Path("runs/vnncomp/list/net_broken.txt").unlink()
    assert "net_broken.txt does not hold the verdict, and a counterexample" in call(PLAIN, "--resume")[2]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "list.csv has no instances"),
        ("onnx,vnnlib,timeout_s\n", "list.csv has no instances"),
        ("onnx,vnnlib,limit\nnet.onnx,proved.vnnlib,3\n", "list.csv has no column timeout_s"),
        (
            "net.onnx,proved.vnnlib,3\nnet.onnx,proved.vnnlib\n",
            "list.csv, line 2: expected onnx, vnnlib, timeout_s (there are 2 values; a first line may name",
        ),
        ("net.onnx,proved.vnnlib,3,unsat\n", "line 1: expected onnx, vnnlib, timeout_s (there are 4 values; a first"),
        ("net.onnx,proved.vnnlib,soon\n", "list.csv, line 1: expected onnx, vnnlib, timeout_s ('soon' is not a number"),
        ("net.onnx,proved.vnnlib,0\n", "'0' is not a number of seconds > 0"),
        (
            "onnx,vnnlib,timeout_s,known_verdict\nnet.onnx,proved.vnnlib,3,holds\n",
            "line 2: known_verdict is 'holds', expected sat, unsat, unknown or nothing",
        ),
    ],
)
def test_a_list_that_is_none_is_refused_in_a_line(call, lines, said):
    status, out, err = call(lines)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--timeout", "nan"), "'nan' is not a number of seconds > 0"),
        (("--timeout", "-3"), "'-3' is not a number of seconds > 0"),
        (("--instances", "3"), "'3' is not a range: write A:B"),
    ],
)
def test_wrong_arguments_are_explained_in_a_line(call, arguments, said):
    status, _, err = call(PLAIN, *arguments)
    assert status == 2
    assert said in err


def test_a_list_that_is_not_there_is_named(capsys):
    assert main(["vnncomp", "nowhere.csv"]) == 2
    assert "nowhere.csv" in capsys.readouterr().err


# Interruption


def test_what_was_decided_before_an_interruption_is_kept(call, monkeypatch):
    asked = []

    def interrupted(*arguments: object, **settings: object) -> object:
        asked.append(arguments)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return verify_property(*arguments, **settings)

    monkeypatch.setattr(instances, "verify_property", interrupted)
    status, _, err = call(PLAIN)
    assert status == 130
    assert "--resume continues from there" in err
    records = Path("runs/vnncomp/list/results.jsonl")
    first = records.read_text()
    assert list(results()) == ["proved"]
    assert "results.jsonl exists already: resume it (--resume), or choose another place (--out)" in call(PLAIN)[2]
    records.write_text(first + '{"name": "net_br')  # torn by a kill
    status, out, _ = call(PLAIN, "--resume")
    assert status == 0
    assert len(asked) == 4
    assert records.read_text().startswith(first)
    assert [record["verdict"] for record in results().values()] == ["unsat", "sat", "unknown"]
    assert rows(out)["all"][:5] == ["1", "1", "1", "0", "0"]
    call(PLAIN, "--resume")
    assert len(asked) == 4


def test_two_commands_at_once_do_not_write_the_same_results(call):
    records = Path("runs/vnncomp/list/results.jsonl")
    with locks.alone(records.with_suffix(".lock"), records):
        status, _, err = call(PLAIN)
    assert (status, records.exists()) == (2, False)
    assert "another process writes runs/vnncomp/list/results.jsonl: wait for it" in err


@pytest.mark.parametrize(
    ("change", "arguments", "told"),
    [
        (lambda: Path("net.onnx").write_bytes(b""), (), "onnx_sha256 was"),
        (lambda: Path("proved.vnnlib").write_text("(assert true)"), (), "vnnlib_sha256 was"),
        (lambda: Path("proved.vnnlib").unlink(), (), "now None"),
        (lambda: None, ("--timeout", 5), "timeout_s was 20.0, now 5.0"),
    ],
    ids=["network", "property", "no property", "timeout"],
)
def test_results_of_other_files_are_not_mixed_up(call, change, arguments, told):
    call(PLAIN, "--instances", ":1")
    before = Path("runs/vnncomp/list/results.jsonl").read_bytes()
    change()
    status, out, err = call(PLAIN, "--resume", *arguments)
    assert (status, out) == (2, "")
    assert re.search(rf"has a result of another net_proved \(.*{told}.*\): choose another place", err), err
    assert Path("runs/vnncomp/list/results.jsonl").read_bytes() == before


def test_what_failed_is_tried_again(call):
    whole = Path("net.onnx").read_bytes()
    Path("net.onnx").unlink()
    call(PLAIN)
    assert {record["verdict"] for record in results().values()} == {"error"}
    Path("net.onnx").write_bytes(whole)
    call(PLAIN, "--resume")
    assert [record["verdict"] for record in jsonl.read(Path("runs/vnncomp/list/results.jsonl"))] == [
        "unsat",
        "sat",
        "unknown",
    ]

"""`ctbench attack`: its output and its files, for every kind of subject."""

import re
import sys
from pathlib import Path

import pytest
import torch
from tests.cli.printed import shares

from ctbench import load_run, save_onnx
from ctbench.analyses.fairness import discrepancy
from ctbench.attacks import adversarial_accuracy
from ctbench.cli import main
from ctbench.results import jsonl, locks
from ctbench.results.checking import sealed

FAST = ("--attacks", "pgd,apgd-t", "--samples", 40)


def test_attack_prints_and_writes_what_python_finds(succeeds, run):
    out = succeeds("attack", run, "--attacks", "pgd,apgd-t", "--samples", "100:160")
    loaded = load_run(run)
    x, y = loaded.recipe.dataset.load().test[100:160]
    evaluation = adversarial_accuracy(loaded.model, x, y, eps=0.05, attacks=("pgd", "apgd-t"))
    assert 0 < evaluation.adversarial_accuracy < evaluation.natural_accuracy < 1

    rows = {line.split()[1]: line.split("│")[2:-1] for line in out.splitlines() if "│" in line}
    assert rows.keys() == {"pgd", "apgd-t"}
    for done in evaluation.rounds:
        accuracy = f"{100 * evaluation.accuracies[done.attack]:.2f}"
        assert [cell.strip() for cell in rows[done.attack][:3]] == [str(done.tried), str(len(done.falsified)), accuracy]
    assert "60 samples, linf eps 0.05: " in out
    assert shares(out) == pytest.approx(
        {"natural": 100 * evaluation.natural_accuracy, "adversarial": 100 * evaluation.adversarial_accuracy}, abs=0.01
    )
    wrong = y != torch.tensor(evaluation.predictions)
    falsified = wrong | torch.tensor([by is not None for by in evaluation.falsified_by])
    unfair = f"natural {discrepancy(wrong, y):.3f}, adversarial {discrepancy(falsified, y):.3f}"
    assert f"accuracy discrepancy (0: all classes alike): {unfair}\n" in out
    assert discrepancy(wrong, y) != discrepancy(falsified, y)

    records = run / "attacked" / "linf-0.05-pgd+apgd-t.jsonl"
    assert out.splitlines()[-1] == str(records)
    assert jsonl.read(records) == [
        {"index": 100 + place, "label": int(y[place]), "prediction": evaluation.predictions[place], "attack": attack}
        for place, attack in enumerate(evaluation.falsified_by)
    ]


def test_attack_overwrites_nothing(succeeds, fails, run):
    succeeds("attack", run, *FAST)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert "linf-0.05-pgd+apgd-t.jsonl exists already: choose another place with --out" in fails("attack", run, *FAST)
    assert "recipe.json exists already" in fails("attack", run, *FAST, "--out", run / "recipe.json")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert succeeds("attack", run, *FAST, "--out", "new/other.jsonl").splitlines()[-1] == "new/other.jsonl"
    assert (
        succeeds("attack", run, *FAST, "--norm", "l2", "--eps", 0.3)
        .splitlines()[-1]
        .endswith("l2-0.3-pgd+apgd-t.jsonl")
    )


def test_the_strength_of_attacks_is_an_option_and_part_of_the_name_and_the_settings(succeeds, fails, run):
    weak = ("--attacks", "pgd", "--samples", 20, "--attack-steps", 1, "--attack-restarts", 2)
    records = run / "attacked" / "linf-0.05-pgd-1-steps-2-restarts.jsonl"
    assert succeeds("attack", run, *weak).splitlines()[-1] == str(records)
    settings = jsonl.read_json(records.with_suffix(".json"))
    assert (settings["attacks"], settings["steps"], settings["restarts"]) == (["pgd"], 1, 2)
    fixed = fails("attack", run, "--attacks", "line-search", "--samples", 2, "--attack-steps", 3)
    assert "steps and restarts are for pgd, apgd-ce, apgd-dlr, apgd-t, not for line-search" in fixed


def test_attack_takes_weights_onnx_files_and_functions(succeeds, run, monkeypatch):
    from_run = shares(succeeds("attack", run, *FAST))
    data = ("--dataset", "digits", "--eps", 0.05)
    out = succeeds("attack", run / "weights.safetensors", *data, *FAST)
    assert shares(out) == from_run
    assert out.splitlines()[-1] == "runs/run-weights/attacked/linf-0.05-pgd+apgd-t.jsonl"

    Path("my_attacked.py").write_text(
        f"import ctbench\n\ndef net():\n    return ctbench.load_run({str(run)!r}).model\n"
    )
    assert shares(succeeds("attack", "my_attacked:net", *data, *FAST)) == from_run

    save_onnx(load_run(run).model, "net.onnx", (1, 8, 8))
    assert shares(succeeds("attack", "net.onnx", *data, *FAST)) == from_run
    # a runtime that always finds all outputs equal sees no counterexample
    monkeypatch.setattr("ctbench.cli.subjects._session", lambda path: lambda x: torch.zeros(1, 10))
    stubborn = shares(succeeds("attack", "net.onnx", *data, *FAST, "--out", "b.jsonl"))
    assert stubborn["adversarial"] == stubborn["natural"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--attacks", "pgd,fgsm"], "attacks are pgd, fgsm: name some of pgd, apgd-ce, "),
        (["--attacks", ""], "name some of pgd"),
        (["--attacks", "line-search"], "a line search needs segments"),
        (["--attacks", "autoattack", "--norm", "l1"], "norm is 'l1': AutoAttack is for linf and l2"),
        (["--samples", "350:360"], "there are 359 test images: samples 350:360 are not among them"),
        (["--eps", "-1"], "eps is -1.0: a radius must be"),
    ],
)
def test_attacks_that_cannot_be_are_explained_in_a_line(fails, run, options, said):
    assert said in fails("attack", run, *options)
    assert not list(run.glob("attacked/*.json*"))


def test_a_place_that_cannot_be_is_found_before_the_attack(fails, run, monkeypatch):
    monkeypatch.setattr("ctbench.attacks.PGD.__call__", lambda *_: pytest.fail("too late"))
    Path("file").touch()
    assert "file: it is a file, but a folder is expected" in fails("attack", run, "--out", "file/a/b.jsonl")


def test_a_missing_package_is_explained_in_a_line(fails, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    assert "pip install 'ctbench[attacks]'" in fails("attack", run, "--attacks", "pgd,autoattack")


def test_an_interruption_writes_nothing(capsys, run, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ctbench.attacks.PGD.__call__", interrupted)
    assert main(["attack", str(run), "--samples", "10"]) == 130
    assert capsys.readouterr().err == (
        "ctbench: interrupted; records are only written when all attacks have finished\n"
    )
    assert not list(run.glob("attacked/*.json*"))


def test_a_terminal_shows_how_many_stand(capsys, run, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert main(["attack", str(run), "--samples", "10", "--attacks", "pgd"]) == 0
    assert re.search(r"pgd: \d+ of 10 samples stand", capsys.readouterr().err)
    assert main(["attack", str(run), "--samples", "10", "--attacks", "pgd", "--out", "b.jsonl", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_what_is_certified_is_not_attacked(succeeds, fails, run):
    everything = shares(succeeds("attack", run, *FAST))
    proof = run / "certified" / "linf-0.05.jsonl"
    assert "there is no file" in fails("attack", run, *FAST, "--certified", proof, "--out", "b.jsonl")
    succeeds("certify", run, "--stages", "fast", "--samples", 60)
    certified = [r["index"] for r in jsonl.read(proof) if r["verdict"] == "certified" and 20 <= r["index"] < 60]
    out = succeeds("attack", run, *FAST[:2], "--samples", "20:60", "--certified", proof, "--out", "b.jsonl")
    assert f"{len(certified)} certified samples were not attacked" in out
    right = sum(record["label"] == record["prediction"] for record in jsonl.read(Path("b.jsonl")))
    rows = {line.split()[1]: line.split("│")[2:-1] for line in out.splitlines() if "│" in line}
    assert 0 < int(rows["pgd"][0]) == right - len(certified) < right
    again = shares(succeeds("attack", run, *FAST, "--certified", proof, "--out", "c.jsonl"))
    assert again == everything

    message = fails("attack", run, *FAST, "--eps", 0.06, "--certified", proof, "--out", "d.jsonl")
    assert "proves nothing about this attack (threat differ): certify this network" in message
    settings, made = proof.with_suffix(".json"), jsonl.read_json(proof.with_suffix(".json"))
    others = {"network_digest": "abc", "threat": "Linf(eps=0.05, clip=(0.4, 0.6))", "rounding": "nearest"}
    for name, value in others.items():
        jsonl.write_json(settings, sealed({**made, name: value}))
        message = fails("attack", run, *FAST, "--certified", proof, "--out", "d.jsonl")
        assert f"proves nothing about this attack ({name} differ)" in message
    jsonl.write_json(settings, made)
    records = jsonl.read(proof)
    jsonl.rewrite(proof, [{**records[0], "index": 1}])
    message = fails("attack", run, *FAST, "--certified", proof, "--out", "d.jsonl")
    assert "checksum" in message


def test_two_attacks_at_once_do_not_write_the_same_records(succeeds, fails, run):
    records = run / "attacked" / "linf-0.05-pgd+apgd-t.jsonl"
    with locks.alone(records.with_suffix(".lock"), records):
        assert "another process writes" in fails("attack", run, *FAST[:2], "--samples", 5)
    succeeds("attack", run, *FAST[:2], "--samples", 5)

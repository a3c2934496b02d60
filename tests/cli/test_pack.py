"""`ctbench pack` and `ctbench check`: a line for each claim, and the exit status."""

from pathlib import Path

from ctbench.cli import main
from ctbench.results import RunFolder, jsonl
from ctbench.results.checking import sealed, unsealed


def test_pack_and_check(succeeds, fails, capsys, run):
    succeeds("certify", run, "--samples", 20, "--counterexamples", "--eps", "0.02,0.05")
    assert succeeds("pack", run, "-o", "packs/mine.zip") == "packs/mine.zip\n"
    for subject in ("packs/mine.zip", run):
        out = succeeds("check", subject, "--samples", 5, "--seed", 3)
        lines = out.splitlines()
        assert all(line.startswith("ok ") for line in lines[:-1])
        assert lines[-1] == f"{len(lines) - 1} of {len(lines) - 1} claims hold; --seed 3 makes the same random choice"
    files = RunFolder(run).certification("linf-0.05")
    records = jsonl.read(files.records)
    records[2]["seconds"] += 1.0
    records[2]["stage_seconds"] = {}
    jsonl.rewrite(files.records, [sealed(unsealed(record)) for record in records[:-1]])
    capsys.readouterr()
    assert main(["check", str(run), "--samples", "0"]) == 1
    out = capsys.readouterr().out
    assert "FAILED  certified/linf-0.05.jsonl: it lacks 1 of 20 samples" in out
    assert out.count("FAILED") == 1
    assert "there is no file or folder nowhere.zip" in fails("check", "nowhere.zip")
    assert "choose one that ends in .zip" in fails("pack", run, "-o", "mine.tar")
    assert not Path("mine.tar").exists()


def test_a_run_without_records_claims_nothing(succeeds, run):
    assert "the pack proves nothing" in succeeds("pack", run, "-o", "mine.zip")
    assert "records: there are none" in succeeds("check", "mine.zip")

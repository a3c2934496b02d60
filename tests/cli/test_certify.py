"""`ctbench certify` and `merge`: verdicts, output and files, even after interruptions."""

import json
from pathlib import Path

import pytest
import torch
from tests.cli.printed import shares

from ctbench.analyses.fairness import discrepancy
from ctbench.cli import main
from ctbench.domains import AlphaCrown, Crown, CrownIBP, Interval
from ctbench.networks import CNN3
from ctbench.results import CertificationFiles, RunFolder, Verdict, jsonl
from ctbench.training.blueprint import Blueprint
from ctbench.training.checkpoints import save_network


def test_certify_proves_the_test_images_of_a_run(succeeds, run):
    out = succeeds("certify", run, "--samples", 60)
    files = RunFolder(run).certification("linf-0.05")
    certification = files.read()
    assert [record.index for record in certification] == list(range(60))
    said = shares(out)
    assert said["certified"] == pytest.approx(100 * certification.certified_accuracy, abs=0.01)
    assert said["adversarial"] == pytest.approx(100 * certification.adversarial_accuracy, abs=0.01)
    assert said["natural"] == pytest.approx(100 * certification.natural_accuracy, abs=0.01)
    assert 0 < said["certified"] <= said["adversarial"] <= said["natural"]
    assert out.splitlines()[-1] == str(files.records)
    assert "60 samples, linf eps 0.05" in out
    labels = torch.tensor([record.label for record in certification])
    kinds = {
        "natural": [record.prediction != record.label for record in certification],
        "adversarial": [record.verdict in ("misclassified", "falsified") for record in certification],
        "certified": [record.verdict != "certified" for record in certification],
    }
    unfair = (f"{name} {discrepancy(torch.tensor(wrong), labels):.3f}" for name, wrong in kinds.items())
    assert f"accuracy discrepancy (0: all classes alike): {', '.join(unfair)}\n" in out


def test_certify_counts_by_stage(succeeds, run):
    out = succeeds("certify", run, "--samples", 60)
    certification = RunFolder(run).certification("linf-0.05").read()
    rows = {line.split()[1]: line.split("│")[2:-1] for line in out.splitlines() if "│" in line}
    seconds = {stage: float(row.pop()) for stage, row in rows.items()}
    rows = {stage: [int(count) for count in row] for stage, row in rows.items()}
    assert rows.pop("all") == list(certification.outcomes.values())
    assert seconds.pop("all") == pytest.approx(certification.seconds, abs=0.06)
    assert seconds == pytest.approx(certification.seconds_by_stage, abs=0.06)
    assert rows.keys() == certification.stages.keys()
    assert [sum(column) for column in zip(*rows.values(), strict=True)] == list(certification.outcomes.values())


def test_certify_takes_the_radius_of_the_recipe_or_another(succeeds, run):
    usual = shares(succeeds("certify", run, "--samples", 60))
    small = shares(succeeds("certify", run, "--samples", 60, "--eps", 0.001))
    assert small["natural"] == usual["natural"]
    assert small["certified"] > usual["certified"]
    names = [files.records.name for files in RunFolder(run).certifications()]
    assert names == ["linf-0.001.jsonl", "linf-0.05.jsonl"]


def test_records_and_compare_mark_weights_that_were_selected_on_test_data(succeeds, run):
    short = ("--samples", 2, "--stages", "interval")
    succeeds("certify", run, *short)
    usual = RunFolder(run).certification("linf-0.05")
    assert "selected_on" not in usual.read_settings()
    usual.records.unlink()
    usual.settings.unlink()
    recipe = RunFolder(run).recipe
    recipe.write_text(json.dumps({**json.loads(recipe.read_text()), "select": "test"}))
    succeeds("certify", run, *short)
    assert usual.read_settings()["selected_on"] == "test"
    succeeds("attack", run, "--samples", 2, "--attacks", "pgd")
    assert jsonl.read_json(run / "attacked" / "linf-0.05-pgd.json")["selected_on"] == "test"
    assert "selected on test data" in succeeds("compare", run)


def test_the_evaluation_of_ctbench_has_its_attack_and_its_time(succeeds, run):
    succeeds("certify", run, "--samples", 12, "--stages", "ctbench")
    files = RunFolder(run).certification("linf-0.05")
    settings = files.read_settings()
    assert settings["timeout"] == 1000
    text = str(settings["stages"])
    assert "PGD(steps=200, restarts=1, step_size=0.2" in text
    assert "rounds=5" in text
    assert Verdict.UNKNOWN not in {record.verdict for record in files.read()}
    succeeds("certify", run, "--samples", 12, "--out", "complete.jsonl")
    complete = CertificationFiles(Path("complete.jsonl"))
    assert complete.read_settings()["timeout"] == 60
    assert [record.verdict for record in complete.read()] == [record.verdict for record in files.read()]


def test_the_strength_of_the_attack_is_an_option(succeeds, fails, run):
    succeeds("certify", run, "--samples", 2, "--stages", "fast", "--attack-steps", 7, "--attack-restarts", 2)
    text = str(RunFolder(run).certification("linf-0.05").read_settings()["stages"])
    assert "PGD(steps=7, restarts=1, step_size=0.25" in text
    assert "rounds=2" in text
    message = fails("certify", run, "--stages", "interval,crown", "--attack-steps", 7, "--out", "other.jsonl")
    assert "none of interval, crown is an attack: add falsify" in message


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

    for domain in (Interval, Crown, CrownIBP, AlphaCrown):
        monkeypatch.setattr(domain, "lower_bounds", broken)
    assert main(["certify", str(run), "--samples", "9", "--stages", "fast"]) == 0
    said = capsys.readouterr()
    certification = RunFolder(run).certification("linf-0.05").read()
    open_samples = [record.index for record in certification if record.reason]
    assert shares(said.out)["certified"] == 0 < len(open_samples)
    assert (
        f"{len(open_samples)} samples stayed open, e.g. sample {open_samples[0]}: interval: RuntimeError: out of luck"
        in said.out
    )
    assert "StageFailedWarning" not in said.err
    table = cells(said.err)
    assert table == {
        "interval": [str(certification.natural_accuracy * 9)[0], "RuntimeError: out of luck"],
        "crown-ibp": [table["interval"][0], "RuntimeError: out of luck"],
        "crown": [str(len(open_samples)), "RuntimeError: out of luck"],
        "alpha-crown": [str(len(open_samples)), "RuntimeError: out of luck"],
    }
    decided = cells(said.out)["all"]
    assert decided[2:5] == [str(len(open_samples)), "0", "0"]


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
    certification = RunFolder(run).certification("linf-0.05").read()
    late = certification.counts[Verdict.UNKNOWN]
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
        assert "remove this line, and certify the sample again" in line


def test_certify_wong_and_kolters_network_on_real_mnist(succeeds, real_mnist, kw_mnist):
    out = succeeds(
        "certify", kw_mnist, "--network", "conv-small", "--dataset", "mnist", "--data", real_mnist, "--eps", 0.001,
        "--samples", 20,
    )  # fmt: skip
    assert shares(out)["certified"] == shares(out)["natural"] == 95  # one of them is a famous mistake
    assert "20 samples" in out

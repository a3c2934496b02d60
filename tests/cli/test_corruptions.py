"""Runs on corrupted images: `ctbench corruptions`, and --corruption of certify and attack."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ctbench import load_run
from ctbench.analyses.corrupted_tests import CorruptedTests
from ctbench.corruptions import corruptions
from ctbench.datasets import MNIST
from ctbench.results import RunFolder, jsonl, locks
from ctbench.training.checkpoints import blueprint_of, load_network, save_network

FEW = ("--samples", 30, "--kinds", "fog,stripe", "--severities", "1,5")


def test_corruptions_are_measured_once(succeeds, run, monkeypatch):
    table = succeeds("corruptions", run, *FEW, "--by-severity", "--markdown", "--figure", "map.svg")
    assert table.splitlines()[0] == "| run | severity | clean % | fog | stripe | mean |"
    assert [line.split(" | ")[1] for line in table.splitlines()[2:]] == ["all", "1", "5"]
    assert Path("map.svg").read_text().startswith("<?xml")
    records = jsonl.read(RunFolder(run).corrupted("ours-30"))
    assert [(record["corruption"], record["severity"]) for record in records] == [
        ("clean", None), ("fog", 1), ("fog", 5), ("stripe", 1), ("stripe", 5),
    ]  # fmt: skip
    monkeypatch.setattr("ctbench.analyses.generalisation.count_right", lambda *_: pytest.fail("computed again"))
    assert succeeds("corruptions", run, *FEW, "--by-severity", "--markdown") == table
    assert succeeds("corruptions", run, *FEW, "--csv").startswith("run,severity,clean,fog,stripe,mean\nrun,all,0.")


def test_another_process_that_measures_the_same_is_waited_for(fails, run):
    path = RunFolder(run).corrupted("ours-30")
    with locks.alone(path.with_suffix(".lock"), path):
        assert "ours-30.jsonl: wait for it" in fails("corruptions", run, *FEW)


def test_more_kinds_add_records(succeeds, run):
    succeeds("corruptions", run, *FEW)
    out = succeeds("corruptions", run, "--samples", 30, "--severities", 2, "--csv")
    assert out.splitlines()[0] == f"run,severity,clean,{','.join(corruptions())},mean"
    assert len(jsonl.read(RunFolder(run).corrupted("ours-30"))) == 1 + 4 + len(corruptions())


def test_other_settings_are_refused(succeeds, fails, run):
    succeeds("corruptions", run, *FEW)
    assert "has records under other settings (seed): move it away" in fails("corruptions", run, *FEW, "--seed", 1)
    weights = RunFolder(run).weights
    model = load_network(weights)
    torch.nn.init.zeros_(next(model.parameters()))
    save_network(model, blueprint_of(weights), weights)
    assert "has records under other settings (weights): move it away" in fails("corruptions", run, *FEW)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--severities", "0"), "--severities is '0': give whole numbers from 1 to 5"),
        (("--severities", "1,x"), "--severities is '1,x': give"),
        (("--kinds", "fog,stripe,fog"), "kinds are fog,stripe,fog: name each once"),
        (("--kinds", "snow"), "no corruption is called 'snow'"),
        (("--source", "svhn-c"), "no corrupted test set is called 'svhn-c'; there are mnist-c, "),
        (
            ("--source", "mnist-c", "--severities", "2"),
            "severities are (2,), but mnist-c has one alone: leave them out",
        ),
        (("--source", "mnist-c", "--kinds", "fog"), "mnist_c or mnist_c.zip is neither in"),
    ],
)
def test_corruptions_says_in_one_line_why_it_cannot(fails, run, tmp_path, options, said):
    assert said in fails("corruptions", run, "--samples", 5, "--data", tmp_path, *options)
    assert not (run / "corrupted").exists()


def test_published_images_of_another_data_set_are_not_looked_for(run, tmp_path):
    loaded = load_run(run)
    of_mnist = replace(loaded, recipe=replace(loaded.recipe, dataset=MNIST()))
    with pytest.raises(ValueError, match=r"was trained on mnist, and cifar10-c corrupts .* another .*: take mnist-c"):
        CorruptedTests(source="cifar10-c", kinds=("fog",))(of_mnist, root=tmp_path)
    assert not (run / "corrupted").exists()


def test_certify_and_attack_take_corrupted_images(succeeds, run):
    where = ("--samples", 10, "--corruption", "brightness", "--severity", 2)
    out = succeeds("certify", run, *where, "--stages", "interval")
    path = run / "certified" / "linf-0.05-digits+brightness-2.jsonl"
    assert out.splitlines()[-1] == str(path)
    assert json.loads(path.with_suffix(".json").read_text())["dataset"] == "digits+brightness-2"
    clean = succeeds("certify", run, "--samples", 10, "--stages", "interval")
    assert clean.splitlines()[-1] == str(run / "certified" / "linf-0.05.jsonl")
    digests = [[record["digest"] for record in jsonl.read(file)] for file in (path, run / "certified/linf-0.05.jsonl")]
    assert not set(digests[0]) & set(digests[1])
    out = succeeds("attack", run, *where, "--attacks", "pgd")
    attacked = Path(out.splitlines()[-1])
    assert attacked.name == "linf-0.05-digits+brightness-2-pgd.jsonl"
    assert jsonl.read_json(attacked.with_suffix(".json"))["dataset"] == "digits+brightness-2"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--severity", 2), "--severity 2 has no --corruption: name one"),
        (("--corruption", "snow"), "no corruption is called 'snow'"),
        (("--corruption", "fog", "--severity", 9), "severity is 9: it must be a whole number from 1 to 5"),
        (
            ("--corruption", "mnist-c/fog", "--severity", 2),
            "severity is 2, but the images of mnist-c have one severity",
        ),
        (("--corruption", "mnist-c/frost"), "corruption is 'frost': mnist-c has brightness, "),
    ],
)
def test_corruption_options_that_do_not_fit(fails, run, options, said):
    assert said in fails("certify", run, "--samples", 5, *options)


def test_corruptions_are_listed(succeeds):
    out = succeeds("list", "corruptions")
    assert "motion_blur" in out
    assert "severity=3" in out

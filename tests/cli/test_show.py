"""`ctbench show`, short forms, a dry run, patterns of lists, and errors that name the help of their command."""

import dataclasses

import pytest

from ctbench.cli import main
from ctbench.cli.show import described, rows
from ctbench.recipes import recipe, recipes
from ctbench.training import Recipe, load_run


def fields(out: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in out.splitlines() if line[:1].strip()}


def test_every_field_is_shown_with_its_origin_and_meaning(succeeds):
    shown = fields(succeeds("show", "cifar10_2_sabr", "--set", "threat.eps=8/255", "--seed", 3))
    assert set(shown) >= {field.name for field in dataclasses.fields(Recipe)}
    assert shown["threat.eps"][1:3] == ["8/255", "--set"]
    assert shown["seed"][1:3] == ["3", "--set"]
    assert shown["train_eps"][1:3] == ["3/255", "recipe"]
    assert shown["accumulate"][1:3] == ["1", "default"]
    assert shown["method.attack.steps"][1] == "8"
    assert "statistics" in " ".join(shown["precise_bn"])


def test_every_field_of_a_recipe_has_a_meaning():
    meanings = described(Recipe)
    assert {field.name for field in dataclasses.fields(Recipe)} <= meanings.keys()
    assert meanings["batch_size"] == meanings["epochs"]


@pytest.mark.parametrize("name", sorted(recipes())[::20])
def test_every_recipe_can_be_shown(name):
    assert len(list(rows(recipe(name)))) > 30


def test_short_forms_are_changes(succeeds):
    small = ("--set", "network.width=2", "--set", "batch_size=256", "--quiet")
    succeeds("train", "digits_ibp", "--epochs", 2, "--eps", "8/255", "--seed", 3, *small, "--out", "run")
    trained = load_run("run").recipe
    assert (trained.epochs, trained.threat.eps, trained.seed) == (2, 8 / 255, 3)
    assert trained.ramp.end == recipe("digits_ibp").ramp.end * 2 / 40


def test_stretched_times_are_told(capsys):
    assert main(["train", "digits_ibp", "--epochs", "1", "--set", "train_samples=50", "--out", "run"]) == 0
    told = capsys.readouterr().err.splitlines()[0]
    assert told.startswith("stretched with the epochs: epochs 40 -> 1; ramp.end 15 -> 0.375; optimizer.milestones")


def test_a_dry_run_trains_nothing(succeeds, tmp_path):
    out = succeeds("train", "mnist_small_ibp", "--dry-run", "--epochs", 30, "--out", "run")
    assert out.splitlines()[-1] == "would be trained in run"
    assert fields(out)["ramp.end"][1] == "15"
    assert not list((tmp_path / "cwd").iterdir())
    last = succeeds("train", "digits_ibp", "--dry-run").splitlines()[-1]
    assert last == f"would be trained in runs/digits_ibp-{recipe('digits_ibp').hash}"


def test_a_list_is_narrowed_by_a_pattern(succeeds, fails):
    names = [line.split()[0] for line in succeeds("list", "recipes", "mnist_small_*_ibp").splitlines()[1:]]
    assert names
    assert all(name.startswith("mnist_small_") and name.endswith("_ibp") for name in names)
    assert "cifar10, cnn7, sabr, eps 2/255" in succeeds("list", "recipes", "cifar10_2_sabr")
    assert "no name of the methods has 'xyz' in it" in fails("list", "methods", "xyz")


def test_an_unknown_argument_points_to_the_help_of_its_command(fails):
    said = fails("certify", "runs/mine", "--epsilon", 3)
    assert said == "ctbench certify: error: unrecognized arguments: --epsilon 3 (see ctbench certify --help)\n"

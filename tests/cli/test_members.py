"""Commands find classes of your own by name, once `--import` has imported their module."""

import json
import sys
from pathlib import Path

import pytest
from tests import forked, own_members

from ctbench.engine import Here
from ctbench.training import load_run

USER = ("--import", "tests.own_members")
SHORT = [
    "train", "digits_ibp", "--set", "network=your-network", "--set", "method=your-method", "--set", "shi=0",
    "--set", "dataset=your-dataset", "--set", "threat=your-threat", "--set", "threat.eps=0.02",
    "--set", "epochs=2", "--set", "ramp.end=1", "--quiet", "--out", "user",
]  # fmt: skip


def test_every_command_finds_every_kind(succeeds):
    succeeds(*USER, *SHORT)
    recipe = load_run("user").recipe
    names = (recipe.method.name, recipe.dataset.name, recipe.network.name, recipe.threat.name)
    assert names == ("your-method", "your-dataset", "your-network", "your-threat")

    out = succeeds(*USER, "certify", "user", "--samples", 9, "--stages", "interval,your-stage,falsify")
    assert "9 samples, your-threat eps 0.02" in out
    assert "your-stage" in Path("user/certified/your-threat-0.02.jsonl").read_text()

    weights = ("--dataset", "your-dataset", "--network", "your-network", "--normalize", "--eps", 0.02)
    alone = succeeds(
        *USER, "certify", "user/weights.safetensors", *weights, "--norm", "your-threat", "--samples", 9, "--stages",
        "interval,your-stage,falsify", "--out", "alone.jsonl",
    )  # fmt: skip
    line = next(line for line in out.splitlines() if line.startswith("9 samples"))
    assert line.rpartition(", ")[0] in alone

    out = succeeds(*USER, "attack", "user", "--attacks", "your-attack,pgd", "--samples", 9)
    assert "your-attack" in out
    out = succeeds(*USER, "compare", "user")
    assert "your-method" in out


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("methods", "your-method"),
        ("datasets", "your-dataset"),
        ("networks", "your-network"),
        ("threats", "your-threat"),
        ("attacks", "your-attack"),
        ("stages", "your-stage"),
    ],
)
def test_list_shows_every_kind(succeeds, kind, name):
    assert name in [line.split()[0] for line in succeeds(*USER, "list", kind).splitlines() if line[:1].strip()]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--dataset", "imagenet"],
            "--dataset is 'imagenet': it must be one of cifar10, cifar10-c, corrupted, digits, ",
        ),
        (["--dataset", "imagenet", "--dataset-path", "x"], "--dataset is 'imagenet': it must be one of cifar10, "),
        (["--dataset", "folder"], "--dataset folder needs --dataset-path"),
        (["--dataset", "digits", "--network", "cnn9"], "--network is 'cnn9': it must be one of cnn3, cnn5, "),
        (["--dataset", "digits", "--norm", "l7"], "norm is 'l7': it must be one of first-coordinate, l1, "),
        (["--dataset", "digits", "--norm", "segments"], "the threat model 'segments' needs directions"),
    ],
)
def test_an_unknown_name_is_answered_with_those_there_are(fails, run, options, said):
    assert said in fails("certify", run / "weights.safetensors", "--eps", 0.1, *options)


def test_unknown_stages_and_attacks_are_answered_with_those_there_are(fails, run, tmp_path):
    assert "no stage is called 'huge'; there are alpha-crown, " in fails("certify", run, "--stages", "huge")
    assert "no stage is called 'huge'" in fails("sweep", "digits_ibp", "--out", tmp_path / "s", "--stages", "huge")
    assert not (tmp_path / "s").exists()
    said = fails(*USER, "attack", run, "--attacks", "your-demanding-attack")
    assert "the attack 'your-demanding-attack' has no default for effort" in said


def test_sweep_hands_the_import_on(succeeds, monkeypatch, tmp_path):
    calls = list[list[str]]()

    def remember(commands):
        calls.extend(commands)
        yield None, "stopped"

    monkeypatch.setattr("ctbench.cli.sweep.engine", lambda *_, **__: Here())
    monkeypatch.setattr("ctbench.cli.sweep.work", remember)
    with pytest.raises(ValueError, match="stopped"):
        succeeds("--traceback", *USER, "sweep", "digits_ibp", "--out", tmp_path / "s")
    assert [call[0] for call in calls] == ["train", "certify"]
    assert all("--import=tests.own_members" in call for call in calls)


MODULE = Path(own_members.__file__).read_text()
BROKEN = "raise RuntimeError('of the user')"


def test_the_import_may_stand_anywhere_and_name_a_file(succeeds, fails, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    Path("deep").mkdir()
    Path("deep/file_of_the_user.py").write_text(MODULE.replace("your-", "deep-"))
    assert "deep-method" in succeeds("list", "methods", "--import", "./deep/file_of_the_user.py")
    assert "deep-attack" in succeeds("list", "--import=deep/file_of_the_user.py", "attacks")
    Path("broken_module.py").write_text(BROKEN)
    for place in (
        ["--import", "broken_module", "list", "methods"],
        ["list", "methods", "--import", "broken_module.py"],
    ):
        assert "RuntimeError: of the user; name a module" in fails(*place)
    assert "there is no file nowhere.py" in fails("--import", "nowhere.py", "list", "methods")
    assert "expected one argument" in fails("list", "methods", "--import")


def test_a_run_says_which_module_is_missing_and_needs_no_method(succeeds, fails):
    module = "run_of_the_user"
    Path(f"{module}.py").write_text(MODULE.replace("your-", "gone-"))
    options = [option.replace("your-", "gone-") for option in SHORT]

    assert forked.run("ctbench", "--import", module, *options, cwd=Path.cwd()).returncode == 0
    assert json.loads(Path("user/versions.json").read_text())["modules"] == [module]
    done = forked.run("ctbench", "certify", "user", "--samples", 5, cwd=Path.cwd())
    assert done.returncode == 2
    assert f"the run was trained with classes of {module}: import them first (--import {module})" in done.stderr

    only_the_method = ["train", "digits_ibp", "--set", "method=gone-method", *SHORT[6:8], "--set", "epochs=2",
                       "--set", "ramp.end=1", "--quiet", "--out", "method"]  # fmt: skip
    assert forked.run("ctbench", "--import", module, *only_the_method, cwd=Path.cwd()).returncode == 0
    done = forked.run("ctbench", "certify", "method", "--samples", 5, "--stages", "fast", cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert "5 samples" in done.stdout
    done = forked.run("ctbench", "train", "method/recipe.json", "--out", "again", cwd=Path.cwd())
    assert done.returncode == 2
    assert "the name of a method" in done.stderr

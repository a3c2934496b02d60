"""`ctbench train`: a run folder that can be resumed, and one line for bad recipes, bad data and divergence."""

import gzip
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.cli.short import SHORT
from tests.idx import idx

from ctbench.cli import main
from ctbench.networks import CNN3
from ctbench.results import jsonl
from ctbench.training import load_run


def test_train_writes_a_run_folder_and_prints_its_path(succeeds):
    out = succeeds(*SHORT, "--out", "here/run")
    assert out == "here/run\n"
    loaded = load_run("here/run")
    assert (loaded.recipe.epochs, loaded.recipe.network, loaded.recipe.threat.eps) == (2, CNN3(width=2), 0.05)
    assert [record["epoch"] for record in jsonl.read(Path("here/run/metrics.jsonl"))] == [1, 2]


OWN = """
from dataclasses import dataclass
from typing import ClassVar
from ctbench.methods.standard import Standard

@dataclass(frozen=True, kw_only=True)
class Own(Standard):
    name: ClassVar[str] = "of-the-user"
"""


def test_a_module_of_the_user_is_imported_first(succeeds, fails, monkeypatch):
    Path("methods_of_the_user.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    own = ["--set", "method=of-the-user", "--set", "shi=0", "--out", "own"]
    assert 'method is "of-the-user"' in fails(*SHORT, *own)
    succeeds("--import", "methods_of_the_user", *SHORT, *own)
    assert load_run("own").recipe.method.name == "of-the-user"
    assert "--import no_module: No module named 'no_module'; name a module" in fails("--import", "no_module", *SHORT)


def test_train_names_the_folder_by_the_recipe(succeeds):
    out = succeeds(*SHORT, "--set", "name=mine")
    assert re.fullmatch(r"runs/mine-[0-9a-f]{12}\n", out)
    assert load_run(out.strip()).recipe.hash in out


def test_train_resumes(succeeds, fails):
    succeeds(*SHORT, "--out", "run")
    before = Path("run/weights.safetensors").read_bytes()
    assert "already holds this run: resume it (--resume), or choose another folder (--out)" in fails(
        *SHORT, "--out", "run"
    )
    assert succeeds(*SHORT, "--out", "run", "--resume") == "run\n"
    assert Path("run/weights.safetensors").read_bytes() == before
    Path("run/weights.safetensors").unlink()
    succeeds(*SHORT, "--out", "run", "--resume")
    assert Path("run/weights.safetensors").read_bytes() == before


def test_train_takes_a_recipe_file(succeeds, tiny):
    jsonl.write_json(Path("mine.json"), tiny(epochs=1).to_json())
    succeeds("train", "mine.json", "--set", "seed=7", "--out", "run", "--quiet")
    assert load_run("run").recipe == tiny(epochs=1, seed=7)


def test_train_tells_epochs_on_standard_error(capsys):
    assert main([*SHORT[:-1], "--out", "run"]) == 0
    said = capsys.readouterr()
    assert said.out == "run\n"
    stretched, *epochs = said.err.splitlines()
    assert stretched == "stretched with the epochs: epochs 40 -> 2; optimizer.milestones [30, 35] -> [2, 3]"
    assert [line.split()[1] for line in epochs] == ["1/2", "2/2"]


# ----------------------------------------------------------------------------------------- bad recipes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("epoch=3", "'epoch': Recipe has no field 'epoch'; its fields are name, dataset, network"),
        ("optimizer.rate=3", "Adam ('adam') has no field 'rate'; its fields are lr, milestones, decay, clip_norm"),
        ("threat.eps=-0.1", "eps is -0.1: a radius must be a number >= 0"),
        ("threat.eps=1.5", "eps is 1.5, wider than the data range [0, 1]"),
        ("threat.eps=NaN", "eps is nan"),
        ("epochs=many", 'epochs is "many": it must be a whole number'),
        ("method=magic", 'method is "magic": it must be the name of a method:'),
        ("epochs", "'epochs' is not a change: write path.to.field=value"),
    ],
)
def test_a_bad_change_of_a_recipe_is_explained_and_nothing_is_made(fails, change, said):
    assert said in fails("train", "digits_ibp", "--set", change)
    assert list(Path().iterdir()) == []


def test_an_unknown_recipe_lists_those_there_are(fails):
    line = fails("train", "digits_magic")
    assert "no recipe is called 'digits_magic'; there are digits_" in line
    assert "nowhere.json: there is no such file or folder: check the path" in fails("train", "nowhere.json")


def test_a_damaged_recipe_file_is_named(fails):
    Path("mine.json").write_text("{")
    assert "mine.json is not a JSON file" in fails("train", "mine.json")
    Path("mine.json").write_text('{"name": "mine"}')
    assert "mine.json: the recipe: Recipe needs a value for dataset, network" in fails("train", "mine.json")


def test_a_bad_value_in_a_recipe_file_is_named_with_the_file(fails, run):
    recipe = jsonl.read_json(run / "recipe.json")
    for change, said in (
        ({"epochs": "two"}, 'recipe.json: epochs is "two": it must be a whole number'),
        ({"epochs": 0}, "recipe.json: epochs and batch_size must be >= 1"),
    ):
        jsonl.write_json(run / "recipe.json", recipe | change)
        assert f"{run}/{said}" in fails("train", run / "recipe.json", "--out", "new")
        assert f"{run}/{said}" in fails("train", "digits_ibp", "--out", run)
        assert f"{run}/{said}" in fails("certify", run)


def test_a_folder_of_another_recipe_is_refused(fails, run):
    line = fails(*SHORT, "--out", run, "--resume")
    assert "holds the run of another recipe (tiny, " in line
    Path("full").mkdir()
    Path("full/thesis.tex").touch()
    assert "full holds other files: choose an empty or a new folder" in fails(*SHORT, "--out", "full")


# ---------------------------------------------------------------------------------------------- bad data


def test_data_that_cannot_be_had_are_named(fails):
    line = fails("train", "mnist_small_ibp", "--data", "nowhere", "--quiet", "--out", "run")
    assert "train-images-idx3-ubyte" in line
    assert "could not be downloaded" in line


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train-images-idx3-ubyte", b"not an idx file", "begins with"),
        ("train-images-idx3-ubyte", idx(np.zeros((2, 28, 28), np.uint8)), "SHA-256 is"),
        ("train-images-idx3-ubyte", idx(np.zeros((2, 28, 28), np.uint8))[:-1], "bytes, but its header"),
        ("train-images-idx3-ubyte.gz", b"not packed", "is not a complete gzip file"),
        ("train-images-idx3-ubyte.gz", gzip.compress(bytes(1000))[:-3], "is not a complete gzip file"),
    ],
    ids=["no idx", "other images", "cut short", "not gzip", "gzip cut short"],
)
def test_damaged_data_are_named(fails, name, content, said):
    Path("data/mnist").mkdir(parents=True)
    Path("data/mnist", name).write_bytes(content)
    line = fails("train", "mnist_small_ibp", "--data", "data", "--quiet", "--out", "run")
    assert name in line
    assert said in line


def test_images_of_several_shapes_are_refused(fails):
    for part in ("train", "test"):
        for label, size in (("a", 8), ("b", 9)):
            folder = Path("pictures", part, label)
            folder.mkdir(parents=True)
            Image.fromarray(np.zeros((size, size), np.uint8)).save(folder / "0.png")
    change = 'dataset={"name": "folder", "path": "pictures", "grey": true}'
    line = fails("train", "digits_ibp", "--set", change, "--quiet", "--out", "run")
    assert "pictures" in line
    assert re.search(r"8.*9|9.*8", line)


def test_training_that_diverges_says_so_in_a_line(fails, monkeypatch):
    from ctbench.methods import regularizers

    def nan(*_: object) -> torch.Tensor:
        return torch.tensor(float("nan"))

    monkeypatch.setattr(regularizers, "shi", nan)
    assert "diverged in epoch 1, step 1 of 6" in fails(*SHORT, "--out", "run")


def test_an_interruption_says_how_to_go_on(capsys, monkeypatch):
    from ctbench.training.step import Stepper

    def interrupted(self, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stepper, "step", interrupted)
    assert main([*SHORT, "--out", "run"]) == 130
    assert "interrupted; finished results are kept, --resume continues from there" in capsys.readouterr().err

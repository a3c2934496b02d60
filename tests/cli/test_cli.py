"""The command line: what it prints, where it writes, and one line for everything that can go wrong."""

import errno
import gzip
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ctbench.cli import demo, main
from ctbench.cli.main import explained
from ctbench.networks import CNN3, MLP
from ctbench.results import RunFolder, jsonl
from ctbench.training import Recipe, load_run
from ctbench.training.blueprint import Blueprint
from ctbench.training.checkpoints import save_network

TINY = [
    f"--set={change}" for change in ("epochs=2", "ramp.end=1", "batch_size=256", "network.width=2", "threat.eps=0.05")
]
SHORT = ["train", "digits_ibp", *TINY, "--quiet"]


# ---------------------------------------------------------------------------------------------- train


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


def test_a_radius_may_be_a_fraction(succeeds, fails, run):
    assert "linf eps 0.0313725" in succeeds("certify", run, "--eps", "8/255", "--samples", "2", "--stages", "fast")
    for text in ("8/0", "a/2", "1/2/3"):
        assert f"'{text}' is not a radius, e.g. 0.1 or 8/255" in fails("certify", run, "--eps", text)


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


# ------------------------------------------------------------------------------------ compare, list, demo


def test_compare_shows_runs_side_by_side(succeeds, run, trained):
    succeeds("certify", run, "--samples", 20)
    found = RunFolder(run).certification("linf-0.05").read()
    table = succeeds("compare", run, trained)
    assert "adversarial %" in table
    (line,) = [line for line in table.splitlines() if " 0.05 " in line]
    for share in (found.natural_accuracy, found.adversarial_accuracy, found.certified_accuracy):
        assert f" {100 * share:.2f} " in line
    lines = succeeds("compare", run, trained, "--markdown").splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("| run | data | network | method | norm | eps |")
    assert lines[2].startswith("| run | digits | mlp | ibp | linf | 0.05 | 20 |")
    assert lines[3].startswith("| run | digits | mlp | ibp | - | - | - |")


def test_compare_reads_a_run_from_before_there_were_crops(succeeds, run):
    table = succeeds("compare", run)
    recipe = jsonl.read_json(run / "recipe.json")
    assert recipe["dataset"]["augmentation"].pop("crop") is None
    jsonl.write_json(run / "recipe.json", recipe)
    assert succeeds("compare", run) == table
    assert load_run(run).recipe.dataset.augmentation.crop is None


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("recipes", ["digits_ibp", "digits_pgd", "digits_standard", "mnist_small_ibp"]),
        ("methods", ["ibp", "pgd", "standard"]),
        ("networks", ["cnn3", "cnn5", "cnn7", "cnn7-narrow", "cnn7-tinyimagenet", "conv-small", "mlp"]),
        ("datasets", ["cifar10", "digits", "folder", "mnist", "tinyimagenet"]),
        ("threats", ["first-coordinate", "l1", "l2", "linf", "random-segments", "segments"]),
        ("attacks", ["apgd", "line-search", "pgd"]),
        ("stages", ["bound", "branch-and-bound", "falsify", "input-split", "milp"]),
    ],
)
def test_list_names_what_there_is(succeeds, kind, names):
    lines = succeeds("list", kind).splitlines()
    listed = [line.split()[0] for line in lines[1:] if line[:1].strip()]
    assert set(names) <= set(listed)
    assert lines[0].split()[:3] == ["name", "about", "source" if kind == "recipes" else "fields"]


def shortened(name: str) -> Recipe:
    from ctbench.recipes import recipe

    made = recipe(name)
    return replace(made, network=CNN3(width=2), epochs=2, batch_size=256, ramp=replace(made.ramp, end=1))


def test_demo_trains_certifies_and_compares(succeeds, monkeypatch):
    monkeypatch.setattr(demo, "recipe", shortened)
    table = succeeds("demo", "--out", "demo")
    for name in demo.RECIPES:
        assert any(line.split()[1:2] == [name] and " 359 " in line for line in table.splitlines()), name
        assert len(RunFolder(Path("demo") / name).certification("linf-0.1").read()) == 359


def test_demo_can_be_run_again(succeeds, monkeypatch):
    """It then shows what it has found."""
    monkeypatch.setattr(demo, "recipe", shortened)
    first = succeeds("demo", "--out", "demo")
    assert succeeds("demo", "--out", "demo") == first


def test_version_and_help_are_no_errors(capsys):
    for arguments, said in (
        (["--version"], "ctbench 0"),
        (["--help"], "usage: ctbench"),
        (["train", "--help"], "--set"),
    ):
        with pytest.raises(SystemExit) as leaving:
            main(arguments)
        assert leaving.value.code == 0
        assert said in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["tarin"], "invalid choice: 'tarin'"),
        (["train"], "the following arguments are required: RECIPE"),
        (["train", "digits_ibp", "--depth", "3"], "unrecognized arguments: --depth 3"),
        (["list", "colours"], "invalid choice: 'colours'"),
        (["compare"], "the following arguments are required: RUN"),
    ],
)
def test_wrong_arguments_are_explained_in_a_line(fails, arguments, said):
    line = fails(*arguments)
    assert said in line
    assert "--help" in line


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
        ("epochs", "'epochs' is no change: write path.to.field=value"),
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


NO_FOLDER = "it is a file, but a folder is expected: choose another place"
NO_FILE = "it is a folder, but a file is expected: name a file, or choose another place"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "nowhere.json"], "nowhere.json: there is no such file or folder: check the path"),
        (["train", "folder.json"], f"folder.json: {NO_FILE}"),
        ([*SHORT, "--out", "file"], f"file: {NO_FOLDER}"),
        ([*SHORT, "--out", "file/run"], f"file/run: {NO_FOLDER}"),
        (["certify", "RUN", "--out", "file/a.jsonl"], f"file: {NO_FOLDER}"),
        (
            ["certify", "RUN", "--out", "left.jsonl"],
            f"left.jsonl.unfinished (to become left.jsonl; remove it if it was left over): {NO_FILE}",
        ),
        (["vnncomp", "nowhere.csv"], "nowhere.csv: there is no such file or folder: check the path"),
        (["vnncomp", "folder.json"], f"folder.json: {NO_FILE}"),
    ],
)
def test_what_the_system_refuses_is_named_with_what_to_do(fails, run, arguments, said):
    Path("file").touch()
    for name in ("folder.json", "left.jsonl.unfinished"):
        Path(name).mkdir()
    assert fails(*(run if part == "RUN" else part for part in arguments)) == f"ctbench: error: {said}\n"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_place_without_permission_is_named_with_what_to_do(fails, monkeypatch, number):
    def refused(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, "no", str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    line = fails(*SHORT, "--out", "run")
    assert "run: no permission to read or write it: change the permissions, or choose another place" in line


def test_an_error_of_two_paths_is_about_the_second_and_others_are_told_as_they_are():
    refused = OSError(errno.EISDIR, "Is a directory", "a.json.unfinished", None, "a.json")
    assert explained(refused).startswith("a.json: it is a folder, but a file is expected")
    assert explained(OSError(errno.ENOSPC, "No space left on device")) == "[Errno 28] No space left on device"
    assert explained(FileNotFoundError("there is no run folder a")) == "there is no run folder a"


@pytest.mark.parametrize("command", ["train", "certify"])
@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(fails, run, command, device):
    arguments = [*SHORT, "--out", "new"] if command == "train" else ["certify", run, "--samples", 3]
    fails(*arguments, "--device", device)


@pytest.mark.parametrize("samples", ["0", "-1", "1.5", "many", ""])
def test_a_number_of_samples_must_be_one(fails, run, samples):
    assert f"{samples!r} is not a whole number of 1 or more" in fails("certify", run, f"--samples={samples}")


@pytest.mark.parametrize(
    ("eps", "said"),
    [
        ("-0.1", "must be a number >= 0"),
        ("1.5", "wider than the data range"),
        ("nan", "eps is nan"),
        ("8:255", "is not a radius, e.g. 0.1 or 8/255"),
    ],
)
def test_a_radius_must_be_one(fails, run, eps, said):
    assert said in fails("certify", run, f"--eps={eps}")
    assert not (run / "certified").exists()


def test_certify_needs_a_run(fails, run):
    assert "there is no run folder nowhere" in fails("certify", "nowhere")
    assert "there is no file nowhere.safetensors" in fails(
        "certify", "nowhere.safetensors", "--dataset", "digits", "--eps", 0.1
    )
    Path("empty").mkdir()
    assert "empty is not a run folder" in fails("certify", "empty")
    assert "give --eps and --dataset" in fails("certify", run / "weights.safetensors")
    for options in (["--dataset", "digits"], ["--dataset-path", "pictures"]):
        assert "--dataset-path are only for networks; a run has its own" in fails("certify", run, *options)
    (run / "weights.safetensors").unlink()
    assert "is not complete: finish it with resume" in fails("certify", run)


def test_weights_that_say_too_little_lead_to_the_run_folder(fails, run):
    line = fails("certify", run / "weights.safetensors")
    assert f"give --eps and --dataset (or --data-from), or the run folder {run}" in line
    assert "run folder" not in fails("certify", (run / "weights.safetensors").rename("alone.safetensors"))
    line = fails("certify", run / "state.safetensors", "--dataset", "digits", "--eps", 0.1)
    assert "does not say which network it is for: give the folder of its run, or name the network (--network)" in line


@pytest.mark.parametrize("kept", [0, 10, -50])
def test_truncated_weights_are_named(fails, run, kept):
    weights = run / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    assert "weights.safetensors is damaged or not a safetensors file" in fails("certify", run)


def test_weights_for_images_of_another_shape_are_refused(fails):
    blueprint = Blueprint(network=MLP(hidden=(4,)), input_shape=(1, 28, 28), classes=10)
    save_network(blueprint.build(), blueprint, Path("mnist.safetensors"))
    line = fails("certify", "mnist.safetensors", "--dataset", "digits", "--eps", 0.1)
    assert "takes 784 features, its input has shape (64,)" in line


def test_labels_that_the_network_has_no_class_for_are_refused(fails):
    blueprint = Blueprint(network=MLP(hidden=(4,)), input_shape=(1, 8, 8), classes=3)
    save_network(blueprint.build(), blueprint, Path("three.safetensors"))
    line = fails("certify", "three.safetensors", "--dataset", "digits", "--eps", 0.1)
    assert re.search(r"label \d of sample \d+ is out of range: the network has 3 classes, so labels are 0..2", line)


def test_weights_of_another_network_in_a_run_are_refused(fails, run):
    """The network of the recipe is not that of the weights."""
    blueprint = Blueprint(network=MLP(hidden=(4,)), input_shape=(1, 28, 28), classes=10)
    save_network(blueprint.build(), blueprint, run / "weights.safetensors")
    fails("certify", run, "--samples", 3)


@pytest.mark.parametrize("width", [5, 21])
def test_weights_of_another_size_in_a_run_are_refused(fails, run, width):
    blueprint = Blueprint(network=MLP(hidden=(width,)), input_shape=(1, 8, 8), classes=10)
    save_network(blueprint.build(), blueprint, run / "weights.safetensors")
    assert "another network" in fails("certify", run, "--samples", 3)


# ---------------------------------------------------------------------------------------------- bad data


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


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


def test_a_traceback_is_shown_on_demand():
    with pytest.raises(ValueError, match="no recipe is called"):
        main(["--traceback", "train", "nothing"])


def test_list_shows_published_accuracies_and_where_they_come_from(succeeds):
    (line,) = (line for line in succeeds("list", "recipes").splitlines() if line.startswith("mnist_03_taps "))
    assert "CTBench, Table 4" in line
    assert "98.56 / 94.66 / 93.95 (CTBench, Table 1)" in line


def test_sweep_trains_certifies_and_compares(succeeds, tmp_path):
    for _ in range(2):  # the second time there is nothing left to do
        out = succeeds("sweep", "digits_stand*", "--out", tmp_path, "--samples", 5, "--stages", "fast", "--markdown")
        (row,) = (line for line in out.splitlines() if line.startswith("| digits_standard"))
        assert [cell.strip() for cell in row.split("|")][5:8] == ["linf", "0.1", "5"]


def test_compare_sweep_and_demo_tell_of_stages_that_failed(capsys, run, tmp_path, monkeypatch):
    monkeypatch.setattr("ctbench.verify.stages.Bound.__call__", lambda *_: 1 / 0)
    assert main(["certify", str(run), "--samples", "20", "--stages", "fast"]) == 0
    table = capsys.readouterr().err
    assert main(["compare", str(run)]) == 0
    said = capsys.readouterr()
    assert "interval, crown-ibp, crown" in said.out
    told = [
        cell.strip() for cell in next(line for line in said.err.splitlines() if "interval" in line).split("│")[1:-1]
    ]
    assert told == [
        "run",
        "interval",
        re.search(r"interval +│ +(\d+)", table)[1],
        "ZeroDivisionError: division by zero",
    ]
    monkeypatch.setattr(demo, "recipe", shortened)
    assert main(["demo", "--out", "demo", "--strict"]) == 2
    said = capsys.readouterr()
    assert "digits_ibp" in said.out
    assert all(re.search(rf"{name} +│ interval +│", said.err) for name in demo.RECIPES)
    assert "error: --strict, and stages failed (interval, crown-ibp, crown, alpha-crown)" in said.err
    (tmp_path / "sweep").mkdir()
    (Path("demo") / "digits_ibp").rename(tmp_path / "sweep" / "digits_ibp")
    monkeypatch.setattr("subprocess.run", lambda call, **_: subprocess.CompletedProcess(call, 0))
    for strict in (True, False):
        options = ["--strict"] if strict else []
        assert main(["sweep", "digits_ibp", "--out", str(tmp_path / "sweep"), *options]) == 2 * strict
        said = capsys.readouterr()
        assert re.search(r"digits_ibp +│ interval +│", said.err)


def test_sweep_goes_on_after_a_failure_and_tells_of_it(capsys, tmp_path):
    (tmp_path / "digits_standard").mkdir()
    (tmp_path / "digits_standard" / "notes.txt").touch()
    assert (
        main(["sweep", "digits_standard", "digits_ibp", "--out", str(tmp_path), "--samples", "5", "--stages", "fast"])
        == 2
    )
    said = capsys.readouterr()
    assert "digits_ibp" in said.out
    assert "digits_standard" not in said.out
    assert "not all of the 2 recipes could be trained and certified. digits_standard: ctbench: error:" in said.err
    assert "holds other files" in said.err


@pytest.mark.parametrize("timeout", ["0", "-3", "none"])
def test_sweep_refuses_a_timeout_before_it_trains(fails, tmp_path, timeout):
    line = fails("sweep", "digits_ibp", "--out", tmp_path / "new", f"--timeout={timeout}")
    assert f"{timeout!r} is not a number of seconds > 0, e.g. 60" in line
    assert not (tmp_path / "new").exists()


def test_sweep_names_a_pattern_without_recipes(fails, tmp_path):
    assert "no recipe is called 'imagenet_*'" in fails("sweep", "digits_ibp", "imagenet_*", "--out", tmp_path)
    line = fails("sweep", "cifar10_linf_2_*", "--out", tmp_path)
    assert "no recipe is called 'cifar10_linf_2_*'; there are robustacc_cifar10_linf_2_coap, " in line

"""The command line: its output, and one line for each error."""

import errno
import re
from pathlib import Path

import pytest
from tests.cli.short import SHORT, shortened

from ctbench.cli import demo, main
from ctbench.cli.main import explained
from ctbench.networks import MLP
from ctbench.results import RunFolder, jsonl
from ctbench.training import load_run
from ctbench.training.blueprint import Blueprint
from ctbench.training.checkpoints import save_network

# ------------------------------------------------------------------------------------ compare, list, demo


def test_compare_shows_runs_side_by_side(succeeds, run, trained):
    succeeds("certify", run, "--samples", 20)
    certification = RunFolder(run).certification("linf-0.05").read()
    table = succeeds("compare", run, trained)
    assert "adversarial %" in table
    (line,) = [line for line in table.splitlines() if " 0.05 " in line]
    for share in (certification.natural_accuracy, certification.adversarial_accuracy, certification.certified_accuracy):
        assert f" {100 * share:.2f} " in line
    lines = succeeds("compare", run, trained, "--markdown").splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("| run | data | network | method | norm | eps |")
    assert lines[2].startswith(f"| {run} | digits | mlp | ibp | linf | 0.05 | 20 |")
    assert lines[3].startswith(f"| {trained} | digits | mlp | ibp | - | - | - |")


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


def test_demo_trains_certifies_and_compares(succeeds, monkeypatch):
    monkeypatch.setattr(demo, "recipe", shortened)
    table = succeeds("demo", "--out", "demo")
    for name in demo.RECIPES:
        assert any(line.split()[1:2] == [name] and " 359 " in line for line in table.splitlines()), name
        assert len(RunFolder(Path("demo") / name).certification("linf-0.1").read()) == 359


def test_demo_can_be_run_again(succeeds, monkeypatch):
    """The command then shows its results."""
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


def test_list_shows_published_accuracies_and_where_they_come_from(succeeds):
    (line,) = (line for line in succeeds("list", "recipes").splitlines() if line.startswith("mnist_03_taps "))
    assert "CTBench, Table 4" in line
    assert "98.56 / 94.66 / 93.95 (CTBench, Table 1)" in line


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


def test_a_traceback_is_shown_on_demand():
    with pytest.raises(ValueError, match="no recipe is called"):
        main(["--traceback", "train", "nothing"])


NO_FOLDER = "it is a file, but a folder is expected: choose another place"
NO_FILE = "it is a folder, but a file is expected: name a file, or choose another place"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "nowhere.json"], "nowhere.json: there is no such file or folder: check the path"),
        (["train", "folder.json"], f"folder.json: {NO_FILE}"),
        ([*SHORT, "--out", "file"], f"file: {NO_FOLDER}"),
        ([*SHORT, "--out", "file/run"], f"file: {NO_FOLDER}"),
        (["certify", "RUN", "--out", "file/a.jsonl"], f"file: {NO_FOLDER}"),
        (
            ["certify", "RUN", "--out", "left.jsonl"],
            f"left.jsonl.unfinished (to become left.jsonl; remove it if it was left over): {NO_FILE}",
        ),
        (["certify", "nowhere", "--out", "folder.json"], f"folder.json: {NO_FILE}"),
        (["radius", "nowhere", "--out", "file/a.jsonl"], f"file: {NO_FOLDER}"),
        (["analyse", "nowhere", "--out", "file/analyses"], f"file: {NO_FOLDER}"),
        (["report", "nowhere", "--out", "file/pages"], f"file: {NO_FOLDER}"),
        (["agree", "nowhere", "nowhere", "--difficulty", "file/a.csv"], f"file: {NO_FOLDER}"),
        (["compare", "nowhere", "--plot", "natural,certified", "--figure", "file/a.png"], f"file: {NO_FOLDER}"),
        (["curves", "nowhere", "--figure", "folder.png"], f"folder.png: {NO_FILE}"),
        (["vnncomp", "nowhere.csv"], "nowhere.csv: there is no such file or folder: check the path"),
        (["vnncomp", "folder.json"], f"folder.json: {NO_FILE}"),
    ],
)
def test_what_the_system_refuses_is_named_with_what_to_do(fails, run, arguments, said):
    Path("file").touch()
    for name in ("folder.json", "folder.png", "left.jsonl.unfinished"):
        Path(name).mkdir()
    assert fails(*(run if part == "RUN" else part for part in arguments)) == f"ctbench: error: {said}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "nowhere", "--pareto", "natural,certified", "--figure"],
        ["curves", "nowhere", "--figure"],
        ["corruptions", "nowhere", "--figure"],
        ["analyse", "nowhere", "--plot"],
    ],
)
def test_a_picture_of_another_kind_is_refused_before_the_work(fails, arguments):
    assert f"{arguments[-1]} is a.pdf: give a file that ends in .png or .svg" in fails(*arguments, "a.pdf")


@pytest.mark.parametrize("command", ["train", "show", "tune"])
def test_a_field_that_is_changed_twice_is_refused(fails, command):
    more = ["--space", "l1=0,1", "--trials", 1, "--out", "study"] if command == "tune" else []
    twice = ["--set", "epochs=3", "--set", "l1=0", "--set", "epochs=4"]
    said = "epochs is given twice, by --set epochs=3 and by --set epochs=4: give it once"
    assert said in fails(command, "digits_ibp", *twice, *more)
    said = "threat.eps is given twice, by --eps 0.2 and by --set threat.eps=0.1: give it once"
    assert said in fails(command, "digits_ibp", "--eps", 0.2, "--set", "threat.eps=0.1", *more)


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
    assert explained(OSError(errno.ETIMEDOUT, "Connection timed out")) == "[Errno 110] Connection timed out"
    assert explained(FileNotFoundError("there is no run folder a")) == "there is no run folder a"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_named_with_what_to_do():
    with pytest.raises(OSError, match="No space left") as full:
        jsonl.append(Path("/dev/full"), [{"index": 0}])
    assert explained(full.value).startswith("/dev/full: the disk is full: make room, then run the same command again")


def test_damaged_weights_are_restored_from_the_state(succeeds, fails, run):
    weights = run / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-50])
    line = fails("certify", run)
    command = f"train {run}/recipe.json --out {run} --resume"
    assert f"ctbench {command} restores it from state.safetensors" in line
    with pytest.warns(UserWarning, match=r"weights.safetensors was damaged: it is restored from state.safetensors"):
        succeeds(*command.split(), "--quiet")
    assert weights.read_bytes() == whole
    weights.write_bytes(whole[:-50])
    (run / "state.safetensors").unlink()
    assert "is damaged or not a safetensors file" in fails(*command.split(), "--quiet")


def test_a_radius_may_be_a_fraction(succeeds, fails, run):
    assert "linf eps 8/255" in succeeds("certify", run, "--eps", "8/255", "--samples", "2", "--stages", "fast")
    for text in ("8/0", "a/2", "1/2/3"):
        assert f"'{text}' is not a radius, e.g. 0.1 or 8/255" in fails("certify", run, "--eps", text)


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
    line = fails("certify", run)
    assert f"is not complete: ctbench train {run}/recipe.json --out {run} --resume finishes it" in line


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

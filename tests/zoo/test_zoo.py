"""Trained networks that come with the package."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

import ctbench
from ctbench import zoo
from ctbench.analyses.corrupted_tests import CorruptedTests
from ctbench.cli import main
from ctbench.results import RunFolder
from ctbench.verify import Bound

SMALL = "zoo:mnist_small_ibp"


@pytest.mark.parametrize("name", zoo.names())
def test_each_network_is_the_run_of_the_recipe_of_its_name(name):
    run = ctbench.load_run(f"zoo:{name}")
    assert run.recipe == ctbench.recipe(name)
    assert (run.folder.path / "weights.safetensors").stat().st_size <= 200_000
    assert len(run.folder.metrics.read_text().splitlines()) == run.recipe.epochs
    model = ctbench.load_network(f"zoo:{name}")
    for key, value in model.state_dict().items():
        assert torch.equal(value, run.model.state_dict()[key])


def test_the_digests_are_those_of_the_weights():
    weights = {name: zoo.HERE / name / "weights.safetensors" for name in zoo.names()}
    assert len(weights) >= 4
    assert zoo.digests() == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in weights.items()}


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    shutil.copytree(zoo.HERE, tmp_path / "zoo")
    monkeypatch.setattr(zoo, "HERE", tmp_path / "zoo")
    path = tmp_path / "zoo" / "mnist_small_ibp" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights.safetensors is damaged: install ctbench again"):
        ctbench.load_network(SMALL)


def test_an_unknown_name_is_an_error_that_lists_the_names():
    with pytest.raises(FileNotFoundError, match=r"there is no zoo:nothing: choose from zoo:mnist_small_03_crown_ibp, "):
        ctbench.load_run("zoo:nothing")


def test_other_paths_stay_as_they_are(tmp_path):
    assert zoo.located(tmp_path) == zoo.working_copy(tmp_path) == tmp_path
    assert zoo.located("runs/zoo") == Path("runs/zoo")


def test_a_command_works_on_a_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = zoo.working_copy(SMALL)
    assert copy == Path("runs/zoo/mnist_small_ibp")
    (copy / "note").touch()
    assert zoo.working_copy(SMALL) == zoo.working_copy(zoo.located(SMALL)) == copy
    assert (copy / "note").exists()
    (copy / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"mnist_small_ibp is not a copy of zoo:mnist_small_ibp: move it"):
        zoo.working_copy(SMALL)


@pytest.mark.usefixtures("real_mnist")
def test_a_network_of_the_zoo_is_certified_like_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["certify", SMALL, "--samples", "20", "--stages", "fast", "--quiet"]) == 0
    folder = RunFolder(Path("runs/zoo/mnist_small_ibp"))
    result = folder.certification("linf-0.1").read()
    assert len(result) == 20
    assert result.certified_accuracy >= 0.9
    assert json.loads(folder.certification("linf-0.1").settings.read_text())["dataset"] == "mnist"
    assert str(folder.path) in capsys.readouterr().out
    assert main(["compare", SMALL, "--markdown"]) == 0
    assert "| mnist_small_ibp |" in capsys.readouterr().out


@pytest.mark.usefixtures("real_mnist")
def test_from_python_records_are_written_to_a_copy_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = ctbench.load_run(SMALL)
    before = sorted(run.folder.path.iterdir())
    ctbench.certify(run, torch.rand(2, 1, 28, 28), torch.tensor([0, 1]), stages=[Bound(domain="interval")])
    CorruptedTests(kinds=("fog",), severities=(1,))(run, samples=3)
    copy = RunFolder(Path("runs/zoo/mnist_small_ibp"))
    assert len(copy.certification("linf-0.1").read()) == 2
    assert copy.corrupted("ours-3").is_file()
    assert sorted(run.folder.path.iterdir()) == before

"""Runs of a module of one's own: their network is the exported graph, and a check says what it knows of the weights."""

import json
import shutil
from pathlib import Path

import onnx
import pytest
import safetensors.torch
import torch
from tests.packs.conftest import NAME, failed
from torch import nn

from ctbench.packs import check
from ctbench.results import RunFolder, jsonl
from ctbench.training import load_run, tensor_files, train
from ctbench.verify import Records, certify, stages_by_name


class Halved(nn.Linear):
    """A layer whose matrix is another one in the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight / 2, self.bias / 2)


def trained(tiny, module: nn.Module, path: Path) -> RunFolder:
    run = train(tiny(epochs=2, batch_size=64), model=module, out=path, quiet=True)
    x, y = run.recipe.dataset.load().test[:10]
    about = {"dataset": "digits", "network": "given"}
    model = load_run(path).model  # the exported graph, which the records are then about
    certify(model, x, y, eps=0.02, records=Records(run.folder.certification("linf-0.02").records, about=about))
    return run.folder


@pytest.fixture(scope="module")
def own_module() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


@pytest.fixture(scope="module")
def own_run(tiny, own_module, tmp_path_factory) -> Path:
    return trained(tiny, own_module, tmp_path_factory.mktemp("own") / "own").path


@pytest.fixture
def own(own_run, tmp_path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(own_run, tmp_path / "own")))


def with_noise(folder: RunFolder) -> None:
    tensors, about = tensor_files.read(folder.weights)
    noise = {
        name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    folder.weights.write_bytes(safetensors.torch.save(noise, metadata=about))


def with_other_names(folder: RunFolder) -> None:
    """The same graph, with other names of its constants."""
    model = onnx.load(folder.exported)
    for constant in model.graph.initializer:
        for node in model.graph.node:
            node.input[:] = [f"c{name}" if name == constant.name else name for name in node.input]
        constant.name = f"c{constant.name}"
    onnx.save(model, folder.exported)


def said_of(folder: RunFolder, name: str) -> str:
    return next(str(claim) for claim in check(folder.path, samples=3) if claim.about == name)


def test_an_honest_run_says_what_was_compared(own):
    assert failed(own.path, samples=3) == []
    said = said_of(own, "weights.safetensors")
    assert "the network is network.onnx, because the module is not in the run" in said
    assert "4 of 8 tensors of weights.safetensors are in the graph, which has 2 others" in said
    assert "what the graph computes with them, were not compared" in said
    assert "its logits were compared with no others" in said_of(own, "network.onnx")


def test_exchanged_weights_are_found(own):
    with_noise(own)
    assert any("is another than that of network.onnx" in line for line in failed(own.path))


def test_weights_that_cannot_be_compared_are_not_claimed(own):
    with_noise(own)
    with_other_names(own)
    assert "weights.safetensors was not compared: none of its 8 tensors" in said_of(own, "weights.safetensors")


def test_constants_that_no_node_reads_count_for_nothing(own):
    with_noise(own)
    with_other_names(own)
    model = onnx.load(own.exported)
    tensors, _ = tensor_files.read(own.weights)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(tensor.numpy(), name) for name, tensor in tensors.items()
    )
    onnx.save(model, own.exported)
    assert "weights.safetensors was not compared" in said_of(own, "weights.safetensors")


def test_records_of_the_module_itself_are_about_another_network(own, own_module):
    """Its batch norm is a scale in the graph, and single precision makes another network of it."""
    shutil.rmtree(own.path / "certified")
    run = load_run(own.path, model=own_module)
    x, y = run.recipe.dataset.load().test[:4]
    certify(
        run.model, x, y, eps=0.02, stages=stages_by_name("interval"), records=Records(own.certification(NAME).records)
    )
    assert any("certify the run as load_run gives it without the module" in line for line in failed(own.path))


def test_a_layer_that_computes_its_matrix_is_honest(tiny, tmp_path):
    folder = trained(tiny, nn.Sequential(nn.Flatten(), Halved(64, 16), nn.ReLU(), nn.Linear(16, 10)), tmp_path / "run")
    assert failed(folder.path, samples=3) == []
    assert "2 of 4 tensors of weights.safetensors are in the graph" in said_of(folder, "weights.safetensors")


def test_a_matrix_that_the_graph_holds_transposed_is_the_same(tiny, tmp_path):
    """A layer that is applied to each row is a product in the graph."""
    folder = trained(tiny, nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Flatten(), nn.Linear(32, 10)), tmp_path / "own")
    assert failed(folder.path, samples=3) == []
    assert "4 of 4 tensors of weights.safetensors are in the graph" in said_of(folder, "weights.safetensors")


def test_a_recipe_that_is_rewritten_does_not_hide_exchanged_weights(own, run, zipped, tmp_path):
    """The recipe says that the network is a module of somebody's own, so that it is read from network.onnx."""
    shutil.unpack_archive(zipped, tmp_path / "unpacked")
    shutil.copy(tmp_path / "unpacked" / "network.onnx", run.exported)
    recipe = jsonl.read_json(own.recipe)
    given = recipe["network"]
    rewritten = {name: recipe[name] for name in ("network", "initialization", "shi")}
    jsonl.write_json(run.recipe, jsonl.read_json(run.recipe) | rewritten)
    tensors, about = tensor_files.read(run.weights)
    about = {"blueprint": json.dumps(json.loads(about["blueprint"]) | {"network": given})}
    run.weights.write_bytes(safetensors.torch.save(tensors, metadata=about))
    assert failed(run.path) == []
    with_noise(run)
    assert any("is another than that of network.onnx" in line for line in failed(run.path))

"""The network of a run that is checked: its weights, and its form as ONNX."""

from __future__ import annotations

from pathlib import Path

import torch
from onnx.numpy_helper import to_array
from torch import Tensor, nn

from ctbench.graph.precisions import doubled
from ctbench.networks import Given
from ctbench.onnx import load_onnx
from ctbench.onnx.files import read_model
from ctbench.packs.claims import ClaimError
from ctbench.results import RunFolder
from ctbench.training import Run, load_run, tensor_files
from ctbench.training.checkpoints import blueprint_of

CLOSE = 1e-4  # of the largest logit: an ONNX file holds single precision, and merges normalisations


def load(folder: RunFolder) -> Run:
    """The run of a folder, after a look at the size of its network: a blueprint could ask for any memory.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the weights are not those of the recipe's network.
    """
    folder.require()
    if folder.weights.is_file():
        blueprint = blueprint_of(folder.weights)
        if not isinstance(blueprint.network, Given):
            with torch.device("meta"):
                network = blueprint.network.build(blueprint.input_shape, blueprint.classes)
            wanted = sum(parameter.numel() for parameter in network.parameters())
            there = sum(tensor.numel() for tensor in tensor_files.read(folder.weights)[0].values())
            if wanted > there:
                raise ClaimError(f"{folder.weights.name} holds {there} numbers, but its network has {wanted} weights")
    return load_run(folder.path)


def weights_of(run: Run) -> str:
    """What is known of the weights of a run that was loaded.

    The module of a run of a module of one's own is not in the folder: its network is then the exported graph.

    Raises:
        ClaimError: the weights file and the exported graph have different tensors of one name.
    """
    count = sum(parameter.numel() for parameter in run.model.parameters())
    if not is_exported(run):
        return f"{count} weights of the network of the recipe, {run.recipe.network.name}"
    path, exported = run.folder.weights, run.folder.exported
    weights = {name: tensor for name, tensor in tensor_files.read(path)[0].items() if tensor.is_floating_point()}
    constants = _constants(exported)
    found = {name for name, tensor in weights.items() if any(_same(tensor, each) for each in constants.values())}
    for name in sorted(weights.keys() & constants.keys() - found):
        raise ClaimError(f"its {name} is another than that of {exported.name}, which is the network of the records")
    network = f"the network is {exported.name}, because the module is not in the run"
    if not found:
        return f"{network}; {path.name} was not compared: none of its {len(weights)} tensors is in the graph as it is"
    own = sum(not any(_same(tensor, each) for tensor in weights.values()) for each in constants.values())
    return (
        f"{network}; {len(found)} of {len(weights)} tensors of {path.name} are in the graph, which has {own} others; "
        f"other tensors, and what the graph computes with them, were not compared"
    )


def is_exported(run: Run) -> bool:
    """Whether the network of a run is its exported graph."""
    return isinstance(run.recipe.network, Given)


def _constants(path: Path) -> dict[str, Tensor]:
    """The tensors of floating point numbers that the nodes of an ONNX file read, by name."""
    graph = read_model(path).graph
    read = {name for node in graph.node for name in node.input}
    arrays = {each.name: to_array(each) for each in graph.initializer if each.name in read}
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items() if array.dtype.kind == "f"}


def _same(tensor: Tensor, constant: Tensor) -> bool:
    """Whether a constant is a tensor in its precision, possibly transposed: products take matrices that way."""
    stored = tensor.to(constant.dtype)
    return torch.equal(stored, constant) or (stored.dim() == 2 and torch.equal(stored.T, constant))


def same_as_onnx(path: Path, model: nn.Module, x: Tensor) -> str:
    """Whether an ONNX file gives the outputs of a network on inputs [B, *shape].

    Raises:
        ClaimError: it does not.
        OnnxError: the file cannot be read.
    """
    exported = load_onnx(path)
    if exported.input_shape != tuple(x.shape[1:]):
        raise ClaimError(f"it takes inputs of shape {exported.input_shape}, the data have {tuple(x.shape[1:])}")
    with torch.no_grad():
        ours = doubled(model)(x.double())
        theirs = doubled(exported)(x.double()).reshape(ours.shape)
    scale = ours.abs().max().clamp(min=1.0)
    apart = (ours - theirs).abs().max() / scale
    if not bool(apart <= CLOSE):
        raise ClaimError(
            f"it is another network: on {len(x)} test images its logits differ from those of the weights by "
            f"{apart * scale:.3g}"
        )
    return f"gives the logits of the weights on {len(x)} test images"

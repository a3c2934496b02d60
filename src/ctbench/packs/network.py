"""The network of a run that is checked: its weights, and the same network as ONNX."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ctbench.graph.precisions import doubled
from ctbench.networks import Given
from ctbench.onnx import load_onnx
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

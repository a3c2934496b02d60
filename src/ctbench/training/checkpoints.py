"""Weights and training states as safetensors files: never pickles, never half-written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import safetensors.torch
import torch
from torch import Tensor, nn

from ctbench import devices, zoo
from ctbench.files import write_whole
from ctbench.graph import unwrapped
from ctbench.results.jsonl import named
from ctbench.training import codec, tensor_files
from ctbench.training.blueprint import Blueprint
from ctbench.training.matching import Matching, check_finite, differences, matched


@dataclass(frozen=True, eq=False)
class Best:
    """The best epoch so far, by its accuracy on the images that select it."""

    epoch: int
    accuracy: float
    model: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class State:
    """Everything that a run needs to continue after a whole epoch; randomness is a function of seed and epoch."""

    epochs_done: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]  # e.g. "3.exp_avg", a tensor of the optimiser for parameter 3
    made_of: str  # a hash of the recipe and of the training images
    average: dict[str, Tensor] = field(default_factory=dict)  # of the parameters, if they are averaged
    best: Best | None = None


def save_network(model: nn.Module, blueprint: Blueprint, path: Path) -> None:
    """Write the weights of a network, with its blueprint as metadata."""
    about = {"blueprint": json.dumps(codec.encode(blueprint))}
    write_whole(path, safetensors.torch.save(_contiguous(unwrapped(model).state_dict()), metadata=about))


def blueprint_of(path: Path | str) -> Blueprint:
    """The blueprint of the network of a weights file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or has no blueprint because `save_network` did not write it.
    """
    pickled = Path(path).suffix in tensor_files.PICKLED and Path(path).is_file()
    about = {} if pickled else tensor_files.read(Path(path))[1]
    if "blueprint" not in about:
        raise ValueError(
            f"{path} does not say which network it is for: give the folder of its run, or name the network (--network)"
        )
    return codec.decode(Blueprint, json.loads(about["blueprint"]))


def load_network(path: Path | str, *, device: str | torch.device = "cpu") -> nn.Module:
    """The network of a weights file that `save_network` wrote, or of "zoo:NAME" (see `ctbench.zoo`), in eval mode.

    Args:
        path: the file, or "zoo:NAME".
        device: where the network is to be.

    Raises the errors of `blueprint_of` and `load_weights`, and ValueError if torch cannot compute on the device.
    """
    place = devices.available(device)
    if zoo.is_entry(path):
        path = zoo.located(path) / "weights.safetensors"
    model = blueprint_of(path).build()
    load_exactly(model, Path(path))
    return model.eval().to(place)


def load_exactly(model: nn.Module, path: Path) -> None:
    """Load the weights of a safetensors file that has exactly the names and shapes of a network.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds the weights of another network; the message says how they differ.
    """
    _fit(model, tensor_files.read(path)[0], path)


def load_weights(model: nn.Module, path: Path | str) -> Matching:
    """Load the weights of a file into a network: safetensors, or a state dict that `torch.save` wrote, also inside a
    checkpoint.

    Names decide; where they differ, layers are matched by shape and order (see `ctbench.training.matching`). A module
    in `DataParallel` or `torch.compile` is unwrapped.

    Returns:
        Which tensor of the file became which tensor of the network.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is a pickle of more than tensors, or holds the weights of another network, or
            weights that can be matched in several ways; says how they differ.
    """
    path, model = Path(path), unwrapped(model)
    tensors = tensor_files.read_state_dict(path)
    try:
        state, matching = matched(tensors, model.state_dict())
    except ValueError as error:
        raise ValueError(f"{path} holds the weights of another network: {error}") from None
    _load(model, state, path)
    return matching


def _fit(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors whose names and shapes are exactly those of a network."""
    if different := differences(tensors, model.state_dict()):
        raise ValueError(f"{path} holds the weights of another network: {different}")
    _load(model, tensors, path)


def _load(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    with named(path):
        check_finite(tensors)
    model.load_state_dict(dict(tensors))


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs_done: int,
    made_of: str,
    *,
    average: Mapping[str, Tensor] = MappingProxyType({}),
    best: Best | None = None,
) -> None:
    """Write everything that a run needs to continue."""
    tensors = {
        f"optimizer/{index}.{key}": value
        for index, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
    }
    tensors |= {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    about = {"epochs_done": json.dumps(epochs_done), "made_of": made_of}
    if best:
        tensors |= {f"best/{name}": value for name, value in best.model.items()}
        about["best"] = json.dumps({"epoch": best.epoch, "accuracy": best.accuracy})
    write_whole(path, safetensors.torch.save(_contiguous(tensors), metadata=about))


def load_state(path: Path) -> State:
    """The state of a run in a file. Raises ValueError if the file is damaged."""
    tensors, about = tensor_files.read(path)
    try:
        epochs_done, made_of = int(about["epochs_done"]), about["made_of"]
    except (KeyError, ValueError):
        raise ValueError(f"{path} is not the state of a run") from None
    parts = {part: _under(f"{part}/", tensors) for part in ("model", "optimizer", "average", "best")}
    best = Best(**json.loads(about["best"]), model=parts["best"]) if "best" in about else None
    return State(epochs_done, parts["model"], parts["optimizer"], made_of, parts["average"], best)


def epochs_done(path: Path) -> int:
    """The number of whole epochs after which a state was written; its tensors are not read.

    Raises:
        ValueError: the file is damaged, or is not the state of a run.
    """
    about = tensor_files.metadata(path)
    if not about.get("epochs_done", "").isdecimal():
        raise ValueError(f"{path} is not the state of a run")
    return int(about["epochs_done"])


def restore(state: State, model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Load a state into a network and its optimiser."""
    _fit(model, state.model, path)
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in state.optimizer.items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

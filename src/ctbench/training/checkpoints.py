"""Weights and training states as safetensors files: never pickles, never half-written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ctbench.files import write_whole
from ctbench.training import codec
from ctbench.training.blueprint import Blueprint


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
    write_whole(path, safetensors.torch.save(_contiguous(model.state_dict()), metadata=about))


def blueprint_of(path: Path | str) -> Blueprint:
    """The blueprint of the network of a weights file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or has no blueprint because `save_network` did not write it.
    """
    _, about = _read(Path(path))
    if "blueprint" not in about:
        raise ValueError(
            f"{path} does not say which network it is for: give the folder of its run, or name the network (--network)"
        )
    return codec.decode(Blueprint, json.loads(about["blueprint"]))


def load_network(path: Path | str) -> nn.Module:
    """The network of a weights file that `save_network` wrote, in eval mode.

    Raises the errors of `blueprint_of` and `load_weights`.
    """
    model = blueprint_of(path).build()
    load_weights(model, path)
    return model.eval()


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Load weights into a network that has exactly these parameters and buffers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds the weights of another network; the message says how they differ.
    """
    tensors, _ = _read(Path(path))
    _fit(model, tensors, Path(path))


def _fit(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    differing = [
        f"{name} is {list(tensors[name].shape)}, the network's is {list(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if expected[name].shape != tensors[name].shape
    ]
    problems = [
        f"it lacks {', '.join(missing[:3])}{' ...' * (len(missing) > 3)}" if missing else "",
        f"it has {', '.join(unexpected[:3])}{' ...' * (len(unexpected) > 3)} too many" if unexpected else "",
        *sorted(differing)[:2],
    ]
    if any(problems):
        raise ValueError(f"{path} holds the weights of another network: {'; '.join(p for p in problems if p)}")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{path}: {name} holds NaN or infinite values")
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
    tensors, about = _read(path)
    try:
        epochs_done, made_of = int(about["epochs_done"]), about["made_of"]
    except (KeyError, ValueError):
        raise ValueError(f"{path} is not the state of a run") from None
    parts = {part: _under(f"{part}/", tensors) for part in ("model", "optimizer", "average", "best")}
    best = Best(**json.loads(about["best"]), model=parts["best"]) if "best" in about else None
    return State(epochs_done, parts["model"], parts["optimizer"], made_of, parts["average"], best)


def restore(state: State, model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Load a state into a network and its optimiser."""
    _fit(model, state.model, path)
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in state.optimizer.items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = file.keys()  # the handle itself cannot be iterated over
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error})") from None


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

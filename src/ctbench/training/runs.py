"""Training: from a recipe to a run folder.

    run = train(recipe)             # trains; with resume=True it continues, or loads a run that is complete
    run.model                       # the network, ready to use
    run = load_run("runs/...")      # the same network, later

A run is a function of its recipe on one device: the randomness of an epoch comes from the seed and the epoch's
number. So a run that was killed and resumed ends in the same weights, bit by bit, as one that was not.

Several processes may train a run together (`processes`). They take the same batches as one process, and end in the
same weights, with three exceptions: rounding; terms that are not a mean over samples, where each share of a batch
counts as a part (as with `accumulate`); and random draws of the method, which each process makes by itself. A single
process draws for its method and for its augmentations from one stream. So where batches are augmented and the method
draws, the batches also differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ctbench.files import UNFINISHED
from ctbench.results import RunFolder, jsonl
from ctbench.training import checkpoints
from ctbench.training.blueprint import Blueprint
from ctbench.training.execution import algorithms
from ctbench.training.processes import ALONE, Processes
from ctbench.training.recipe import Recipe
from ctbench.training.trainer import Trainer, Watch
from ctbench.training.versions import versions


@dataclass(frozen=True, eq=False)
class Run:
    """A trained network, its recipe and the folder that holds it."""

    recipe: Recipe
    model: nn.Module
    folder: RunFolder


def train(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    data: str | Path | None = None,
    device: str | torch.device = "cpu",
    quiet: bool = False,
    compiled: bool = False,
    deterministic: bool = False,
    tensorboard: bool = False,
    processes: Processes = ALONE,
    watch: Watch | None = None,
) -> Run:
    """Train a network by a recipe.

    Args:
        recipe: the network, its data, and how to train it.
        out: the run folder; None is "runs/NAME-HASH" in the working directory.
        resume: continue the run in the folder; a complete run is loaded.
        data: the folder with the data sets; None is the variable CTBENCH_DATA, or else the user's cache.
        device: where to train, e.g. "cpu" or "cuda".
        quiet: show no progress.
        compiled: compile the method, where that works. It is not a field of the recipe, as it changes only rounding.
        deterministic: let torch take only deterministic algorithms; RuntimeError where an operation has none.
        tensorboard: also write each epoch's metrics to the folder "tensorboard" of the run.
        processes: the processes that train this run together. Each makes this call; the first one writes the files.
        watch: called after each epoch with its number, counted from 1, and the network in eval mode.

    Raises:
        ValueError: the folder holds the run of another recipe, or a run of this one and `resume` is False; a field of
            the recipe does not fit the data; or TensorBoard is not installed.
        TrainingDivergedError: the loss or its gradient became NaN or infinite; the message says where. It is raised at
            the end of that epoch, in which no later step was taken. The state after the last whole epoch stays.
    """
    if not isinstance(recipe, Recipe):
        raise ValueError(f"the recipe is {recipe!r}: give a Recipe, e.g. ctbench.recipe(name)")
    device = torch.device(device)
    folder = RunFolder(Path(out) if out is not None else Path("runs") / f"{recipe.name}-{recipe.hash}")
    _check_folder(folder, recipe, resume)
    if folder.weights.exists():
        return load_run(folder.path, device=device)
    with processes.first_goes_first():
        loaded = recipe.dataset.load(None if data is None else Path(data))
    blueprint = Blueprint.of(recipe.network, loaded, normalize=recipe.normalize)
    model = blueprint.build(initialization=recipe.initialization, seed=recipe.seed).to(device)
    with algorithms(deterministic=deterministic):
        trainer = Trainer(recipe, folder, model, loaded, device, compiled=compiled, processes=processes)
    processes.wait()  # until each process has seen the folder as it was
    if processes.first:
        folder.path.mkdir(parents=True, exist_ok=True)
        jsonl.write_json(folder.recipe, recipe.to_json())
        _note_versions(folder, versions(device) | trainer.ways)
    with algorithms(deterministic=deterministic):
        trainer.run(quiet=quiet, tensorboard=tensorboard, watch=watch)
    if processes.first:
        checkpoints.save_network(model, blueprint, folder.weights)
    processes.wait()
    return Run(recipe, model.eval(), folder)


def load_run(path: str | Path, *, device: str | torch.device = "cpu") -> Run:
    """The trained network of a run folder, in eval mode.

    Raises:
        FileNotFoundError: there is no run, or it is not complete.
        ValueError: a file in the folder is damaged, or the weights belong to another network.
    """
    folder = RunFolder(Path(path))
    folder.require()
    recipe = Recipe.read(folder.recipe)
    if not folder.weights.exists():
        raise FileNotFoundError(f"the run {folder.path} is not complete: finish it with resume")
    network = checkpoints.blueprint_of(folder.weights).network
    if network != recipe.network:
        raise ValueError(
            f"{folder.weights} holds the weights of another network: {network}, the recipe's is {recipe.network}"
        )
    return Run(recipe, checkpoints.load_network(folder.weights).to(device), folder)


def _check_folder(folder: RunFolder, recipe: Recipe, resume: bool) -> None:
    """Raise ValueError unless the folder is free, or `resume` is True and it holds this recipe's run."""
    if not folder.recipe.exists():
        if folder.path.exists() and any(file.suffix != UNFINISHED for file in folder.path.iterdir()):
            raise ValueError(f"{folder.path} holds other files: choose an empty or a new folder")
        return
    if folder.versions.exists() and not (folder.state.exists() or folder.weights.exists()):
        return  # a run began and completed no epoch: it does not claim its folder
    other = Recipe.read(folder.recipe)
    if other.hash != recipe.hash:
        raise ValueError(
            f"{folder.path} holds the run of another recipe ({other.name}, {other.hash}; this one is "
            f"{recipe.name}, {recipe.hash}): choose another folder"
        )
    if folder.versions.exists() and not resume:
        raise ValueError(
            f"{folder.path} already holds this run: resume it (--resume), or choose another folder (--out)"
        )


def _note_versions(folder: RunFolder, now: dict[str, str | int | None]) -> None:
    """Write the versions that a run began with; if it continues with others, also those, as "resumed_with"."""
    before = jsonl.read_json(folder.versions) if folder.versions.exists() and folder.state.exists() else now
    first = {key: value for key, value in before.items() if key != "resumed_with"}
    jsonl.write_json(folder.versions, first if first == now else {**first, "resumed_with": now})

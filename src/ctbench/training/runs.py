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

import copy
import shlex
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ctbench import devices, zoo
from ctbench.datasets import Data, GivenData
from ctbench.files import UNFINISHED
from ctbench.graph import UnsupportedLayerError, unwrapped
from ctbench.networks import Architecture, Given
from ctbench.onnx import load_onnx, save_onnx
from ctbench.results import RunFolder, jsonl, locks
from ctbench.results.decimals import decimals
from ctbench.training import checkpoints, tensor_files
from ctbench.training.blueprint import Blueprint
from ctbench.training.execution import algorithms
from ctbench.training.own_modules import own_modules, recipe_of
from ctbench.training.processes import ALONE, Processes
from ctbench.training.recipe import Recipe
from ctbench.training.trainer import OnEpoch, Trainer
from ctbench.training.versions import versions

DAMAGED = ".damaged"  # the suffix of weights that could not be read, and were restored


@dataclass(frozen=True, eq=False)
class Run:
    """A trained network, its recipe and the folder that holds it."""

    recipe: Recipe
    model: nn.Module
    folder: RunFolder
    source: Data | str | Path | None = None  # the data, or the folder of the data sets; None is the usual one

    def load_data(self) -> Data:
        """The training and test data. Raises ValueError if they were given in memory, and are not given again."""
        return _loaded_data(self.recipe, self.source)

    def __repr__(self) -> str:
        recipe = self.recipe
        return (
            f"<Run {recipe.name} in {self.folder.path}: {type(self.model).__name__}, {recipe.method.name}, "
            f"{recipe.threat.name} eps {decimals(recipe.threat.eps)}, {recipe.epochs} epochs>"
        )


def train(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    model: nn.Module | None = None,
    data: Data | str | Path | None = None,
    device: str | torch.device = "cpu",
    quiet: bool = False,
    compiled: bool = False,
    deterministic: bool = False,
    tensorboard: bool = False,
    processes: Processes = ALONE,
    on_epoch: OnEpoch | None = None,
) -> Run:
    """Train a network by a recipe.

    Args:
        recipe: the network, its data, and how to train it.
        out: the run folder; None is "runs/NAME-HASH" in the working directory.
        resume: continue the run in the folder; a complete run is loaded. Damaged weights are restored from its state.
        model: a module of your own in place of the recipe's network, normalisation inside. A copy of it is trained,
            from the weights that it has. The recipe of the run then records its class, its source and these weights.
        data: data of your own in place of the recipe's (`ctbench.datasets.Data.of`), of which the recipe of the run
            records a digest; or the folder with the data sets; None is the CTBENCH_DATA variable, else the user's
            cache.
        device: where to train, e.g. "cpu" or "cuda".
        quiet: show no progress.
        compiled: compile the method, where that works. It is not a field of the recipe, as it changes only rounding.
        deterministic: let torch take only deterministic algorithms; RuntimeError where an operation has none.
        tensorboard: also write each epoch's metrics to the folder "tensorboard" of the run.
        processes: the processes that train this run together. Each makes this call; the first one writes the files.
        on_epoch: called after each epoch with its metrics, as in metrics.jsonl ("epoch" counts from 1), and the network
            in eval mode.

    Raises:
        ValueError: torch cannot compute on the device; the folder holds the run of another recipe, or a run of this one
            and `resume` is False; another process trains there; a field of the recipe, or the module, does not fit the
            data; or TensorBoard is not installed.
        TrainingDivergedError: the loss or its gradient became NaN or infinite; the message says where. It is raised at
            the end of that epoch, in which no later step was taken. The state after the last whole epoch stays.
    """
    if not isinstance(recipe, Recipe):
        raise ValueError(f"the recipe is {recipe!r}: give a Recipe, e.g. ctbench.recipe(name)")
    if model is not None:
        model = _copied(model)
        recipe = replace(recipe, network=Given.of(model), initialization="given")
    if isinstance(data, Data):
        recipe = replace(recipe, dataset=GivenData.of(data, recipe.dataset.augmentation))
    elif not isinstance(data, str | Path | None):
        raise ValueError(f"data is a {type(data).__name__}: give ctbench.datasets.Data.of(...), or a folder")
    device = devices.available(device)
    folder = RunFolder(Path(out) if out is not None else default_folder(recipe))
    check_folder(folder, recipe, resume=resume)
    if processes.first:
        _set_damaged_weights_aside(folder)
    processes.wait()
    if folder.weights.exists():
        return load_run(folder.path, model=model, data=data, device=device)
    with processes.first_goes_first():
        loaded = _loaded_data(recipe, data)
    blueprint = Blueprint.of(recipe.network, loaded, normalize=recipe.normalize)
    if model is None:
        model = blueprint.build(initialization=recipe.initialization, seed=recipe.seed)
    model = model.to(device)
    with algorithms(deterministic=deterministic):
        trainer = Trainer(recipe, folder, model, loaded, device, compiled=compiled, processes=processes)
    with locks.alone(folder.lock, folder.path) if processes.first else nullcontext():
        check_folder(folder, recipe, resume=resume)  # another process may have trained here in the meantime
        if folder.weights.exists():
            return load_run(folder.path, model=model, data=data, device=device)
        processes.wait()  # until each process has seen the folder as it was
        if processes.first:
            jsonl.write_json(folder.recipe, recipe.to_json())
            modules = own_modules(recipe)
            _note_versions(folder, versions(device) | trainer.ways | ({"modules": modules} if modules else {}))
        with algorithms(deterministic=deterministic):
            trainer.run(quiet=quiet, tensorboard=tensorboard, on_epoch=on_epoch)
        if processes.first:
            if isinstance(recipe.network, Given):
                _export(model, folder, loaded.input_shape)
            checkpoints.save_network(model, blueprint, folder.weights)
        processes.wait()
    return Run(recipe, model.eval(), folder, data)


def default_folder(recipe: Recipe) -> Path:
    """The run folder of a recipe, below the working directory, if no other is named."""
    return Path("runs") / f"{recipe.name}-{recipe.hash}"


def _loaded_data(recipe: Recipe, data: Data | str | Path | None) -> Data:
    """The data of a recipe: those given, or those of its data set in a folder."""
    if isinstance(data, Data):
        return recipe.dataset.recognized(data) if isinstance(recipe.dataset, GivenData) else recipe.dataset.cut(data)
    return recipe.dataset.load(None if data is None else Path(data))


def _copied(model: nn.Module) -> nn.Module:
    """A copy of a module of your own, which training changes. Raises ValueError if it cannot be trained."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}: give a torch.nn.Module")
    kinds = {tensor.dtype for tensor in model.parameters()} - {torch.float32}
    if kinds:
        raise ValueError(f"the parameters are {', '.join(map(str, kinds))}: training takes float32, model.float()")
    if not any(tensor.requires_grad for tensor in model.parameters()):
        raise ValueError(
            "no parameter of the model requires a gradient, so nothing can be trained: model.requires_grad_()"
        )
    return copy.deepcopy(unwrapped(model))


def _export(model: nn.Module, folder: RunFolder, input_shape: tuple[int, ...]) -> None:
    """Write a module of your own as a graph, so that its run can be certified without its code, if all its ops can."""
    try:
        save_onnx(model, folder.exported, input_shape)
    except UnsupportedLayerError as error:
        warnings.warn(f"{folder.exported} is not written, so load_run needs the module again: {error}", stacklevel=4)


def load_run(
    path: str | Path,
    *,
    model: nn.Module | None = None,
    data: Data | str | Path | None = None,
    device: str | torch.device = "cpu",
) -> Run:
    """The trained network of a run folder, in eval mode.

    Args:
        path: the run folder, or "zoo:NAME" (see `ctbench.zoo`).
        model: for a run of a module of your own, the module; a copy of it gets the trained weights. None is the graph
            that training has exported (network.onnx), in which batch norms are scales.
        data: for a run of data of your own, the data, which are recognised by their digest; or the folder with the data
            sets; None is the CTBENCH_DATA variable, else the user's cache.
        device: where the network is to be.

    Raises:
        FileNotFoundError: there is no run, or it is not complete.
        ValueError: torch cannot compute on the device; a file in the folder is damaged, the weights belong to another
            network, or the module is needed; or the recipe has a class (except a method) of a module that is not
            imported.

    Warns:
        UserWarning: the source of the module is not that of the training.
    """
    device = devices.available(device)
    folder = RunFolder(zoo.located(path))
    folder.require()
    recipe = recipe_of(folder)
    if not folder.weights.exists():
        raise FileNotFoundError(f"the run {folder.path} is not complete: {_finishing(folder)} finishes it")
    try:
        network = checkpoints.blueprint_of(folder.weights).network
    except ValueError as error:
        hint = f"; {_finishing(folder)} restores it from {folder.state.name}" if folder.state.exists() else ""
        raise ValueError(f"{error}{hint}") from None
    if network != recipe.network:
        raise ValueError(
            f"{folder.weights} holds the weights of another network: {network}, the recipe's is {recipe.network}"
        )
    if isinstance(data, Data):
        if not isinstance(recipe.dataset, GivenData):
            raise ValueError(
                f"{folder.path} has the data {recipe.dataset.name!r}, not data of your own: leave them out"
            )
        recipe.dataset.recognized(data)
    return Run(recipe, _loaded(folder, network, model).eval().to(device), folder, data)


def _loaded(folder: RunFolder, network: Architecture, model: nn.Module | None) -> nn.Module:
    """The network of a complete run, with its weights."""
    if not isinstance(network, Given):
        if model is not None:
            raise ValueError(f"{folder.path} has the network {network.name!r}, no module of your own: leave it out")
        return checkpoints.load_network(folder.weights)
    if model is None:
        return load_onnx(folder.exported) if folder.exported.is_file() else checkpoints.load_network(folder.weights)
    model = _copied(model)
    if not network.same_source(model):
        warnings.warn(f"{network.module} has another source than when {folder.path} was trained", stacklevel=3)
    checkpoints.load_exactly(model, folder.weights)
    return model


def _finishing(folder: RunFolder) -> str:
    """The command that continues a run."""
    recipe = recipe_of(folder)
    own = " --model MODULE:FUNCTION" if isinstance(recipe.network, Given) else ""
    own += " --data-from MODULE:FUNCTION" if isinstance(recipe.dataset, GivenData) else ""
    return f"ctbench train {shlex.quote(str(folder.recipe))} --out {shlex.quote(str(folder.path))} --resume{own}"


def _set_damaged_weights_aside(folder: RunFolder) -> None:
    """If the weights of a complete run cannot be read, rename them: the run goes on from its state, and writes them.

    Raises:
        ValueError: they are damaged, and there is no state.
    """
    if not folder.weights.exists():
        return
    try:
        tensor_files.read(folder.weights)
    except ValueError:
        if not folder.state.exists():
            raise
        aside = folder.weights.with_name(f"{folder.weights.name}{DAMAGED}")
        folder.weights.replace(aside)
        warnings.warn(f"{folder.weights} was damaged: it is restored from {folder.state.name}", stacklevel=3)


def check_folder(folder: RunFolder, recipe: Recipe, *, resume: bool) -> None:
    """Raise ValueError unless the folder is free, or `resume` is True and it holds this recipe's run."""
    if not folder.recipe.exists():
        if folder.path.exists() and any(not _passing(file, folder) for file in folder.path.iterdir()):
            raise ValueError(f"{folder.path} holds other files: choose an empty or a new folder")
        return
    if folder.versions.exists() and not (folder.state.exists() or folder.weights.exists()):
        return  # a run began and completed no epoch: it does not claim its folder
    other = Recipe.read(folder.recipe)
    if other.hash != recipe.hash:
        raise ValueError(
            f"{folder.path} holds the run of another recipe ({other.name}, {other.hash}; this one is "
            f"{recipe.name}, {recipe.hash}; {_different(recipe, other)}): choose another folder"
        )
    if folder.versions.exists() and not resume:
        raise ValueError(
            f"{folder.path} already holds this run: resume it (--resume), or choose another folder (--out)"
        )


def _different(recipe: Recipe, other: Recipe) -> str:
    """In what recipes differ, and what to do about weights at the start that are others each time."""
    paths = recipe.differences(other)
    said = f"{', '.join(paths)} {'differs' if len(paths) == 1 else 'differ'}"
    if paths == ["network.weights"]:
        said += ", those at the start: build the module with the same weights, e.g. after torch.manual_seed(0)"
    return said


def _passing(file: Path, folder: RunFolder) -> bool:
    """Whether a file says nothing of a run: the lock, or what a process that died was writing."""
    return file == folder.lock or file.suffix in (UNFINISHED, DAMAGED)


def _note_versions(folder: RunFolder, now: dict[str, Any]) -> None:
    """Write the versions that a run began with; if it continues with others, also those, as "resumed_with"."""
    before = jsonl.read_json(folder.versions) if folder.versions.exists() and folder.state.exists() else now
    first = {key: value for key, value in before.items() if key != "resumed_with"}
    jsonl.write_json(folder.versions, first if first == now else {**first, "resumed_with": now})

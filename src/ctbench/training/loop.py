"""Training: from a recipe to a run folder.

    run = train(recipe)             # trains, or goes on, or finds the run complete
    run.model                       # the network, ready to use
    run = load_run("runs/...")      # the same, later

A run is a function of its recipe on one device: the randomness of an epoch comes from the seed and the epoch's
number, so a run that was killed and resumed ends in the same weights, bit by bit, as one that was not.

Several processes may train it together (`processes`): they take the same batches as one would, and end in the same
weights but for rounding, for what is no mean over samples (each share is then a part, as with `accumulate`), and for
random draws of the method, which each process makes by itself. Where batches are augmented, one process alone draws
for its method and for its augmentations from one stream; so these differ, too, if the method draws.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ctbench.datasets import Data, Examples, split
from ctbench.graph import Graph, folded, freeze, trace
from ctbench.methods.base import Batch
from ctbench.precision import products
from ctbench.regions import Region
from ctbench.results import RunFolder, jsonl
from ctbench.training import checkpoints
from ctbench.training.averaging import averaged, precise_batch_norm
from ctbench.training.blueprint import Blueprint
from ctbench.training.board import board
from ctbench.training.checkpoints import Best
from ctbench.training.execution import PLAIN, Execution, algorithms, at_least_float32
from ctbench.training.monitoring import Finite, Means
from ctbench.training.objective import backward
from ctbench.training.placing import placed
from ctbench.training.processes import ALONE, Processes
from ctbench.training.progress import Display, display
from ctbench.training.recipe import Moment, Recipe
from ctbench.training.versions import versions

Watch = Callable[[int, nn.Module], None]
SHOWN_EVERY = 1.0  # seconds between two looks at the metrics of an epoch that goes on: each waits for the device


class TrainingDivergedError(ArithmeticError):
    """The loss or its gradient is no longer a number."""


@dataclass(frozen=True, eq=False)
class Run:
    """A trained network with the recipe that made it and the folder that holds it."""

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
        recipe: what to train, on what and how.
        out: the run folder; None is "runs/NAME-HASH" in the working directory.
        resume: go on with the run that is in the folder; a complete one is returned as it is.
        data: where data sets lie; None is the CTBENCH_DATA variable, else the user's cache.
        device: where to train, as "cpu" or "cuda".
        quiet: show no progress.
        compiled: compile the method, where that works; no field of the recipe, as it changes no more than rounding.
        deterministic: let torch take deterministic algorithms alone, where a device has others, too; RuntimeError where
            there is none.
        tensorboard: write each epoch's metrics to the folder "tensorboard" of the run, too.
        processes: those that train this run together, each of which makes this call; the first one writes the files.
        watch: called after each epoch with its number, from 1 on, and the network as at test time.

    Raises:
        ValueError: the folder holds the run of another recipe, or one that is not to be resumed; a field of the recipe
            does not fit the data; or TensorBoard is not installed.
        TrainingDivergedError: the loss or its gradient became NaN or infinite; says where. It is raised at the end of
            that epoch, in which no step was taken from there on. The state after the last whole epoch stays.
    """
    if not isinstance(recipe, Recipe):
        raise ValueError(f"the recipe is {recipe!r}: give a Recipe, as ctbench.recipe(name) does")
    device = torch.device(device)
    folder = RunFolder(Path(out) if out is not None else Path("runs") / f"{recipe.name}-{recipe.hash}")
    _check_folder(folder, recipe, resume)
    if folder.weights.exists():
        return load_run(folder.path, device=device)
    with processes.first_goes_first():
        loaded = recipe.dataset.load(None if data is None else Path(data))
    blueprint = Blueprint.of(recipe.network, loaded)
    model = blueprint.build(initialization=recipe.initialization, seed=recipe.seed).to(device)
    with algorithms(deterministic=deterministic):
        training = Training(recipe, folder, model, loaded, device, compiled=compiled, processes=processes)
    processes.wait()  # until each has seen the folder as it was
    if processes.first:
        folder.path.mkdir(parents=True, exist_ok=True)
        jsonl.write_json(folder.recipe, recipe.to_json())
        _note_versions(folder, versions(device) | training.ways)
    with algorithms(deterministic=deterministic):
        training.run(quiet=quiet, tensorboard=tensorboard, watch=watch)
    if processes.first:
        checkpoints.save_network(model, blueprint, folder.weights)
    processes.wait()
    return Run(recipe, model.eval(), folder)


def load_run(path: str | Path, *, device: str | torch.device = "cpu") -> Run:
    """The trained network of a run folder, in eval mode.

    Raises:
        FileNotFoundError: there is no run, or it is not complete.
        ValueError: a file in it is damaged, or the weights are those of another network.
    """
    folder = RunFolder(Path(path))
    folder.require()
    recipe = Recipe.read(folder.recipe)
    if not folder.weights.exists():
        raise FileNotFoundError(f"the run {folder.path} is not complete: train it on with resume")
    found = checkpoints.blueprint_of(folder.weights).network
    if found != recipe.network:
        raise ValueError(
            f"{folder.weights} holds the weights of another network: {found}, the recipe's is {recipe.network}"
        )
    return Run(recipe, checkpoints.load_network(folder.weights).to(device), folder)


def _check_folder(folder: RunFolder, recipe: Recipe, resume: bool) -> None:
    """Raise ValueError unless the folder is free, or holds this recipe's run and that is to be resumed."""
    if not folder.recipe.exists():
        if folder.path.exists() and any(file.suffix != jsonl.UNFINISHED for file in folder.path.iterdir()):
            raise ValueError(f"{folder.path} holds other files: choose an empty or a new folder")
        return
    if folder.versions.exists() and not (folder.state.exists() or folder.weights.exists()):
        return  # a run was begun and no epoch trained: it does not claim its folder
    found = Recipe.read(folder.recipe)
    if found.hash != recipe.hash:
        raise ValueError(
            f"{folder.path} holds the run of another recipe ({found.name}, {found.hash}; this one is "
            f"{recipe.name}, {recipe.hash}): choose another folder"
        )
    if folder.versions.exists() and not resume:
        raise ValueError(
            f"{folder.path} holds this run already: resume it (--resume), or choose another folder (--out)"
        )


def _note_versions(folder: RunFolder, now: dict[str, str | int | None]) -> None:
    """Write what the run is made with; where a run goes on with something else, both are told."""
    before = jsonl.read_json(folder.versions) if folder.versions.exists() and folder.state.exists() else now
    told = {key: value for key, value in before.items() if key != "resumed_with"}
    jsonl.write_json(folder.versions, told if told == now else {**told, "resumed_with": now})


def _digest(examples: Examples) -> str:
    """What a set of examples is known by."""
    found = hashlib.sha256(examples.labels.cpu().numpy().tobytes())
    found.update(examples.inputs.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


class Training:
    """One run: its data on the device, and the network and optimiser that its steps change."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        model: nn.Module,
        data: Data,
        device: torch.device,
        *,
        compiled: bool = False,
        processes: Processes = ALONE,
    ) -> None:
        self.recipe, self.folder, self.model, self.device, self.processes = recipe, folder, model, device, processes
        training, self.held_out = data.train, None
        augmentation = recipe.dataset.augmentation
        cut = augmentation.shape(tuple(training.inputs.shape[1:]))
        if cut != data.input_shape:
            raise ValueError(
                f"the augmentation makes training inputs of shape {cut}, test inputs have {data.input_shape}: set crop "
                f"to their side"
            )
        if recipe.validation:
            training, held_out = split(data.train, fraction=recipe.validation, seed=recipe.seed)
            self.held_out = placed(replace(held_out, inputs=augmentation.center(held_out.inputs)), device)
        self.made_of = f"{recipe.hash}/{_digest(training)}"
        self.images = placed(training, device)
        self.steps = math.ceil(len(self.images) / recipe.batch_size)
        self.graph = trace(model, data.input_shape)
        self.parameters = list(model.parameters())
        self.optimizer = recipe.optimizer.of(self.parameters)
        self.average: dict[str, Tensor] = {}  # of the parameters, by SWA
        self.best: Best | None = None
        self.finite = Finite(device)  # of this epoch
        if recipe.swa and not recipe.swa.taken(recipe.epochs * self.steps, self.steps):
            raise ValueError(
                f"swa would average no weights: from epoch {recipe.swa.start:g} of {recipe.epochs} on there are fewer "
                f"than {recipe.swa.every} steps; start earlier or average more often"
            )
        self.execution = Execution(recipe.precision == "bfloat16", compiled)
        with self._products():
            self._rehearse()

    @property
    def ways(self) -> dict[str, str | int | None]:
        """How the steps are computed, which is to be noted beside what they are computed with."""
        return {
            "processes": self.processes.count,
            "precision": self._precision,
            "compiled": self.execution.compiled,
        }

    def run(self, *, quiet: bool, tensorboard: bool, watch: Watch | None = None) -> None:
        """Train from the last state to the end."""
        done = self._go_on()
        recipe, first = self.recipe, self.processes.first
        place = self.folder.path / "tensorboard" if tensorboard and first else None
        progress = display(recipe.name, epochs=recipe.epochs, steps=self.steps, done=done, quiet=quiet or not first)
        with board(place, done=done) as write, progress as shown:
            for epoch in range(done, recipe.epochs):
                with self._products():
                    metrics = self.epoch(epoch, shown)
                write(metrics)
                if first:
                    self._keep(metrics, epoch + 1)
                shown.epoch(metrics)
                if watch is not None:
                    watch(epoch + 1, self.model)
        if self.best:
            self.model.load_state_dict(self.best.model)

    @property
    def _precision(self) -> Literal["float32", "tf32", "bfloat16"]:
        """The recipe's, or what it had to be replaced by."""
        if self.recipe.precision == "bfloat16" and not self.execution.bfloat16:
            return "float32"
        return self.recipe.precision

    def _products(self) -> AbstractContextManager[None]:
        """How products of float32 are computed; bfloat16 is what autocast makes of them."""
        return products("tf32" if self.recipe.precision == "tf32" else "float32")

    def _rehearse(self) -> None:
        """Try how the steps are to be computed, and fall back, with a warning, where that does not work."""
        while self.execution != PLAIN and (reasons := set(self.processes.gathered(self._failure())) - {""}):
            self.execution, told = self.execution.without(min(reasons))
            if self.processes.first:
                warnings.warn(told, stacklevel=4)

    def _failure(self) -> str:
        """What goes wrong with the first and with the last step's formulas, or ""; leaves no trace on the network."""
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        generator, recipe = self._generator(0, stream=2), self.recipe
        x, y = self.images.batch(self.processes.share(min(recipe.batch_size, len(self.images))).samples, self.device)
        x = recipe.dataset.augmentation.center(x)
        try:
            for now in (recipe.at(0, 0, self.steps), recipe.at(recipe.epochs - 1, 0, self.steps)):
                net, batch = self._clean_pass(self.graph, x, y, now, generator)
                self._prelude(net, batch, now)
                backward(self.model, net, batch, now, execution=self.execution)
        except RuntimeError as error:
            return str(error).strip().partition("\n")[0] or type(error).__name__
        finally:
            self.model.load_state_dict(before)
            self.optimizer.zero_grad(set_to_none=True)
        return ""

    def _keep(self, metrics: dict[str, float], epochs_done: int) -> None:
        """Write the record of an epoch, and the state after it."""
        jsonl.append(self.folder.metrics, [metrics])
        checkpoints.save_state(
            self.folder.state,
            self.model,
            self.optimizer,
            epochs_done,
            self.made_of,
            average=self.average,
            best=self.best,
        )

    def _go_on(self) -> int:
        """Take up the state there is; returns the number of epochs that are done."""
        if not self.folder.state.exists():
            if self.processes.first:
                jsonl.rewrite(self.folder.metrics, [])
            return 0
        state = checkpoints.load_state(self.folder.state)
        if state.made_of != self.made_of:
            raise ValueError(
                f"{self.folder.state} was trained by another recipe or on other images ({state.made_of}, now "
                f"{self.made_of}): choose another folder, or give the data of before"
            )
        checkpoints.restore(state, self.model, self.optimizer, self.folder.state)
        self.average = {name: value.to(self.device) for name, value in state.average.items()}
        self.best = state.best
        # an epoch's record comes before its state: after a kill between the two the epoch is trained and recorded again
        if self.processes.first:
            kept = [record for record in jsonl.read(self.folder.metrics) if record["epoch"] <= state.epochs_done]
            jsonl.rewrite(self.folder.metrics, kept)
        return state.epochs_done

    def epoch(self, epoch: int, shown: Display) -> dict[str, float]:
        """One pass over the training set; returns its metrics."""
        start, generator = time.perf_counter(), self._generator(epoch, stream=0)
        # what several processes draw for their shares must not move the stream from which all take the same batches
        draws = generator if self.processes.alone else self._generator(epoch, stream=3 + self.processes.rank)
        self.model.train()
        means, now, looked = Means(), self.recipe.at(epoch, 0, self.steps), -math.inf
        self.finite = Finite(self.device)
        for number, (x, y) in enumerate(self._batches(generator)):
            now = self.recipe.at(epoch, number, self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = now.lr
            share = self.processes.share(len(x))
            means.add(len(x) * share.weight, self.step(x, y, now, draws))
            self._average(epoch * self.steps + number + 1)
            if shown.bars and (time.perf_counter() - looked > SHOWN_EVERY or number + 1 == self.steps):
                seen, looked = means.read(), time.perf_counter()
                shown.step(number + 1, loss=seen["loss"], accuracy=seen["natural_accuracy"], eps=now.eps)
        self._check_steps(epoch)
        metrics = {"epoch": epoch + 1, "eps": now.eps, "lr": now.lr} | self.processes.read(means)
        self._settle(epoch)
        self._check_weights(epoch)
        if self.held_out is not None:
            metrics |= self.validate(self.held_out, now)
        if self.recipe.select == "best" and not now.growing:
            self.best = self._better(epoch + 1, metrics["validation_robust_accuracy"])
            metrics["best_epoch"] = self.best.epoch
        return metrics | {"seconds": time.perf_counter() - start}

    def step(self, x: Tensor, y: Tensor, now: Moment, generator: torch.Generator) -> dict[str, Tensor]:
        """One optimisation step, after the method's prelude if it has one; returns means over this process's share.

        Nothing waits for the device: what is no longer finite is found at the end of the epoch. Until then no step is
        taken that would bring it into the weights, nor any after that.
        """
        share = self.processes.share(len(y))
        graph, x, y = self.processes.synchronised(self.graph, share), x[share.samples], y[share.samples]
        net, batch = self._clean_pass(graph, x, y, now, generator)
        prelude = self._prelude(net, batch, now)
        if prelude is not None:
            self.optimizer.zero_grad(set_to_none=True)
            (share.weight * prelude).backward()
            self.processes.add_gradients(self.parameters)
            self._move()
            net, batch = self._clean_pass(graph, x, y, now, generator)
        self.optimizer.zero_grad(set_to_none=True)
        found = backward(self.model, net, batch, now, weight=share.weight, execution=self.execution)
        self.processes.add_gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, now.recipe.optimizer.clip_norm or math.inf)
        self.finite.add(found["loss"], norm)
        self._move()
        return found

    def _move(self) -> None:
        """A step of the optimiser; on the device, a fused one takes none once something is no longer finite."""
        if self.optimizer.defaults.get("fused"):
            self.optimizer.found_inf = self.finite.broken  # type: ignore[attr-defined]  # as torch.amp's GradScaler does
        self.optimizer.step()

    def _check_steps(self, epoch: int) -> None:
        """Raise TrainingDivergedError where a loss or a gradient of the epoch's steps was not finite."""
        found = [first for first in self.processes.gathered(self.finite.first()) if first is not None]
        if found:
            number, loss, norm = min(found, key=lambda first: first[0])
            now = self.recipe.at(epoch, number, self.steps)
            raise TrainingDivergedError(self._diverged(loss, norm, now))

    def _check_weights(self, epoch: int) -> None:
        """Raise TrainingDivergedError where a weight or a statistic is not finite after the epoch: the last step is
        followed by no loss that would tell."""
        values = {name: value for name, value in self.model.state_dict().items() if value.is_floating_point()}
        finite = torch.stack([torch.isfinite(value).all() for value in values.values()]).tolist()
        bad = [name for name, good in zip(values, finite, strict=True) if not good]
        if bad:
            raise TrainingDivergedError(
                f"{self.recipe.name} diverged in epoch {epoch + 1}: after its last step {bad[0]} holds NaN or infinite "
                f"values. {self._advice(self.recipe.at(epoch, self.steps - 1, self.steps))}"
            )

    def _clean_pass(
        self, graph: Graph, x: Tensor, y: Tensor, now: Moment, generator: torch.Generator
    ) -> tuple[Graph, Batch]:
        with self.execution.autocast(self.device):
            net, logits = freeze(graph, x, training=True)
        return net, self._batch(x, y, at_least_float32(logits), now.eps, generator)

    def _prelude(self, net: Graph, batch: Batch, now: Moment) -> Tensor | None:
        with self.execution.autocast(self.device):
            return now.method.prelude(folded(net, len(batch.y)), batch)

    def _batch(self, x: Tensor, y: Tensor, logits: Tensor, eps: float, generator: torch.Generator) -> Batch:
        def region_at(scale: float) -> Region:
            return replace(self.recipe.threat, eps=scale * eps).region(x)

        return Batch(x, y, region_at(1.0), logits, generator, region_at)

    def _average(self, done: int) -> None:
        """Take the weights after `done` steps into the average, where it is their turn."""
        if swa := self.recipe.swa:
            count = swa.taken(done, self.steps)
            if count > swa.taken(done - 1, self.steps):
                self.average = averaged(self.average, self.model, count)

    def _settle(self, epoch: int) -> None:
        """After an epoch's steps: put the average in place of the last weights, and make the statistics precise."""
        recipe, last = self.recipe, epoch + 1 == self.recipe.epochs
        if recipe.swa and last:
            self.model.load_state_dict(self.average, strict=False)
        if (recipe.precise_bn and (last or self.held_out is not None)) or (recipe.swa and last):
            batches = (x for x, _ in self._batches(self._generator(epoch, stream=1)))
            precise_batch_norm(self.model, batches, recipe.precise_bn_variance)
        self.model.eval()

    def _better(self, epoch: int, accuracy: float) -> Best:
        """The best epoch so far, of which this is the last."""
        if self.best and self.best.accuracy >= accuracy:
            return self.best
        return Best(epoch, accuracy, {name: value.clone() for name, value in self.model.state_dict().items()})

    def _diverged(self, loss: float, norm: float, now: Moment) -> str:
        return (
            f"{self.recipe.name} diverged in epoch {now.epoch + 1}, step {now.number + 1} of {self.steps}: the loss is "
            f"{loss:g} and its gradient's norm {norm:g}. {self._advice(now)}"
        )

    def _advice(self, now: Moment) -> str:
        kept = f"the state after epoch {now.epoch} is in {self.folder.state}" if now.epoch else "no epoch was completed"
        return (
            f"Likely causes: a learning rate ({now.lr:g}) too high, eps (now {now.eps:g}) growing too fast, or an "
            f"initialisation ({self.recipe.initialization}) whose bounds explode; {kept}"
        )

    @torch.no_grad()
    def validate(self, images: Examples, now: Moment) -> dict[str, float]:
        """Natural and robust accuracy (the method's own) on images held out of the training set."""
        recipe, generator = self.recipe, self._generator(now.epoch, stream=2)
        eps = min(now.eps, recipe.threat.eps)
        size = math.ceil(recipe.batch_size / recipe.accumulate)
        means = Means()
        for start in range(0, len(images), size):
            x, y = images.batch(slice(start, start + size), self.device)
            net, logits = freeze(self.graph, x)
            batch = self._batch(x, y, logits, eps, generator)
            natural, robust = (logits.argmax(1) == y), now.method(net, batch).correct
            means.add(1.0, {"natural": natural.sum(), "robust": robust.sum()})
        totals = {name: float(total) for name, total in means.totals.items()}
        return {f"validation_{name}_accuracy": total / len(images) for name, total in totals.items()}

    def _batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """The training set in random order, augmented; the last batch may be smaller."""
        order = torch.randperm(len(self.images), generator=generator, device=self.device)
        order = order.to(self.images.labels.device)
        for start in range(0, len(order), self.recipe.batch_size):
            x, y = self.images.batch(order[start : start + self.recipe.batch_size], self.device)
            yield self.recipe.dataset.augmentation(x, generator), y

    def _generator(self, epoch: int, *, stream: int) -> torch.Generator:
        """The randomness of an epoch, a function of the seed; streams are independent of one another."""
        seed = int.from_bytes(hashlib.sha256(f"{self.recipe.seed}/{epoch}/{stream}".encode()).digest()[:8], "big")
        return torch.Generator(self.device).manual_seed(seed >> 1)

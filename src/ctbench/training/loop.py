"""Training: from a recipe to a run folder.

    run = train(recipe)             # trains, or goes on, or finds the run complete
    run.model                       # the network, ready to use
    run = load_run("runs/...")      # the same, later

A run is a function of its recipe on one device: the randomness of an epoch comes from the seed and the epoch's
number, so a run that was killed and resumed ends in the same weights, bit by bit, as one that was not.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.datasets import Data, Images, split
from ctbench.domains import interval
from ctbench.graph import Graph, freeze, trace
from ctbench.methods import regularizers
from ctbench.methods.base import Batch, RobustLoss
from ctbench.results import RunFolder, jsonl
from ctbench.training import checkpoints
from ctbench.training.averaging import precise_batch_norm
from ctbench.training.blueprint import Blueprint
from ctbench.training.progress import Display, display
from ctbench.training.recipe import Recipe
from ctbench.training.versions import versions

LEAST_RADIUS = 1e-6  # of the boxes that Shi et al.'s regulariser sees while eps is still about 0


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
) -> Run:
    """Train a network by a recipe.

    Args:
        recipe: what to train, on what and how.
        out: the run folder; None is "runs/NAME-HASH" in the working directory.
        resume: go on with the run that is in the folder; a complete one is returned as it is.
        data: where data sets lie; None is the CTBENCH_DATA variable, else the user's cache.
        device: where to train, as "cpu" or "cuda".
        quiet: show no progress.

    Raises:
        ValueError: the folder holds the run of another recipe, or one that is not to be resumed; or a field of the
            recipe does not fit the data.
        TrainingDivergedError: the loss became NaN or infinite; says where. The state after the last whole epoch stays.
    """
    device = torch.device(device)
    folder = RunFolder(Path(out) if out is not None else Path("runs") / f"{recipe.name}-{recipe.hash}")
    _check_folder(folder, recipe, resume)
    if folder.weights.exists():
        return load_run(folder.path, device=device)
    loaded = recipe.dataset.load(None if data is None else Path(data))
    blueprint = Blueprint.of(recipe.network, loaded)
    model = blueprint.build(initialization=recipe.initialization, seed=recipe.seed).to(device)
    folder.path.mkdir(parents=True, exist_ok=True)
    jsonl.write_json(folder.recipe, recipe.to_json())
    _note_versions(folder, versions(device))
    Training(recipe, folder, model, loaded, device).run(quiet)
    checkpoints.save_network(model, blueprint, folder.weights)
    return Run(recipe, model.eval(), folder)


def load_run(path: str | Path, *, device: str | torch.device = "cpu") -> Run:
    """The trained network of a run folder, in eval mode.

    Raises:
        FileNotFoundError: there is no run, or it is not complete.
        ValueError: a file in it is damaged, or the weights are those of another network.
    """
    folder = RunFolder(Path(path))
    folder.require()
    recipe = Recipe.from_json(jsonl.read_json(folder.recipe))
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
        if folder.path.exists() and any(file.suffix != ".unfinished" for file in folder.path.iterdir()):
            raise ValueError(f"{folder.path} holds other files: choose an empty or a new folder")
        return
    if folder.versions.exists() and not (folder.state.exists() or folder.weights.exists()):
        return  # a run was begun and no epoch trained: it does not claim its folder
    found = Recipe.from_json(jsonl.read_json(folder.recipe))
    if found.hash != recipe.hash:
        raise ValueError(
            f"{folder.path} holds the run of another recipe ({found.name}, {found.hash}; this one is "
            f"{recipe.name}, {recipe.hash}): choose another folder"
        )
    if folder.versions.exists() and not resume:
        raise ValueError(f"{folder.path} holds this run already: resume it, or choose another folder")


def _note_versions(folder: RunFolder, now: dict[str, str | int | None]) -> None:
    """Write what the run is made with; where a run goes on with something else, both are told."""
    before = jsonl.read_json(folder.versions) if folder.versions.exists() and folder.state.exists() else now
    told = {key: value for key, value in before.items() if key != "resumed_with"}
    jsonl.write_json(folder.versions, told if told == now else {**told, "resumed_with": now})


def _digest(images: Images) -> str:
    """What a set of images is known by."""
    found = hashlib.sha256(images.labels.cpu().numpy().tobytes())
    found.update(images.pixels.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


class Training:
    """One run: its data on the device, and the network and optimiser that its steps change."""

    def __init__(self, recipe: Recipe, folder: RunFolder, model: nn.Module, data: Data, device: torch.device) -> None:
        self.recipe, self.folder, self.model, self.device = recipe, folder, model, device
        training, self.held_out = data.train, None
        if recipe.validation:
            training, held_out = split(data.train, fraction=recipe.validation, seed=recipe.seed)
            self.held_out = held_out.to(device)
        self.made_of = f"{recipe.hash}/{_digest(training)}"
        self.images = training.to(device)
        self.steps = math.ceil(len(self.images) / recipe.batch_size)
        self.graph = trace(model, data.input_shape)
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=recipe.optimizer.lr, fused=True)

    def run(self, quiet: bool) -> None:
        """Train from the last state to the end."""
        done = self._go_on()
        recipe = self.recipe
        with display(recipe.name, epochs=recipe.epochs, steps=self.steps, done=done, quiet=quiet) as shown:
            for epoch in range(done, recipe.epochs):
                metrics = self.epoch(epoch, shown)
                jsonl.append(self.folder.metrics, [metrics])
                checkpoints.save_state(self.folder.state, self.model, self.optimizer, epoch + 1, self.made_of)
                shown.epoch(metrics)

    def _go_on(self) -> int:
        """Take up the state there is; returns the number of epochs that are done."""
        if not self.folder.state.exists():
            jsonl.rewrite(self.folder.metrics, [])
            return 0
        state = checkpoints.load_state(self.folder.state)
        if state.made_of != self.made_of:
            raise ValueError(
                f"{self.folder.state} was trained by another recipe or on other images ({state.made_of}, now "
                f"{self.made_of}): choose another folder, or give the data of before"
            )
        checkpoints.restore(state, self.model, self.optimizer, self.folder.state)
        # an epoch's record comes before its state: after a kill between the two the epoch is trained and recorded again
        kept = [record for record in jsonl.read(self.folder.metrics) if record["epoch"] <= state.epochs_done]
        jsonl.rewrite(self.folder.metrics, kept)
        return state.epochs_done

    def epoch(self, epoch: int, shown: Display) -> dict[str, float]:
        """One pass over the training set; returns its metrics."""
        recipe, start = self.recipe, time.perf_counter()
        generator = self._generator(epoch, stream=0)
        lr = recipe.optimizer.lr_at(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        totals = torch.zeros(len(MEANS), dtype=torch.float64, device=self.device)
        seen, eps = 0, 0.0
        for number, (x, y) in enumerate(self._batches(generator)):
            eps = recipe.final_eps * recipe.ramp.share(epoch * self.steps + number, self.steps)
            totals += self.step(x, y, eps, epoch, number, generator) * len(x)
            seen += len(x)
            if shown.bars:
                shown.step(number + 1, loss=float(totals[0]) / seen, accuracy=float(totals[2]) / seen, eps=eps)
        means = dict(zip(MEANS, (totals / len(self.images)).tolist(), strict=True))
        last = epoch + 1 == recipe.epochs
        if recipe.precise_bn and (last or self.held_out is not None):
            precise_batch_norm(self.model, (x for x, _ in self._batches(self._generator(epoch, stream=1))))
        self.model.eval()
        if self.held_out is not None:
            means |= self.validate(self.held_out, min(eps, recipe.threat.eps), epoch)
        return {"epoch": epoch + 1, "eps": eps, "lr": lr, **means, "seconds": time.perf_counter() - start}

    def step(self, x: Tensor, y: Tensor, eps: float, epoch: int, number: int, generator: torch.Generator) -> Tensor:
        """One optimisation step; returns the quantities named in MEANS, as means over the batch."""
        recipe = self.recipe
        net, logits = freeze(self.graph, x, training=True)
        natural = F.cross_entropy(logits, y)
        batch = Batch(x, y, replace(recipe.threat, eps=eps).region(x), logits, generator)
        robust = recipe.method(net, batch)
        robust_loss = robust.per_sample.mean()
        weight = recipe.robust_weight
        loss = weight * robust_loss + ((1 - weight) * natural if weight < 1 else 0.0)
        loss = loss + self._regularization(net, batch, robust, eps, epoch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, recipe.optimizer.clip_norm)
        if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
            raise TrainingDivergedError(self._diverged(float(loss.detach()), float(norm), eps, epoch, number))
        self.optimizer.step()
        right = (logits.argmax(1) == y).double().mean()
        measured = (loss, natural, right, robust_loss, robust.correct.double().mean())
        return torch.stack([value.detach().double() for value in measured])

    def _regularization(self, net: Graph, batch: Batch, robust: RobustLoss, eps: float, epoch: int) -> Tensor | float:
        recipe, total = self.recipe, torch.zeros((), device=self.device)
        if recipe.shi and epoch < recipe.ramp.end:
            if robust.boxes is None:
                raise ValueError(
                    f"shi is {recipe.shi} but the method {recipe.method.name!r} computes no interval bounds: set shi=0"
                )
            boxes = robust.boxes
            if eps < LEAST_RADIUS:
                boxes = interval.boxes(net, replace(recipe.threat, eps=LEAST_RADIUS).region(batch.x))
            total = total + recipe.shi * (1 - eps / max(recipe.final_eps, LEAST_RADIUS)) * regularizers.shi(net, boxes)
        if recipe.l1:
            total = total + recipe.l1 * regularizers.l1(self.model)
        return total

    def _diverged(self, loss: float, norm: float, eps: float, epoch: int, number: int) -> str:
        recipe = self.recipe
        kept = f"the state after epoch {epoch} is in {self.folder.state}" if epoch else "no epoch was completed"
        return (
            f"{recipe.name} diverged in epoch {epoch + 1}, step {number + 1} of {self.steps}: the loss is {loss:g} and "
            f"its gradient's norm {norm:g}. Likely causes: a learning rate ({recipe.optimizer.lr_at(epoch):g}) too "
            f"high, eps (now {eps:g}) growing too fast, or an initialisation ({recipe.initialization}) whose bounds "
            f"explode; {kept}"
        )

    @torch.no_grad()
    def validate(self, images: Images, eps: float, epoch: int) -> dict[str, float]:
        """Natural and robust accuracy (the method's own) on images held out of the training set."""
        recipe, generator = self.recipe, self._generator(epoch, stream=2)
        natural = robust = 0.0
        for start in range(0, len(images), recipe.batch_size):
            x, y = images[start : start + recipe.batch_size]
            net, logits = freeze(self.graph, x)
            batch = Batch(x, y, replace(recipe.threat, eps=eps).region(x), logits, generator)
            natural += float((logits.argmax(1) == y).sum())
            robust += float(recipe.method(net, batch).correct.sum())
        return {
            "validation_natural_accuracy": natural / len(images),
            "validation_robust_accuracy": robust / len(images),
        }

    def _batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """The training set in random order, augmented; the last batch may be smaller."""
        order = torch.randperm(len(self.images), generator=generator, device=self.device)
        for start in range(0, len(order), self.recipe.batch_size):
            chosen = order[start : start + self.recipe.batch_size]
            x, y = self.images[chosen]
            yield self.recipe.dataset.augmentation(x, generator), y

    def _generator(self, epoch: int, *, stream: int) -> torch.Generator:
        """The randomness of an epoch, a function of the seed; streams are independent of one another."""
        seed = int.from_bytes(hashlib.sha256(f"{self.recipe.seed}/{epoch}/{stream}".encode()).digest()[:8], "big")
        return torch.Generator(self.device).manual_seed(seed >> 1)


MEANS = ("loss", "natural_loss", "natural_accuracy", "robust_loss", "robust_accuracy")

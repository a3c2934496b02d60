"""The course of a run: its epochs, the state to resume from, validation, and the choice of the final weights."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from ctbench.datasets import Data, Examples, part, stratified_split
from ctbench.graph import freeze, trace
from ctbench.methods.base import Batch
from ctbench.precision import products
from ctbench.results import RunFolder, jsonl
from ctbench.training import checkpoints, divergence
from ctbench.training.averaging import averaged, precise_batch_norm
from ctbench.training.board import board
from ctbench.training.checkpoints import Best
from ctbench.training.display import Display, display
from ctbench.training.execution import PLAIN, Execution
from ctbench.training.monitoring import Finite, Means
from ctbench.training.placing import placed
from ctbench.training.processes import ALONE, Processes
from ctbench.training.recipe import Recipe, StepSettings
from ctbench.training.step import Stepper

OnEpoch = Callable[[Mapping[str, float], nn.Module], None]
SHOWN_EVERY = 1.0  # seconds between two displays of an epoch's metrics so far: to read them waits for the device


class Trainer:
    """One run: its data on the device, the network and the stepper that changes it."""

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
        if recipe.train_samples is not None:
            training = part(training, count=recipe.train_samples, seed=recipe.seed)
        augmentation = recipe.dataset.augmentation
        shape = augmentation.shape(tuple(training.inputs.shape[1:]))
        if shape != data.input_shape:
            raise ValueError(
                f"the augmentation makes training inputs of shape {shape}, test inputs have {data.input_shape}: set "
                f"crop to their side"
            )
        if recipe.validation:
            training, held_out = stratified_split(training, fraction=recipe.validation, seed=recipe.seed)
            self.held_out = placed(replace(held_out, inputs=augmentation.center(held_out.inputs)), device)
        self.tests = placed(data.test, device) if recipe.select == "test" else None
        seen = (training,) if self.tests is None else (training, data.test)
        self.made_of = "/".join((recipe.hash, *map(_digest, seen)))
        self.images = placed(training, device)
        self.steps = math.ceil(len(self.images) / recipe.batch_size)
        if recipe.swa and not recipe.swa.taken(recipe.epochs * self.steps, self.steps):
            raise ValueError(
                f"swa would average no weights: from epoch {recipe.swa.start:g} of {recipe.epochs} on there are fewer "
                f"than {recipe.swa.every} steps; start earlier or average more often"
            )
        self.average: dict[str, Tensor] = {}  # of the parameters, by SWA
        self.best: Best | None = None
        graph = trace(model, data.input_shape)
        if graph.classes < data.classes:
            raise ValueError(f"the network has {graph.classes} logits, and the data have {data.classes} classes")
        stepper = Stepper(
            model,
            graph,
            recipe.optimizer.of(model.parameters()),
            Finite(device),
            device,
            Execution(recipe.precision == "bfloat16", compiled),
            processes,
        )
        with self._products():
            self.stepper = self._rehearsed(stepper)

    @property
    def ways(self) -> dict[str, str | int | None]:
        """How the steps are computed, for the file of versions."""
        return {
            "processes": self.processes.count,
            "precision": self._precision,
            "compiled": self.stepper.execution.compiled,
        }

    def run(self, *, quiet: bool, tensorboard: bool, on_epoch: OnEpoch | None = None) -> None:
        """Train from the last state to the end."""
        done = self._resume()
        recipe, first = self.recipe, self.processes.first
        events = self.folder.path / "tensorboard" if tensorboard and first else None
        progress = display(recipe.name, epochs=recipe.epochs, steps=self.steps, done=done, quiet=quiet or not first)
        with board(events, done=done) as write, progress as shown:
            for epoch in range(done, recipe.epochs):
                with self._products():
                    metrics = self.epoch(epoch, shown)
                write(metrics)
                if first:
                    self._save(metrics, epoch + 1)
                shown.epoch(metrics)
                if on_epoch is not None:
                    on_epoch(metrics, self.model)
        if self.best:
            self.model.load_state_dict(self.best.model)

    @property
    def _precision(self) -> Literal["float32", "tf32", "bfloat16"]:
        """The precision of the recipe, or float32 if bfloat16 does not work."""
        if self.recipe.precision == "bfloat16" and not self.stepper.execution.bfloat16:
            return "float32"
        return self.recipe.precision

    def _products(self) -> AbstractContextManager[None]:
        """A context for the products of float32 matrices; autocast computes the products of bfloat16."""
        return products("tf32" if self.recipe.precision == "tf32" else "float32")

    def _rehearsed(self, stepper: Stepper) -> Stepper:
        """The stepper, with another execution if its own fails in the first or in the last step."""
        if stepper.execution == PLAIN:
            return stepper
        recipe, augmentation = self.recipe, self.recipe.dataset.augmentation
        share = self.processes.share(min(recipe.batch_size, len(self.images)))
        x, y = self.images.batch(share.samples, self.device)
        ends = recipe.at(0, 0, self.steps), recipe.at(recipe.epochs - 1, 0, self.steps)
        return stepper.rehearsed(augmentation.center(x), y, ends, self.generator(0, stream=2))

    def _save(self, metrics: dict[str, float], epochs_done: int) -> None:
        """Write the record of an epoch, and the state after it."""
        jsonl.append(self.folder.metrics, [metrics])
        checkpoints.save_state(
            self.folder.state,
            self.model,
            self.stepper.optimizer,
            epochs_done,
            self.made_of,
            average=self.average,
            best=self.best,
        )

    def _resume(self) -> int:
        """Load the state of the run folder, if there is one; returns the number of epochs that are done."""
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
        checkpoints.restore(state, self.model, self.stepper.optimizer, self.folder.state)
        self.average = {name: value.to(self.device) for name, value in state.average.items()}
        self.best = state.best
        # an epoch's record comes before its state: after a kill between the two the epoch is trained and recorded again
        if self.processes.first:
            records = [record for record in jsonl.read(self.folder.metrics) if record["epoch"] <= state.epochs_done]
            jsonl.rewrite(self.folder.metrics, records)
        return state.epochs_done

    def epoch(self, epoch: int, shown: Display) -> dict[str, float]:
        """Take one pass over the training set; returns its metrics."""
        start, generator = time.perf_counter(), self.generator(epoch, stream=0)
        # draws of several processes for their shares must not advance the stream from which all take the same batches
        draws = generator if self.processes.alone else self.generator(epoch, stream=3 + self.processes.rank)
        self.model.train()
        self.stepper = replace(self.stepper, finite=Finite(self.device))
        means, settings, displayed = Means(), self.recipe.at(epoch, 0, self.steps), -math.inf
        for number, (x, y) in enumerate(self.batches(generator)):
            settings = self.recipe.at(epoch, number, self.steps)
            for group in self.stepper.optimizer.param_groups:
                group["lr"] = settings.lr
            share = self.processes.share(len(x))
            means.add(len(x) * share.weight, self.stepper.step(x, y, settings, draws))
            self._average(epoch * self.steps + number + 1)
            if shown.bars and (time.perf_counter() - displayed > SHOWN_EVERY or number + 1 == self.steps):
                values, displayed = means.read(), time.perf_counter()
                shown.step(number + 1, loss=values["loss"], accuracy=values["natural_accuracy"], eps=settings.eps)
        self.check_steps(epoch)
        metrics = {"epoch": epoch + 1, "eps": settings.eps, "lr": settings.lr} | self.processes.read(means)
        self._settle(epoch)
        self._check_weights(epoch)
        if self.held_out is not None:
            metrics |= self.validate(self.held_out, settings)
        if self.tests is not None and settings.eps >= self.recipe.threat.eps:
            metrics |= self.validate(self.tests, settings, name="test")
        metrics |= self._choice(epoch, metrics, growing=settings.growing)
        return metrics | {"seconds": time.perf_counter() - start}

    def check_steps(self, epoch: int) -> None:
        """Raise TrainingDivergedError if a loss or a gradient of the epoch's steps was not finite."""
        failures = [step for step in self.processes.gathered(self.stepper.finite.first()) if step is not None]
        if failures:
            number, loss, norm = min(failures, key=lambda step: step[0])
            settings = self.recipe.at(epoch, number, self.steps)
            raise divergence.error_in_step(settings, self.steps, loss, norm, self.folder.state)

    def _check_weights(self, epoch: int) -> None:
        """Raise TrainingDivergedError if a weight or a statistic is not finite: no loss follows the last step."""
        names = divergence.tensors_not_finite(self.model)
        if names:
            settings = self.recipe.at(epoch, self.steps - 1, self.steps)
            raise divergence.error_after_epoch(settings, names[0], self.folder.state)

    def _average(self, done: int) -> None:
        """Add the weights after `done` steps to the average, if SWA takes them."""
        if swa := self.recipe.swa:
            count = swa.taken(done, self.steps)
            if count > swa.taken(done - 1, self.steps):
                self.average = averaged(self.average, self.model, count)

    def _settle(self, epoch: int) -> None:
        """After an epoch's steps: replace the last weights by the average, and make the statistics precise."""
        recipe, last = self.recipe, epoch + 1 == self.recipe.epochs
        evaluated = self.held_out is not None or self.tests is not None
        if recipe.swa and last:
            self.model.load_state_dict(self.average, strict=False)
        if (recipe.precise_bn and (last or evaluated)) or (recipe.swa and last):
            batches = (x for x, _ in self.batches(self.generator(epoch, stream=1)))
            precise_batch_norm(self.model, batches, recipe.precise_bn_variance)
        self.model.eval()

    def _choice(self, epoch: int, metrics: Mapping[str, float], *, growing: bool) -> dict[str, float]:
        """Compare this epoch with the best one so far, if the recipe selects one and this one counts; returns the best.

        On test images an epoch counts if it ends at the radius of the test, which may be before the end of the ramp:
        then it has been evaluated on them.
        """
        select = self.recipe.select
        name = "test_robust_accuracy" if select == "test" else "validation_robust_accuracy"
        if select == "last" or name not in metrics or (growing and select == "best"):
            return {}
        self.best = self._better(epoch + 1, metrics[name])
        return {"best_epoch": self.best.epoch}

    def _better(self, epoch: int, accuracy: float) -> Best:
        """The best epoch so far, given the accuracy of this one."""
        if self.best and self.best.accuracy >= accuracy:
            return self.best
        return Best(epoch, accuracy, {name: value.clone() for name, value in self.model.state_dict().items()})

    @torch.no_grad()
    def validate(self, images: Examples, settings: StepSettings, name: str = "validation") -> dict[str, float]:
        """The natural and the robust accuracy (the method's own) on images that are not trained on."""
        recipe, generator = self.recipe, self.generator(settings.epoch, stream=2)
        threat = replace(recipe.threat, eps=min(settings.eps, recipe.threat.eps))
        size = math.ceil(recipe.batch_size / recipe.accumulate)
        means = Means()
        for start in range(0, len(images), size):
            x, y = images.batch(slice(start, start + size), self.device)
            net, logits = freeze(self.stepper.graph, x)
            batch = Batch.within(threat, x, y, logits, generator)
            natural, robust = (logits.argmax(1) == y), settings.method(net, batch).correct
            means.add(1.0, {"natural": natural.sum(), "robust": robust.sum()})
        totals = {kind: float(total) for kind, total in means.totals.items()}
        return {f"{name}_{kind}_accuracy": total / len(images) for kind, total in totals.items()}

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """The training set in random order, augmented; the last batch may be smaller."""
        order = torch.randperm(len(self.images), generator=generator, device=self.device)
        order = order.to(self.images.labels.device)
        for start in range(0, len(order), self.recipe.batch_size):
            x, y = self.images.batch(order[start : start + self.recipe.batch_size], self.device)
            yield self.recipe.dataset.augmentation(x, generator), y

    def generator(self, epoch: int, *, stream: int) -> torch.Generator:
        """The randomness of an epoch, a function of the seed; the streams are independent of each other."""
        seed = int.from_bytes(hashlib.sha256(f"{self.recipe.seed}/{epoch}/{stream}".encode()).digest()[:8], "big")
        return torch.Generator(self.device).manual_seed(seed >> 1)


def _digest(examples: Examples) -> str:
    """A hash of a set of examples."""
    digest = hashlib.sha256(examples.labels.cpu().numpy().tobytes())
    digest.update(examples.inputs.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]

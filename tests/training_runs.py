"""Training in tests: a method that notes its calls, a run that is killed, a trainer whose run has not begun."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

import ctbench
from ctbench.methods.base import Batch, Method, RobustLoss
from ctbench.results import RunFolder, jsonl
from ctbench.training import (
    Recipe,
    train,
)
from ctbench.training.blueprint import Blueprint
from ctbench.training.recipe import StepSettings
from ctbench.training.step import Stepper
from ctbench.training.trainer import Trainer

STEPS = 6  # an epoch of 1,438 digits in batches of 256
LAST_BATCH = 1438 - 5 * 256
MEASURED = {"epoch", "eps", "lr", "loss", "natural_loss", "natural_accuracy", "robust_loss", "robust_accuracy"}
OF_BOXES = {"ibp_accuracy", "active_relus", "dead_relus", "unstable_relus"}


@dataclass(frozen=True, kw_only=True)
class Watched(Method):
    """The clean cross-entropy, with a note of every call; NaN from call `nan_at` on."""

    name: ClassVar[str] = "watched"
    calls: ClassVar[list[Batch]] = []
    nan_at: int = 10**9

    def __call__(self, net, batch: Batch) -> RobustLoss:
        self.calls.append(batch)
        loss = F.cross_entropy(batch.logits, batch.y, reduction="none")
        if len(self.calls) > self.nan_at:
            loss = loss * math.nan
        return RobustLoss(loss, correct=batch.logits.argmax(1) == batch.y)


class Killed(BaseException):
    """An error that no code can catch."""


def weights(run: ctbench.Run) -> dict[str, torch.Tensor]:
    return run.model.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def untimed(path) -> list[dict[str, float]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in jsonl.read(path)]


def interrupt_at(monkeypatch, call: int) -> None:
    """Simulate the end of the process in the step with this number."""
    step, made = Stepper.step, []

    def stopping(self, *args, **kwargs):
        made.append(None)
        if len(made) == call:
            raise Killed
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Stepper, "step", stopping)


def cut_short(monkeypatch, recipe: Recipe, call: int, out, *, resume: bool = False) -> None:
    """Train, and stop in the step with this number."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, call)
        with pytest.raises(Killed):
            train(recipe, out=out, resume=resume, quiet=True)


def single(recipe: Recipe, tmp_path) -> tuple[Trainer, torch.Tensor, torch.Tensor]:
    """A run that has not begun, and a first batch."""
    data = recipe.dataset.load()
    model = Blueprint.of(recipe.network, data).build(initialization=recipe.initialization, seed=recipe.seed)
    trainer = Trainer(recipe, RunFolder(tmp_path), model, data, torch.device("cpu"))
    return trainer, *data.train[:64]


def one_step(trainer: Trainer, x, y, eps: float, epoch: int = 0) -> dict[str, float]:
    settings = StepSettings(trainer.recipe, epoch, 0, eps)
    means = trainer.stepper.step(x, y, settings, torch.Generator().manual_seed(0))
    return {name: value.item() for name, value in means.items()}

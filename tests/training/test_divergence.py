"""Losses, gradients and weights that are not finite, and how an epoch looks for them."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from benchmarks._counting import counted
from rich.console import Console
from tests.training_runs import STEPS, Watched, one_step, same, single, weights
from torch import nn

from ctbench.methods.pgd import PGD
from ctbench.methods.standard import Standard
from ctbench.results import jsonl
from ctbench.training import (
    SGD,
    TrainingDivergedError,
    train,
)
from ctbench.training.checkpoints import load_state
from ctbench.training.display import Display
from ctbench.training.objective import accumulate_gradients

# ---------------------------------------------------------------------------------------------- divergence


def test_a_nan_stops_the_run_and_keeps_the_last_good_state(tiny, tmp_path):
    recipe = tiny(method=Watched(nan_at=STEPS + 2), shi=0.0)
    with pytest.raises(TrainingDivergedError) as error:
        train(recipe, out=tmp_path, quiet=True)
    message = str(error.value)
    assert "tiny diverged in epoch 2, step 3 of 6: the loss is nan" in message
    assert "Likely causes: a learning rate (0.01) too high, eps (now 0.0" in message
    assert f"the state after epoch 1 is in {tmp_path / 'state.safetensors'}" in message
    assert not (tmp_path / "weights.safetensors").exists()
    state = load_state(tmp_path / "state.safetensors")
    assert state.epochs_done == 1
    assert all(torch.isfinite(value).all() for value in (*state.model.values(), *state.optimizer.values()))
    assert [record["epoch"] for record in jsonl.read(tmp_path / "metrics.jsonl")] == [1]


def test_a_nan_in_the_first_epoch_leaves_no_state(tiny, tmp_path):
    with pytest.raises(TrainingDivergedError, match=r"epoch 1, step 1 of 6: .*no epoch was completed"):
        train(tiny(method=Watched(nan_at=0), shi=0.0), out=tmp_path, quiet=True)
    assert not (tmp_path / "state.safetensors").exists()


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_an_infinite_gradient_stops_the_run_before_it_reaches_a_weight(tiny, tmp_path, value):
    trainer, x, y = single(tiny(method=Standard(), shi=0.0), tmp_path)
    before = [p.detach().clone() for p in trainer.stepper.parameters]
    hook = trainer.stepper.parameters[0].register_hook(lambda gradient: torch.full_like(gradient, value))
    one_step(trainer, x, y, 0.0)
    hook.remove()
    one_step(trainer, x, y, 0.0)  # nor does a later step move them
    assert all(torch.equal(p, old) for p, old in zip(trainer.stepper.parameters, before, strict=True))
    with pytest.raises(TrainingDivergedError, match=f"epoch 1, step 1 of {trainer.steps}: .* gradient's norm {value}"):
        trainer.check_steps(0)


@dataclass(frozen=True, kw_only=True)
class Overflowing(SGD):
    """An optimiser whose steps cannot be called off on the device, and go too far."""

    name: ClassVar[str] = "overflowing"

    def of(self, parameters):
        class Far(torch.optim.SGD):
            @torch.no_grad()
            def step(self):
                self.param_groups[0]["params"][-1][0] = math.inf

        return Far(parameters, lr=self.lr)


def test_weights_that_the_last_step_has_broken_are_not_written(tiny, tmp_path):
    """The loss and its gradient are finite; what the step makes of them is not, and no later loss tells."""
    recipe = tiny(method=Standard(), shi=0.0, optimizer=Overflowing(), batch_size=1438, precise_bn=False)
    with pytest.raises(TrainingDivergedError, match=r"epoch 1: after its last step .* holds NaN or infinite values"):
        train(recipe, out=tmp_path, quiet=True)
    assert not (tmp_path / "state.safetensors").exists()
    assert not (tmp_path / "weights.safetensors").exists()


def test_an_epoch_is_that_of_a_loop_that_looks_at_every_step(tiny, tmp_path):
    """The same loss and the same weights, bit by bit, as where each loss is read before the optimiser's step."""
    recipe = tiny(method=PGD(), epochs=1, shi=0.0, precise_bn=False)
    run = train(recipe, out=tmp_path / "run", quiet=True)
    trainer, *_ = single(recipe, tmp_path / "other")
    generator, total, seen = trainer.generator(0, stream=0), 0.0, 0
    for number, (x, y) in enumerate(trainer.batches(generator)):
        now = recipe.at(0, number, trainer.steps)
        net, batch = trainer.stepper.clean_pass(trainer.stepper.graph, x, y, now, generator)
        trainer.stepper.optimizer.zero_grad(set_to_none=True)
        loss = accumulate_gradients(trainer.model, net, batch, now)["loss"]
        nn.utils.clip_grad_norm_(trainer.stepper.parameters, recipe.optimizer.clip_norm)
        assert math.isfinite(loss.item())
        for group in trainer.stepper.optimizer.param_groups:
            group["lr"] = now.lr
        trainer.stepper.optimizer.step()
        total, seen = total + len(x) * loss.double().item(), seen + len(x)
    assert same(weights(run), trainer.model.state_dict())
    (record,) = jsonl.read(run.folder.metrics)
    assert record["loss"] == pytest.approx(total / seen, rel=1e-14)


def test_an_epoch_waits_as_often_as_a_shorter_one(tiny, tmp_path):
    """Metrics, and whether a step was not finite, are read once, however many steps there are."""
    waits = []
    for size in (100, 400):
        trainer, *_ = single(tiny(batch_size=size), tmp_path)
        shown = Display(Console(quiet=True), 1, 1, None, None)
        waits.append(counted(lambda trainer=trainer, shown=shown: trainer.epoch(0, shown)).waits)
        assert trainer.steps in (15, 4)
    assert waits[0] == waits[1]
    assert waits[0] > 0

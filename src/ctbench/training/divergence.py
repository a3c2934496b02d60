"""The error of a run that diverged."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ctbench.training.recipe import StepSettings


class TrainingDivergedError(ArithmeticError):
    """The loss, its gradient or a weight is NaN or infinite."""


def error_in_step(settings: StepSettings, steps: int, loss: float, norm: float, state: Path) -> TrainingDivergedError:
    """The error for a step whose loss or gradient is not finite.

    Args:
        settings: those of the step.
        steps: the number of steps in an epoch.
        loss, norm: the loss of the step and the norm of its gradient.
        state: the file with the state after the last whole epoch.
    """
    return TrainingDivergedError(
        f"{settings.recipe.name} diverged in epoch {settings.epoch + 1}, step {settings.number + 1} of {steps}: the "
        f"loss is {loss:g} and its gradient's norm {norm:g}. {_advice(settings, state)}"
    )


def error_after_epoch(settings: StepSettings, tensor: str, state: Path) -> TrainingDivergedError:
    """The error for an epoch after which a tensor of the network, called `tensor`, is not finite.

    Args:
        settings: those of the epoch's last step.
        tensor: the name of the parameter or statistic.
        state: the file with the state after the last whole epoch.
    """
    return TrainingDivergedError(
        f"{settings.recipe.name} diverged in epoch {settings.epoch + 1}: after its last step {tensor} holds NaN or "
        f"infinite values. {_advice(settings, state)}"
    )


def tensors_not_finite(model: nn.Module) -> list[str]:
    """The names of the parameters and statistics that hold NaN or infinite values. Waits for the device once."""
    values = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    finite = torch.stack([torch.isfinite(value).all() for value in values.values()]).tolist()
    return [name for name, good in zip(values, finite, strict=True) if not good]


def _advice(settings: StepSettings, state: Path) -> str:
    epoch = settings.epoch
    progress = f"the state after epoch {epoch} is in {state}" if epoch else "no epoch was completed"
    return (
        f"Likely causes: a learning rate ({settings.lr:g}) too high, eps (now {settings.eps:g}) growing too fast, or "
        f"an initialisation ({settings.recipe.initialization}) whose bounds explode; {progress}"
    )

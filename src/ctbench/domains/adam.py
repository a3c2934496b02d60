"""The step of Adam (Kingma & Ba 2015), as a function: samples may be dropped between steps."""

from __future__ import annotations

from torch import Tensor

MEAN_DECAY, SQUARE_DECAY, TINY = 0.9, 0.999, 1e-8


def direction(gradient: Tensor, mean: Tensor, square: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """The direction of step number `step`, counted from 1, with entries of about unit size; and the new moments."""
    mean = mean.lerp(gradient, 1 - MEAN_DECAY)
    square = (square * SQUARE_DECAY).addcmul_(gradient, gradient, value=1 - SQUARE_DECAY)
    scale = (square / (1 - SQUARE_DECAY**step)).sqrt_().add_(TINY)
    return (mean / (1 - MEAN_DECAY**step)).div_(scale), mean, square

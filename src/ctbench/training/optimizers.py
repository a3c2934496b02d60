"""The optimisers, with a step-wise learning rate: lr times `decay` for every milestone that is past.

Adam(lr=5e-4, milestones=(50, 60))
SGD(lr=0.05, momentum=0.9)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """How gradients become steps.

    Args:
        lr: the learning rate, times `decay` from the start of each epoch in `milestones` on.
        milestones: these epochs, counted from 0, in ascending order.
        decay: the factor of the learning rate.
        clip_norm: the most that the l2 norm of the whole gradient may be; longer ones are scaled down. None for any.
    """

    name: ClassVar[str]
    lr: float
    milestones: tuple[int, ...] = ()
    decay: float = 0.2
    clip_norm: float | None = 10.0

    def __post_init__(self) -> None:
        for name in ("lr", "decay", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}: it must be > 0")
        if any(a >= b for a, b in pairwise((-1, *self.milestones))):
            raise ValueError(f"milestones are {list(self.milestones)}: give epochs in ascending order, from 0 on")

    def lr_at(self, epoch: int) -> float:
        return self.lr * self.decay ** sum(epoch >= milestone for milestone in self.milestones)

    @abstractmethod
    def of(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """PyTorch's, for these parameters."""


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam with its usual moments, without weight decay."""

    name: ClassVar[str] = "adam"
    lr: float = 5e-4

    def of(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr, fused=True)


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent.

    Args:
        momentum: the share of the last step's direction that is added to the gradient.
        weight_decay: the multiple of the weights that is added to the gradient.
    """

    name: ClassVar[str] = "sgd"
    lr: float = 0.05
    clip_norm: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1 or not 0 <= self.weight_decay < math.inf:
            raise ValueError(
                f"momentum is {self.momentum} and weight_decay {self.weight_decay}: "
                f"give a share in [0, 1) and a number >= 0"
            )

    def of(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, fused=True
        )

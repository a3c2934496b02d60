"""The optimisers, with a step-wise learning rate: lr times `decay` for every milestone in the past.

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
    """An optimiser and its learning rates.

    Args:
        lr: the learning rate; it is multiplied by `decay` at the start of each epoch in `milestones`.
        milestones: these epochs, counted from 0, in ascending order.
        decay: the factor of the learning rate.
        clip_norm: the largest l2 norm of the whole gradient; a longer gradient is scaled down. None: no limit.
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
            raise ValueError(f"milestones are {list(self.milestones)}: give epochs >= 0 in ascending order")

    def lr_at(self, epoch: int) -> float:
        return self.lr * self.decay ** sum(epoch >= milestone for milestone in self.milestones)

    @abstractmethod
    def of(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of PyTorch for these parameters."""


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam with the usual decay of its moments, without weight decay."""

    name: ClassVar[str] = "adam"
    lr: float = 5e-4

    def of(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr, fused=True)


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent.

    Args:
        momentum: the share of the last direction that is added to the gradient.
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

"""What a training method is: a frozen dataclass whose fields are its hyper-parameters and whose call is its formula.

    method(net, batch) -> RobustLoss

A method sees a frozen graph, so its attack, its bounds and its loss all use the statistics of the clean batch, and it
returns everything that it found out: nothing is left on the network.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.graph import Graph
from ctbench.members import members
from ctbench.regions import Box, Region


@dataclass(frozen=True, eq=False)
class Batch:
    x: Tensor  # [B, *shape], pixels in [0, 1]
    y: Tensor  # [B]
    region: Region  # around x, at this step's eps
    logits: Tensor  # [B, K], of the clean pass
    generator: torch.Generator | None = None  # the source of all randomness
    region_at: Callable[[float], Region] | None = None  # around x, at a multiple of this step's eps

    def scaled(self, scale: float) -> Region:
        """The region at a multiple of eps. Raises ValueError where the batch does not know it."""
        if scale == 1:
            return self.region
        if self.region_at is None:
            raise ValueError(
                f"the method takes {scale:g} times eps but the batch does not say how to scale its region: give it "
                f"region_at, as in Batch(..., region_at=lambda scale: Linf(eps=scale * eps).region(x))"
            )
        return self.region_at(scale)


@dataclass(frozen=True, eq=False)
class RobustLoss:
    """What a method finds for a batch.

    Raises:
        ValueError: the losses are not one for each sample, or `correct` is not one truth value for each.
    """

    per_sample: Tensor  # [B]
    correct: Tensor  # [B] bool: right over the whole region, by the method's own estimate
    boxes: list[Box] | None = None  # of every node, where the method has computed them
    whole: bool = True  # whether the boxes may be those of the whole region, and not of a part of it

    def __post_init__(self) -> None:
        losses, correct = self.per_sample, self.correct
        if losses.dim() != 1 or correct.shape != losses.shape or correct.dtype != torch.bool:
            raise ValueError(
                f"per_sample has shape {list(losses.shape)}, correct {list(correct.shape)} and type {correct.dtype}: "
                f"give a loss for each sample, [B], and whether it is correct, [B] of torch.bool"
            )


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A training method. Fields carry the defaults of its paper; any of them can be set in a recipe."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        """The robust loss of a batch on a frozen network, differentiable in its parameters."""

    def prelude(self, net: Graph, batch: Batch) -> Tensor | None:
        """A loss that gets an optimisation step of its own before the main one, after which the batch is frozen anew.

        None, as for most methods, makes no such step.
        """
        return None


def methods() -> dict[str, type[Method]]:
    """Return all methods by name: those of this package, and all other subclasses of `Method` defined so far."""
    return members(Method)


def check_shares(method: Method, *names: str) -> None:
    """Raise ValueError unless each of these fields is a share, a number from 0 to 1."""
    for name in names:
        value = getattr(method, name)
        if not (isinstance(value, int | float) and 0 <= value <= 1):
            raise ValueError(f"{name} of {method.name} is {value}: it is a share, give a number from 0 to 1")


def check_weights(method: Method, *names: str) -> None:
    """Raise ValueError unless each of these fields is a finite number of at least 0."""
    for name in names:
        value = getattr(method, name)
        if not (isinstance(value, int | float) and 0 <= value < math.inf):
            raise ValueError(f"{name} of {method.name} is {value}: it must be a number >= 0")

"""The base class of training methods: frozen dataclasses. The fields are hyper-parameters, the call is the formula.

    method(net, batch) -> RobustLoss

A method sees a frozen graph, so its attack, its bounds and its loss all use the statistics of the clean batch. It
returns all results, and does not change the network.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.graph import Graph
from ctbench.members import members
from ctbench.regions import Box, Region, Threat


@dataclass(frozen=True, eq=False)
class Batch:
    x: Tensor  # [B, *shape], pixels in [0, 1]
    y: Tensor  # [B]
    region: Region  # the region around x with the eps of this step
    logits: Tensor  # [B, K], from the clean pass
    generator: torch.Generator | None = None  # the source of all randomness
    region_at: Callable[[float], Region] | None = None  # the region around x at a multiple of the eps of this step

    @classmethod
    def within(cls, threat: Threat, x: Tensor, y: Tensor, logits: Tensor, generator: torch.Generator) -> Batch:
        """A batch with the regions of a threat model around its inputs, for its eps and for any multiple of eps."""

        def region_at(scale: float) -> Region:
            return replace(threat, eps=scale * threat.eps).region(x)

        return cls(x, y, region_at(1.0), logits, generator, region_at)

    def scaled(self, scale: float) -> Region:
        """The region at a multiple of eps. Raises ValueError if the batch has no `region_at`."""
        if scale == 1:
            return self.region
        if self.region_at is None:
            raise ValueError(
                f"the method takes {scale:g} times eps but the batch does not say how to scale its region: give it "
                f"region_at, e.g. Batch(..., region_at=lambda scale: Linf(eps=scale * eps).region(x))"
            )
        return self.region_at(scale)


@dataclass(frozen=True, eq=False)
class RobustLoss:
    """The result of a method for a batch.

    Raises:
        ValueError: there is not one loss for each sample, or not one bool in `correct` for each sample.
    """

    per_sample: Tensor  # [B]
    correct: Tensor  # [B] bool: right over the whole region, as estimated by the method
    boxes: list[Box] | None = None  # bounds of every node, if the method computes them
    whole: bool = True  # whether the boxes are for the whole region, not for a part of it

    def __post_init__(self) -> None:
        losses, correct = self.per_sample, self.correct
        if losses.dim() != 1 or correct.shape != losses.shape or correct.dtype != torch.bool:
            raise ValueError(
                f"per_sample has shape {list(losses.shape)}, correct {list(correct.shape)} and type {correct.dtype}: "
                f"give a loss for each sample, [B], and whether it is correct, [B] of torch.bool"
            )


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A training method. Fields have the defaults of its paper; a recipe can set any of them."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        """The robust loss of a batch on a frozen network, differentiable in its parameters."""

    def prelude(self, net: Graph, batch: Batch) -> Tensor | None:
        """A loss for a separate optimisation step before the main step. After it, the clean pass is computed again.

        None, the value for most methods, means no such step.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class Unavailable(Method):
    """Stands for a method whose class is not there, in the recipe of a run that is only used, not trained.

    Args:
        settings: its name and fields, as JSON.
    """

    name: ClassVar[str] = "unavailable"
    record_only: ClassVar[bool] = True
    settings: str

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        """Raises ValueError: the module of the method has to be imported."""
        raise ValueError(f"the method {self.settings} is not defined: import its module (--import MODULE)")


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

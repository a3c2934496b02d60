"""The base class of attacks: a frozen dataclass that searches a region for a point with a large objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.regions import Region

# points [R, B, *shape] to the values that the adversary maximises, [R, B]
Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """A search for a point of a region with a large objective."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(
        self, objective: Objective, region: Region, x: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The best point found for each sample, [B, *shape], without gradient.

        Args:
            objective: points [R, B, *shape] to values [R, B]; samples must not influence one another.
            region: where to search.
            x: the clean inputs, [B, *shape].
            generator: the source of all randomness.
        """

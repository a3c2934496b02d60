"""What an attack is: a frozen dataclass that searches a region for the point at which an objective is large."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.regions import Region

# points [R, B, *shape] to what the adversary wants large there, [R, B]
Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """A search for the point of a region at which an objective is large."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(
        self, objective: Objective, region: Region, x: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The best point found for each sample, [B, *shape], without gradient.

        Args:
            objective: points [R, B, *shape] to values [R, B]; samples do not influence one another.
            region: where to search.
            x: the clean inputs, [B, *shape].
            generator: the source of all randomness.
        """

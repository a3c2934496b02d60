"""Projected gradient descent (PGD): Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks".

    x_{t+1} = project(x_t + eta r sign(grad objective(x_t))),   x_0 = project(x + uniform in [-r, r]), r the radius

For each sample, the best of all S + 1 points of all restarts is returned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.attacks.base import Attack, Objective
from ctbench.regions import Region


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Sign-gradient steps from random starts; all restarts are one batch.

    Args:
        steps: the number of gradient steps S; S + 1 points are compared and S gradients computed.
        restarts: the number of random starts R.
        step_size: the length of the first step as a share of the radius; None: max(0.25, 2 / S).
        decay_at: shares of S after which the step is multiplied by `decay`; None chooses them from S like CTBench.
        decay: this factor; None chooses it from S.
        clean_start: use x itself as the first start.

    Raises:
        ValueError: a field is out of range.
    """

    name: ClassVar[str] = "pgd"
    steps: int = 10
    restarts: int = 1
    step_size: float | None = None
    decay_at: tuple[float, ...] | None = None
    decay: float | None = None
    clean_start: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0 or self.restarts < 1:
            raise ValueError(f"an attack takes steps >= 0 and restarts >= 1, got {self.steps} and {self.restarts}")
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"step_size is {self.step_size}: a step must be > 0 (as a share of the radius)")
        if self.decay is not None and not 0 < self.decay < math.inf:
            raise ValueError(f"decay is {self.decay}: steps are multiplied by it, give a number > 0")
        if not all(0 <= share <= 1 for share in self.decay_at or ()):
            raise ValueError(f"decay_at is {self.decay_at}: these are shares of the steps, each from 0 to 1")

    def step_sizes(self) -> list[float]:
        """The length of each of the S steps, as a share of the radius."""
        if self.steps == 0:
            return []
        size = max(0.25, 2 / self.steps) if self.step_size is None else self.step_size
        milestones, factor = self._decay()
        return [size * factor ** sum(step >= milestone for milestone in milestones) for step in range(self.steps)]

    def _decay(self) -> tuple[list[int], float]:
        if self.decay_at is not None:
            milestones = [math.ceil(share * self.steps) for share in self.decay_at]
        elif self.steps < 20:
            milestones = [10]
        else:
            shares = (0.7,) if self.steps < 50 else (0.5, 0.8, 0.9)
            milestones = [math.ceil(share * self.steps) for share in shares]
        if self.decay is not None:
            return milestones, self.decay
        return milestones, 0.2 if self.steps < 20 else 0.1

    def __call__(
        self, objective: Objective, region: Region, x: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        points = region.start(x, self.restarts, generator)
        if self.clean_start:
            points[0] = region.project(x)
        best, highest = points, points.new_full(points.shape[:2], -math.inf)
        for size in self.step_sizes():
            with torch.enable_grad():
                points = points.detach().requires_grad_()
                values = objective(points)
                (gradient,) = torch.autograd.grad(values.sum(), points)
            best, highest = _better(points.detach(), values.detach(), best, highest)
            points = region.ascend(points.detach(), gradient, size)
        with torch.no_grad():
            best, highest = _better(points, objective(points), best, highest)
        winner = highest.argmax(dim=0)
        return best[winner, torch.arange(len(x), device=x.device)]


def _better(points: Tensor, values: Tensor, best: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
    """The better ones of two sets of points [R, B, *shape], with their values [R, B]; NaN is never better."""
    better = values > highest
    where = better.view(*better.shape, *[1] * (points.dim() - 2))
    return torch.where(where, points, best), torch.where(better, values, highest)

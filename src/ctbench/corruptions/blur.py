"""Corruptions that smear images: glass blur and motion blur."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.corruptions.base import Corruption, Draws, Levels, blurred, pixel_grid, sampled, side


@dataclass(frozen=True, kw_only=True)
class GlassBlur(Corruption):
    """Looks through rough glass: each pixel comes from a random place near it, between two slight Gaussian blurs."""

    name: ClassVar[str] = "glass_blur"
    levels: ClassVar[Levels] = (0.03, 0.05, 0.07, 0.095, 0.125)  # of the side

    def change(self, x: Tensor, draws: Draws) -> Tensor:
        rows, columns = pixel_grid(x)
        reach, sigma = self.level * side(x), 0.012 * side(x) + 0.1
        down, right = (draws.uniform(*x.shape[2:], low=-reach, high=reach) for _ in range(2))
        return blurred(sampled(blurred(x, sigma), rows + down, columns + right, outside="border"), sigma)


@dataclass(frozen=True, kw_only=True)
class MotionBlur(Corruption):
    """Moves the camera along a straight line in a random direction."""

    name: ClassVar[str] = "motion_blur"
    levels: ClassVar[Levels] = (0.12, 0.2, 0.28, 0.37, 0.48)  # the way, of the side

    def change(self, x: Tensor, draws: Draws) -> Tensor:
        rows, columns = pixel_grid(x)
        way, direction = self.level * side(x), draws.uniform(1, 1, high=math.pi)
        steps = torch.linspace(-way / 2, way / 2, 2 * math.ceil(way / 2) + 1, device=x.device, dtype=x.dtype)
        down, right = direction.sin(), direction.cos()
        moved = [sampled(x, rows + step * down, columns + step * right, outside="border") for step in steps]
        return torch.stack(moved).mean(0)

"""Corruptions of single pixels: shot noise, impulse noise, brightness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.corruptions.base import Corruption, Draws, Levels


@dataclass(frozen=True, kw_only=True)
class ShotNoise(Corruption):
    """Counts few particles of light: Poisson(rate x) / rate. Black stays black."""

    name: ClassVar[str] = "shot_noise"
    levels: ClassVar[Levels] = (60, 30, 15, 8, 4)  # particles at a white pixel

    def change(self, x: Tensor, draws: Draws) -> Tensor:
        return draws.poisson(self.level * x) / self.level


@dataclass(frozen=True, kw_only=True)
class ImpulseNoise(Corruption):
    """Turns random pixels black or white, all channels alike."""

    name: ClassVar[str] = "impulse_noise"
    levels: ClassVar[Levels] = (0.04, 0.1, 0.17, 0.25, 0.35)  # share of the pixels

    def change(self, x: Tensor, draws: Draws) -> Tensor:
        chance = draws.uniform(1, *x.shape[2:])
        return torch.where(chance < self.level, (chance < self.level / 2).to(x), x)


@dataclass(frozen=True, kw_only=True)
class Brightness(Corruption):
    """Adds light to all pixels."""

    name: ClassVar[str] = "brightness"
    levels: ClassVar[Levels] = (0.1, 0.2, 0.3, 0.4, 0.5)  # of white

    def change(self, x: Tensor, draws: Draws) -> Tensor:
        return x + self.level

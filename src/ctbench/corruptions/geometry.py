"""Corruptions that move the content of images: rotate, scale, shear, translate. What comes from outside is black."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.corruptions.base import Corruption, Draws, Levels, pixel_grid, sampled, side


@dataclass(frozen=True, kw_only=True)
class Affine(Corruption):
    """An affine map of the plane, for each image."""

    @abstractmethod
    def back(self, x: Tensor, draws: Draws) -> Tensor:
        """The map from the places of the result to those of the image, in pixels from the middle, [B, 6].

        Row by row: three entries for the row in the image, of row, column and 1, and three for the column.
        """

    def change(self, x: Tensor, draws: Draws) -> Tensor:
        rows, columns = pixel_grid(x)
        entries = self.back(x, draws).view(-1, 6, 1, 1)
        a, b, c, d, e, f = (entries[:, place] for place in range(6))  # [B, 1, 1] each
        return sampled(x, a * rows + b * columns + c, d * rows + e * columns + f)


def _stack(*entries: Tensor) -> Tensor:
    """The map with these six entries, [B] each."""
    return torch.stack(entries, dim=1)


@dataclass(frozen=True, kw_only=True)
class Rotate(Affine):
    """Turns by an angle, to a random side."""

    name: ClassVar[str] = "rotate"
    levels: ClassVar[Levels] = (12, 22, 32, 42, 55)  # degrees

    def back(self, x: Tensor, draws: Draws) -> Tensor:
        angle = draws.sign() * math.radians(self.level)
        zero = torch.zeros_like(angle)
        return _stack(angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero)


@dataclass(frozen=True, kw_only=True)
class Scale(Affine):
    """Shrinks towards the middle."""

    name: ClassVar[str] = "scale"
    levels: ClassVar[Levels] = (0.85, 0.75, 0.65, 0.55, 0.45)  # of the size

    def back(self, x: Tensor, draws: Draws) -> Tensor:
        factor = torch.full_like(draws.uniform(), 1 / self.level)
        zero = torch.zeros_like(factor)
        return _stack(factor, zero, zero, zero, factor, zero)


@dataclass(frozen=True, kw_only=True)
class Shear(Affine):
    """Slants rows against each other, to a random side."""

    name: ClassVar[str] = "shear"
    levels: ClassVar[Levels] = (0.2, 0.35, 0.5, 0.65, 0.85)  # columns per row

    def back(self, x: Tensor, draws: Draws) -> Tensor:
        slant = draws.sign() * self.level
        zero, one = torch.zeros_like(slant), torch.ones_like(slant)
        return _stack(one, zero, zero, slant, one, zero)


@dataclass(frozen=True, kw_only=True)
class Translate(Affine):
    """Moves in a random direction."""

    name: ClassVar[str] = "translate"
    levels: ClassVar[Levels] = (0.08, 0.14, 0.2, 0.26, 0.33)  # of the shorter side

    def back(self, x: Tensor, draws: Draws) -> Tensor:
        direction = draws.uniform(high=2 * math.pi)
        zero, one, length = torch.zeros_like(direction), torch.ones_like(direction), self.level * side(x)
        return _stack(one, zero, length * direction.sin(), zero, one, length * direction.cos())

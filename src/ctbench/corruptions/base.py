"""The base class of corruptions: a random change of images that keeps their class, in five severities.

    Fog(severity=3)(x, seed=0)      images [B, C, H, W] in [0, 1] to the same

The names are those of MNIST-C (Mu & Gilmer 2019, "MNIST-C: a robustness benchmark for computer vision"). The formulas
and severities are ours, so results are not comparable with those on MNIST-C. They suit images of any size, because
lengths are shares of the shorter side, and any number of channels. `ctbench.datasets.MNISTC` reads the published ones.

To add a corruption, write a subclass in a file of this package.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Levels: TypeAlias = tuple[float, float, float, float, float]

SEVERITIES = (1, 2, 3, 4, 5)
CHUNK = 256  # images that share a generator: the result for an image does not depend on how many follow it


class Draws:
    """Random numbers for the images of a batch, drawn on the CPU, so that they are the same on every device."""

    def __init__(self, seed: int, like: Tensor) -> None:
        self._generator = torch.Generator(torch.device("cpu")).manual_seed(seed)
        self._like = like

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers in [low, high), [B, *shape]."""
        numbers = torch.rand(len(self._like), *shape, generator=self._generator, device=self._generator.device)
        return (low + (high - low) * numbers).to(self._like)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, [B, *shape]."""
        numbers = torch.randn(len(self._like), *shape, generator=self._generator, device=self._generator.device)
        return numbers.to(self._like)

    def sign(self) -> Tensor:
        """-1 or 1 for each image, [B]."""
        return torch.where(self.uniform() < 0.5, -1.0, 1.0)

    def poisson(self, rate: Tensor) -> Tensor:
        """Poisson counts, of the shape of their rates, which has the batch first."""
        return torch.poisson(rate.to(self._generator.device), self._generator).to(self._like)


@dataclass(frozen=True, kw_only=True)
class Corruption(ABC):
    """A random change of images.

    Args:
        severity: from 1 (weak) to 5 (strong).

    Raises:
        ValueError: the severity is another number.
    """

    name: ClassVar[str]
    levels: ClassVar[Levels]  # the strength at each severity
    severity: int = 3

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity is {self.severity}: it must be a whole number from 1 to 5")

    @property
    def level(self) -> float:
        """The strength at this severity, in the unit of the corruption."""
        return self.levels[self.severity - 1]

    @abstractmethod
    def change(self, x: Tensor, draws: Draws) -> Tensor:
        """Corrupt images of single precision, [B, C, H, W]; what leaves [0, 1] is cut off afterwards."""

    @torch.no_grad()
    def __call__(self, x: Tensor, *, seed: int = 0) -> Tensor:
        """Corrupt images; the same seed gives the same random numbers on every device.

        Args:
            x: images, [B, C, H, W], floating point in [0, 1], at least 4 pixels high and wide.
            seed: of the random numbers, in [0, 2^31).

        Returns:
            The images in [0, 1], of the shape, type and device of x.

        Raises:
            ValueError: x are not such images, or the seed is out of range.
        """
        if x.dim() != 4 or not x.is_floating_point() or min(x.shape[2:]) < 4:
            raise ValueError(
                f"x is {x.dtype} of shape {list(x.shape)}: give images [B, C, H, W] in floating point, H, W >= 4"
            )
        if len(x) and not (bool((x >= 0).all()) and bool((x <= 1).all())):
            raise ValueError(f"pixels lie in [{float(x.min()):.4g}, {float(x.max()):.4g}]: scale them to [0, 1]")
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed is {seed}: it must be a whole number in [0, 2^31)")
        parts = [
            self.change(part.float(), Draws((seed * 1_000_003 + number) % 2**63, part.float())).clamp(0, 1)
            for number, part in enumerate(x.split(CHUNK))
        ]
        return torch.cat(parts).to(x.dtype) if parts else x


def side(x: Tensor) -> int:
    """The number of pixels of the shorter side: the unit of lengths."""
    return min(x.shape[2:])


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Images after a Gaussian blur of `sigma` pixels; the edge is repeated."""
    reach = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = (-(offsets**2) / (2 * sigma**2)).exp()
    kernel = kernel / kernel.sum()
    flat = x.flatten(0, 1).unsqueeze(1)  # [B C, 1, H, W]
    flat = F.pad(flat, (reach, reach, reach, reach), mode="replicate")
    flat = F.conv2d(flat, kernel.view(1, 1, 1, -1))
    flat = F.conv2d(flat, kernel.view(1, 1, -1, 1))
    return flat.view_as(x)


def pixel_grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [H, 1] and columns [1, W] of the pixels, in pixels from the middle of the image."""
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device, dtype=x.dtype) - (height - 1) / 2
    columns = torch.arange(width, device=x.device, dtype=x.dtype) - (width - 1) / 2
    return rows.unsqueeze(1), columns.unsqueeze(0)


def sampled(x: Tensor, rows: Tensor, columns: Tensor, *, outside: Literal["zeros", "border"] = "zeros") -> Tensor:
    """Images whose pixels are looked up elsewhere, by bilinear interpolation.

    Args:
        x: images, [B, C, H, W].
        rows, columns: where, in pixels from the middle of the image, [B, H, W] each, or of shapes that broadcast to it.
        outside: "zeros" is black, "border" repeats the edge.
    """
    height, width = x.shape[2:]
    rows, columns = (places.expand(len(x), height, width) for places in (rows, columns))
    grid = torch.stack([2 * columns / (width - 1), 2 * rows / (height - 1)], dim=-1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=outside, align_corners=True)

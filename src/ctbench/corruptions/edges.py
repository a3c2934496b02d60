"""The corruption that leaves edges alone, found by the algorithm of Canny 1986.

"A computational approach to edge detection": smooth, take gradients, keep the pixels where the gradient is greatest
across the edge, and of these the strong ones, and the weak ones that are connected with strong ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.corruptions.base import Corruption, Draws, Levels, blurred, side

WEAK, STRONG = 0.1, 0.2  # of the greatest gradient of an image
NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1))  # across edges of four directions: rows and columns


@dataclass(frozen=True, kw_only=True)
class CannyEdges(Corruption):
    """Fades the image and draws its edges in white; at severity 5 only edges are left."""

    name: ClassVar[str] = "canny_edges"
    levels: ClassVar[Levels] = (0.45, 0.6, 0.75, 0.88, 1.0)  # how far it fades

    def change(self, x: Tensor, draws: Draws) -> Tensor:
        return torch.maximum((1 - self.level) * x, edges(x).to(x))


def edges(x: Tensor) -> Tensor:
    """The edges of images, [B, C, H, W] to [B, 1, H, W] bool; of the mean of the channels."""
    grey = blurred(x.mean(1, keepdim=True), max(0.5, 0.025 * side(x)))
    slopes = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=x.device, dtype=x.dtype)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    right, down = (F.conv2d(padded, kernel.view(1, 1, 3, 3)) for kernel in (slopes, slopes.T))
    strength = right.hypot(down)
    thin = strength * _is_ridge(strength, torch.atan2(down, right))
    greatest = strength.amax((2, 3), keepdim=True).clamp(min=1e-3)
    candidates, edges = thin > WEAK * greatest, thin > STRONG * greatest
    for _ in range(side(x)):
        edges = candidates & _grown(edges)
    return edges


def _grown(chosen: Tensor) -> Tensor:
    """The chosen pixels, [B, 1, H, W] bool, and their eight neighbours."""
    for axis in (2, 3):
        before, after = chosen.narrow(axis, 0, chosen.shape[axis] - 1), chosen.narrow(axis, 1, chosen.shape[axis] - 1)
        edge = torch.zeros_like(chosen.narrow(axis, 0, 1))
        chosen = chosen | torch.cat([edge, before], axis) | torch.cat([after, edge], axis)
    return chosen


def _is_ridge(strength: Tensor, angle: Tensor) -> Tensor:
    """Whether the gradient of a pixel is at least as great as those on both sides of it, along the gradient."""
    octant = (angle / (math.pi / 4)).round().long() % 4  # of the direction of the gradient, up to its sign
    padded = F.pad(strength, (1, 1, 1, 1))
    height, width = strength.shape[2:]
    ridge = torch.zeros_like(strength, dtype=torch.bool)
    for number, (down, right) in enumerate(NEIGHBOURS):
        ahead = padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        behind = padded[..., 1 - down : 1 - down + height, 1 - right : 1 - right + width]
        ridge |= (octant == number) & (strength >= ahead) & (strength > behind)
    return ridge

"""Corruptions that lay something over images: dotted line, zigzag, stripe, spatter, fog."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.corruptions.base import Corruption, Draws, Levels, blurred, pixel_grid, side

DOTS, TURNS = 9, 7  # of a dotted line, and of a zigzag


def _across(x: Tensor, draws: Draws, count: int) -> Tensor:
    """Points at even distances on a line through the image, from edge to edge: rows and columns, [B, count, 2].

    The line has a random direction, and passes the middle at up to an eighth of the side.
    """
    direction, reach = draws.uniform(1, high=math.pi), 0.62 * side(x)
    along = torch.linspace(-reach, reach, count, device=x.device, dtype=x.dtype)
    beside = draws.uniform(1, low=-0.125, high=0.125) * side(x)
    rows = along * direction.sin() + beside * direction.cos()
    columns = along * direction.cos() - beside * direction.sin()
    return torch.stack([rows, columns], dim=-1)


def _distances(x: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """The distance of each pixel to the nearest of some segments, whose ends are [B, S, 2] each: [B, H, W]."""
    rows, columns = pixel_grid(x)
    nearest = x.new_full((len(x), *x.shape[2:]), math.inf)
    # one segment at a time, so that no tensor is larger than the images
    for start, way in zip(starts.unbind(1), (ends - starts).unbind(1), strict=True):
        top, left, way_down, way_right = (place.view(-1, 1, 1) for place in (*start.unbind(1), *way.unbind(1)))
        down, right = rows - top, columns - left  # from the start to the pixel
        length = (way_down**2 + way_right**2).clamp(min=1e-12)
        share = ((down * way_down + right * way_right) / length).clamp(0, 1)  # of the way, to the nearest point
        nearest = torch.minimum(nearest, (down - share * way_down).hypot(right - share * way_right))
    return nearest


def _painted(x: Tensor, distances: Tensor, radius: float) -> Tensor:
    """Images with white where the distance is below a radius, with soft edges of a pixel."""
    return torch.maximum(x, (radius + 0.5 - distances).clamp(0, 1).unsqueeze(1))


@dataclass(frozen=True, kw_only=True)
class DottedLine(Corruption):
    """Draws a white dotted line across the image."""

    name: ClassVar[str] = "dotted_line"
    levels: ClassVar[Levels] = (0.02, 0.028, 0.036, 0.046, 0.06)  # radius of the dots

    def change(self, x: Tensor, draws: Draws) -> Tensor:
        dots = _across(x, draws, DOTS)
        return _painted(x, _distances(x, dots, dots), self.level * side(x))


@dataclass(frozen=True, kw_only=True)
class Zigzag(Corruption):
    """Draws a white zigzag line across the image; with the severity, its turns become wider and the line thicker."""

    name: ClassVar[str] = "zigzag"
    levels: ClassVar[Levels] = (0.04, 0.07, 0.11, 0.15, 0.2)  # half the width

    def change(self, x: Tensor, draws: Draws) -> Tensor:
        line = _across(x, draws, TURNS + 2)
        way = line[:, -1:] - line[:, :1]
        normal = torch.stack([way[..., 1], -way[..., 0]], dim=-1) / way.norm(dim=-1, keepdim=True)  # [B, 1, 2]
        turns = torch.arange(TURNS + 2, device=x.device) % 2 * 2 - 1
        points = line + self.level * side(x) * turns.view(1, -1, 1) * normal
        return _painted(x, _distances(x, points[:, :-1], points[:, 1:]), (0.015 + 0.08 * self.level) * side(x))


@dataclass(frozen=True, kw_only=True)
class Stripe(Corruption):
    """Inverts a vertical stripe at a random place."""

    name: ClassVar[str] = "stripe"
    levels: ClassVar[Levels] = (0.08, 0.15, 0.22, 0.3, 0.4)  # of the width

    def change(self, x: Tensor, draws: Draws) -> Tensor:
        _, columns = pixel_grid(x)  # [1, W]
        width = x.shape[3]
        middle = draws.uniform(1, 1, low=-0.25, high=0.25) * width
        inside = (columns - middle).abs() < max(self.level * width, 1.0) / 2  # [B, 1, W]
        return torch.where(inside.unsqueeze(1), 1 - x, x)


@dataclass(frozen=True, kw_only=True)
class Spatter(Corruption):
    """Splashes drops of a light liquid on the lens: where a blurred noise is greatest."""

    name: ClassVar[str] = "spatter"
    levels: ClassVar[Levels] = (0.04, 0.08, 0.13, 0.19, 0.27)  # share of the image

    def change(self, x: Tensor, draws: Draws) -> Tensor:
        height, width = x.shape[2:]
        noise = blurred(draws.normal(1, height, width), 0.05 * side(x))
        place = round((1 - self.level) * (height * width - 1))
        bar = noise.flatten(1).sort(1).values[:, place].view(-1, 1, 1, 1)
        spread = noise.flatten(1).std(1).view(-1, 1, 1, 1)
        drops = ((noise - bar) / (0.25 * spread) + 0.5).clamp(0, 1)
        return x * (1 - drops) + 0.75 * drops


@dataclass(frozen=True, kw_only=True)
class Fog(Corruption):
    """Mixes the image with clouds: noise of several scales, each octave half as strong as the one before."""

    name: ClassVar[str] = "fog"
    levels: ClassVar[Levels] = (0.3, 0.42, 0.54, 0.65, 0.75)  # share of the clouds

    def change(self, x: Tensor, draws: Draws) -> Tensor:
        clouds = torch.zeros_like(x[:, :1])
        cells, weight = 2, 1.0
        while cells < side(x):
            grid = draws.uniform(1, cells + 1, cells + 1)
            clouds += weight * F.interpolate(grid, size=x.shape[2:], mode="bilinear", align_corners=True)
            cells, weight = 2 * cells, weight / 2
        low, high = clouds.amin((2, 3), keepdim=True), clouds.amax((2, 3), keepdim=True)
        clouds = 0.35 + 0.65 * (clouds - low) / (high - low)
        return (1 - self.level) * x + self.level * clouds

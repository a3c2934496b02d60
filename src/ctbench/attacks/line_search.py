"""Line search, for regions that consist of segments: a grid on each segment, then finer grids around the best point.

    s, j = argmax of objective(c + s a_j)   over all segments j and G shares s from -1 to 1
    s    = argmax of objective(c + s a_j)   over G shares from s - h to s + h,   h = (2 / (G - 1))^i,   i = 1, 2, ...

The ends -1 and 1, the two signs of the signal, are among the first shares; h is the spacing of the previous grid.

"How robust accuracy suffers from certified training with convex relaxations" and "Certified defences can hurt
generalisation" need such a search to measure robustness to perturbations along a signal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.attacks.base import Attack, Objective
from ctbench.regions import Region, SegmentUnion


@dataclass(frozen=True, kw_only=True)
class LineSearch(Attack):
    """The best point of a grid on each segment, and of finer grids around it; no gradient and no random numbers.

    Args:
        points: the size G of a grid. The points of a segment are one batch, so k segments need k batches.
        refinements: the number of finer grids.
    """

    name: ClassVar[str] = "line-search"
    points: int = 101
    refinements: int = 3

    def __post_init__(self) -> None:
        if self.points < 3 or self.refinements < 0:
            raise ValueError(
                f"a line search takes points >= 3 and refinements >= 0, got {self.points} and {self.refinements}"
            )

    def __call__(
        self, objective: Objective, region: Region, x: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        center, arms = segments(region)
        grid = torch.linspace(-1, 1, self.points, dtype=x.dtype, device=x.device).unsqueeze(1)

        def points(arm: Tensor, shares: Tensor) -> Tensor:
            return region.project(center + shares.view(*shares.shape, *[1] * (x.dim() - 1)) * arm)

        def look(arm: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
            """The largest value at shares [G, B], and its share, both [B]; NaN counts as the smallest value."""
            with torch.no_grad():
                values = objective(points(arm, shares))
            highest, index = values.masked_fill(values.isnan(), -math.inf).max(dim=0, keepdim=True)
            return highest[0], shares.gather(0, index)[0]

        arm = arms[0]
        highest, share = look(arm, grid.expand(-1, len(x)))
        for other in arms[1:]:
            value, at = look(other, grid.expand(-1, len(x)))
            better = value > highest
            arm = torch.where(better.view(-1, *[1] * (x.dim() - 1)), other, arm)
            highest, share = torch.where(better, value, highest), torch.where(better, at, share)
        width = 1.0
        for _ in range(self.refinements):
            width *= 2 / (self.points - 1)
            value, at = look(arm, share + width * grid)
            share = torch.where(value > highest, at, share)
            highest = torch.maximum(value, highest)
        return points(arm, share)


@singledispatch
def segments(region: Region) -> tuple[Tensor, Tensor]:
    """The segments that a region consists of: c [B, *shape] and a [k, B, *shape], for all c + s a_j with |s| <= 1.

    A one-dimensional region of any class is one segment. Register a new class of segments with `@segments.register`.

    Raises:
        ValueError: the region does not consist of segments, and more than one coordinate of a sample can move.
    """
    hull = region.hull
    moving = int((hull.radius > 0).flatten(1).sum(1).amax())
    if moving > 1:
        raise ValueError(
            f"the region is a {type(region).__name__} in which {moving} coordinates move at once: a line search needs "
            f"segments, e.g. those of FirstCoordinate, Segments and RandomSegments; for other regions use PGD or APGD"
        )
    return hull.center, hull.radius.unsqueeze(0)


@segments.register
def _(region: SegmentUnion) -> tuple[Tensor, Tensor]:
    arms = region.radius * region.directions
    return region.center, arms.unsqueeze(1).expand(-1, len(region.center), *arms.shape[1:])

"""The gradient connector of TAPS (Mao et al. 2023, section 3): how a point found in a box moves with its bounds.

For a point p in [l, u], coordinate by coordinate (their Figure 3):

    dp/dl = max(0, 1 - (p - l) / (c (u - l))),   dp/du = max(0, 1 - (u - p) / (c (u - l)));   1/2 both where l = u

c = 0 lets a point on a face move with that face alone, c = 1 is the point at a fixed share of the way from l to u.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ctbench.regions import Box

TOLERANCE = 1e-5  # a point this near to a face lies on it, and a box this narrow is a point


def connect(points: Tensor, box: Box, share: float) -> Tensor:
    """The same points [B, N, *shape], from which gradients reach the bounds of the box, [B, *shape]; c is `share`."""
    points, lower, upper = points.detach(), box.lower.unsqueeze(1), box.upper.unsqueeze(1)
    with torch.no_grad():
        width = upper - lower
        reach = (share * width).clamp(min=TOLERANCE)
        with_lower, with_upper = (
            torch.where(width > TOLERANCE, (1 - distance / reach).clamp(min=0), 0.5)
            for distance in (points - lower, upper - points)
        )
    return points + with_lower * (lower - lower.detach()) + with_upper * (upper - upper.detach())

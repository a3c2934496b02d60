"""The gradient connector of TAPS (Mao et al. 2023, section 3): how a point found in a box moves with its bounds.

For a point p in [l, u], coordinate by coordinate (their Figure 3):

    dp/dl = max(0, 1 - (p - l) / (c (u - l))),   dp/du = max(0, 1 - (u - p) / (c (u - l)));   1/2 both where l = u

c = 0 lets a point on a face move with that face alone, c = 1 is the point at a fixed share of the way from l to u.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctbench.regions import Box

TOLERANCE = 1e-5  # a point this near to a face lies on it, and a box this narrow is a point


def connect(points: Tensor, box: Box, share: float) -> Tensor:
    """The same points [B, N, *shape], from which gradients reach the bounds of the box, [B, *shape]; c is `share`."""
    connected: Tensor = _Connector.apply(points.detach(), box.lower, box.upper, share)  # type: ignore[no-untyped-call]
    return connected


class _Connector(torch.autograd.Function):
    """The points; all work is in the gradient, in place, as there are many of them."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, lower: Tensor, upper: Tensor, share: float) -> Tensor:
        ctx.save_for_backward(points, lower, upper)
        ctx.share = share
        return points.view_as(points)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor, None]:
        points, lower, upper = ctx.saved_tensors
        width = upper - lower
        wide = width > TOLERANCE
        highest = torch.where(wide, 1.0, 0.5).unsqueeze(1)  # of dp/dl and dp/du, on the face itself
        slope = torch.where(wide, -1 / (ctx.share * width).clamp(min=TOLERANCE), 0.0).unsqueeze(1)

        def along(distance: Tensor) -> Tensor:
            return torch.addcmul(highest, distance, slope, out=distance).clamp_(min=0).mul_(gradient).sum(1)

        return None, along(points - lower.unsqueeze(1)), along(upper.unsqueeze(1) - points), None

"""The gradient connector of TAPS (Mao et al. 2023, section 3): how a point in a box moves with the bounds of the box.

For a point p in [l, u], coordinate by coordinate (their Figure 3):

    dp/dl = max(0, 1 - (p - l) / (c (u - l))),   dp/du = max(0, 1 - (u - p) / (c (u - l)));   1/2 both where l = u

With c = 0 a point on a face moves only with this face; with c = 1 a point keeps its share of the way from l to u.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctbench.regions import Box

TOLERANCE = 1e-5  # a point closer to a face than this lies on it, and a box narrower than this is a point


def connect(points: Tensor, box: Box, share: float) -> Tensor:
    """The same points [B, N, *shape], with gradients for the bounds of the box, [B, *shape]; c is `share`."""
    connected: Tensor = _Connector.apply(points.detach(), box.lower, box.upper, share)  # type: ignore[no-untyped-call]
    return connected


class _Connector(torch.autograd.Function):
    """The identity on the points. The gradient is computed in place, because there are many points."""

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
        highest = torch.where(wide, 1.0, 0.5).unsqueeze(1)  # the maximum of dp/dl and dp/du, on the face itself
        slope = torch.where(wide, -1 / (ctx.share * width).clamp(min=TOLERANCE), 0.0).unsqueeze(1)

        def along(distance: Tensor) -> Tensor:
            return torch.addcmul(highest, distance, slope, out=distance).clamp_(min=0).mul_(gradient).sum(1)

        return None, along(points - lower.unsqueeze(1)), along(upper.unsqueeze(1) - points), None

"""Auto-PGD (APGD): Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", section 3 and Algorithm 1.

    z_{t+1} = project(x_t + eta r direction(grad objective(x_t))),   r the radius, eta = 2 at first
    x_{t+1} = project(x_t + alpha (z_{t+1} - x_t) + (1 - alpha) (x_t - x_{t-1})),   x_1 = z_1

At a checkpoint w_j, the step eta is halved and the search continues from the best point so far, if

    (1) objective(x_{t+1}) > objective(x_t) in fewer than rho (w_j - w_{j-1}) of the steps since w_{j-1}, or
    (2) neither eta (at w_{j-1}) nor the best value (since w_{j-1}) changed.

    w_j = ceil(p_j S),   p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ctbench.attacks.base import Attack, Objective
from ctbench.regions import Region


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Steepest ascent with momentum. Each sample of each restart halves its step size, which is not a parameter.

    The region defines the direction of a step: the sign of the gradient in a box, its unit vector in an l2 ball.

    Args:
        steps: the number of steps S; S + 1 points are compared and S + 1 gradients computed.
        restarts: the number of random starts R, all in one batch.
        rho: the share of steps that must raise the objective to keep the step size.
        momentum: alpha, the weight of the new step; 1 - alpha is the weight of the last step.
    """

    name: ClassVar[str] = "apgd"
    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    momentum: float = 0.75

    def __post_init__(self) -> None:
        if self.steps < 0 or self.restarts < 1:
            raise ValueError(f"an attack takes steps >= 0 and restarts >= 1, got {self.steps} and {self.restarts}")
        for name, share in (("rho", self.rho), ("momentum", self.momentum)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}: a share must be in [0, 1]")

    def checkpoints(self) -> list[int]:
        """The steps after which the step size may be halved, ascending."""
        shares = [0, 22]  # in percent: as floats, 0.57 + 0.13 of 100 steps would be rounded up to 71
        while (share := shares[-1] + max(shares[-1] - shares[-2] - 3, 6)) <= 100:
            shares.append(share)
        return sorted({-(-share * self.steps // 100) for share in shares[1:]})

    def __call__(
        self, objective: Objective, region: Region, x: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        here = best = _look(objective, region.start(x, self.restarts, generator))
        last, checked, since = here.points, best.values, 0
        halvings, rises = torch.zeros_like(here.values), torch.zeros_like(here.values)
        halved = torch.zeros_like(here.values, dtype=torch.bool)
        checkpoints = self.checkpoints()
        for step in range(1, self.steps + 1):
            # 2 times the radius, halved once per halving of each search
            points = region.ascend(here.points, here.gradient, 2 * 0.5 ** _widened(halvings, here.points))
            if step > 1:
                points = here.points + self.momentum * (points - here.points)
                points = region.project(points + (1 - self.momentum) * (here.points - last))
            last, before = here.points, here.values
            here = _look(objective, points)
            rises += here.values > before
            best = _where(here.values > best.values, here, best)
            if step in checkpoints:
                stuck = ~halved & (best.values == checked)
                halved = (rises < self.rho * (step - since)) | stuck
                here = _where(halved, best, here)
                halvings, rises, checked, since = halvings + halved, torch.zeros_like(rises), best.values, step
        winner = best.values.argmax(dim=0)
        return best.points[winner, torch.arange(len(x), device=x.device)]


class _Seen(NamedTuple):
    """Points [R, B, *shape] with the objective [R, B] and its gradient [R, B, *shape] there."""

    points: Tensor
    values: Tensor
    gradient: Tensor


def _look(objective: Objective, points: Tensor) -> _Seen:
    """The objective at some points, with its gradient; NaN counts as the smallest value."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        values = objective(points)
        (gradient,) = torch.autograd.grad(values.sum(), points)
    values = values.detach()
    return _Seen(points.detach(), values.masked_fill(values.isnan(), -torch.inf), gradient)


def _where(chosen: Tensor, some: _Seen, others: _Seen) -> _Seen:
    """`some` where `chosen`, [R, B], and `others` elsewhere."""
    wide = _widened(chosen, some.points)
    return _Seen(
        torch.where(wide, some.points, others.points),
        torch.where(chosen, some.values, others.values),
        torch.where(wide, some.gradient, others.gradient),
    )


def _widened(each: Tensor, points: Tensor) -> Tensor:
    """[R, B] to [R, B, 1, ...], with as many dimensions as the points."""
    return each.view(*each.shape, *[1] * (points.dim() - 2))

"""How fast does the robust loss grow with the size of the box? The loss over lambda.

    loss(lambda) = mean of log(1 + sum_k exp(-m_k)),   m_k lower bounds of z_y - z_k over a box of radius lambda eps

with m by intervals ("interval") and by CROWN from layer to layer without intervals ("crown"), which is DeepPoly. Beside
them the largest cross-entropy that PGD finds in the box ("attack"), and that at the input ("clean"). For every input

    attack <= interval,   attack <= crown;   all meet as lambda goes to 0

The interval loss grows with lambda. CROWN's may lie above it, as for networks of IBP training at lambda = 1; with
`pure=False`, CROWN takes the better of both bounds at each layer, so that crown <= interval.

The boxes lie around the input, or around an adversarial point, as SABR's small boxes do. Müller et al. 2023, "Certified
training: small boxes are all you need", section 5.3 and appendix C: Figures 7 and 8, and 9 (`adversarial=True`).

    result = loss_growth(model, x, y, eps=0.1)
    result.exponents("interval")        # d log(loss) / d log(lambda): above 1 is super-linear
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench import attacks
from ctbench.analyses.base import Analysis, Part, Where, joined, measurement
from ctbench.analyses.box_growth import check_radius, check_shares
from ctbench.domains import crown, interval
from ctbench.methods.sabr import SABR, small_box
from ctbench.regions import Region
from ctbench.results import Layout, Measurement, Measurements
from ctbench.specification import cross_entropy_at, robust_cross_entropy

SHARES = (0.0125, 0.02, 0.033, 0.054, 0.087, 0.14, 0.23, 0.38, 0.61, 1.0)  # a logarithmic grid


@dataclass(frozen=True, kw_only=True)
class LossGrowth(Analysis):
    """The robust cross-entropy over boxes of several shares of the radius, by intervals and by CROWN (DeepPoly).

    Args:
        shares: the values of lambda.
        adversarial: boxes around an adversarial point, moved into the region; otherwise around the input.
        pure: CROWN as in its paper; otherwise no bound of CROWN is below that of intervals.
        attack: the search for this point, and for the largest loss in a box; by default SABR's.

    Raises:
        ValueError: a share is not a number above 0; when called, if eps is 0.
    """

    name: ClassVar[str] = "loss-growth"
    layout: ClassVar[Layout] = Layout(
        kind="lines", quantities=("interval", "crown", "attack", "clean"), label="loss", x_label="lambda", log=True
    )
    shares: tuple[float, ...] = SHARES
    adversarial: bool = False
    pure: bool = True
    attack: attacks.Attack = field(default_factory=lambda: SABR().attack)

    def __post_init__(self) -> None:
        check_shares(self.shares)
        if self.adversarial and max(self.shares) > 1:
            raise ValueError(f"shares are {self.shares}: boxes around adversarial points lie in the region, give <= 1")

    def measure(self, part: Part) -> list[Measurement]:
        check_radius(part)
        numbers = 2 * crown.footprint(part.net, part.spec.shape[1])
        parts = [self._losses(some) for some in part.split(numbers)]
        return [measurement(joined([losses[share] for losses in parts]), share) for share in self.shares]

    def _losses(self, part: Part) -> dict[float, dict[str, Tensor]]:
        net, objective = part.net, cross_entropy_at(part.net, part.y)
        clean = F.cross_entropy(net(part.x), part.y, reduction="none")
        centre = self.attack(objective, part.region, part.x, part.generator()) if self.adversarial else None
        losses = dict[float, dict[str, Tensor]]()
        for share in self.shares:
            box = part.scaled(share) if centre is None else small_box(part.region.hull, centre, share)
            attacked = self._attacked(part, box, part.x if centre is None else centre)
            inner = crown.Crown(pure=self.pure).boxes(net, box)
            loose, tight = (
                interval.lower_bounds(net, box, part.spec),
                crown.lower_bounds(net, box, part.spec, inner=inner),
            )
            losses[share] = {
                "interval": robust_cross_entropy(loose),
                "crown": robust_cross_entropy(tight if self.pure else torch.maximum(tight, loose)),
                "attack": attacked,
                "clean": clean,
            }
        return losses

    def _attacked(self, part: Part, box: Region, centre: Tensor) -> Tensor:
        """The largest cross-entropy in a box that the attack finds, or at its start if that is larger, [B]."""
        objective = cross_entropy_at(part.net, part.y)
        start = box.project(centre)
        worst = self.attack(objective, box, start, part.generator())
        return objective(torch.stack([start, worst])).amax(0)


def loss_growth(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    shares: tuple[float, ...] = SHARES,
    adversarial: bool = False,
    pure: bool = True,
    **where: Unpack[Where],
) -> Measurements:
    """The quantities "interval", "crown", "attack" and "clean" over lambda, for inputs [N, *shape] with labels [N].

    Other arguments as for `LossGrowth` and, in `where`, for `Analysis`. Raises ValueError as `LossGrowth` does.
    """
    return LossGrowth(shares=shares, adversarial=adversarial, pure=pure)(model, x, y, **where)

"""How precise are the estimates of the worst-case loss that training methods use? Their errors against exact programs.

    M*    = max over x' in the region and k != y of z_k(x') - z_y(x')        exact, by `verify.worst_case`
    error = estimate - M*

    interval   - min_k of the interval bounds of z_y - z_k                   never below 0
    sabr       the same over the small box around SABR's adversarial point
    taps       the largest z_k - z_y at TAPS's points in the latent box
    pgd        the largest z_k - z_y that PGD finds, 50 steps from 3 starts  never above 0

Mao et al. 2023, "Connecting certified and adversarial training", section 4.2, Figures 1 (left) and 6. With
`loss="cross-entropy"` the same for log(1 + sum_k exp(-m_k)), m_k the margins, each at its own worst point. An input has
no errors if its program was not solved in time; "open" is the share of these inputs. All is in double precision.

    loss_errors(model, x[:100], y[:100], eps=0.1).summary("taps")
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from ctbench.analyses.base import Analysis, Part, Where, measurement
from ctbench.attacks import PGD, Objective
from ctbench.domains import crown, interval
from ctbench.graph import Graph
from ctbench.methods.adversary import worst_point
from ctbench.methods.base import Batch
from ctbench.methods.sabr import SABR, small_box
from ctbench.methods.taps import TAPS
from ctbench.regions import Box
from ctbench.results import Layout, Measurement, Measurements
from ctbench.specification import cross_entropy_at, margin_rows, margins, robust_cross_entropy, violation_at
from ctbench.verify import worst_case

ESTIMATES = ("interval", "sabr", "taps", "pgd")
Loss = Literal["margin", "cross-entropy"]
OBJECTIVES: dict[Loss, Callable[[Graph, Tensor], Objective]] = {
    "margin": violation_at,
    "cross-entropy": cross_entropy_at,
}


def _largest_violation(margins: Tensor) -> Tensor:
    return -margins.amin(1)


ROUNDING = 1e-9  # of the loss at a point, which is computed in double precision
LOSSES: dict[Loss, Callable[[Tensor], Tensor]] = {"margin": _largest_violation, "cross-entropy": robust_cross_entropy}


@dataclass(frozen=True, kw_only=True)
class LossErrors(Analysis):
    """The errors of four estimates of the worst-case loss, against exact integer programs.

    Args:
        loss: "margin", the largest z_k - z_y, or "cross-entropy".
        ratio: the radius of SABR's small box, as a share of the region's.
        classifier_relus: of TAPS, the number of ReLUs in the classifier.
        seconds: for the program of one input.

    Raises:
        ValueError: an option is out of range; when called, if the regions are not boxes, or the network is not
            piecewise linear.
        FalseBoundError: when called, if an attack finds a larger loss than the upper bound of a program.
    """

    name: ClassVar[str] = "loss-errors"
    size: ClassVar[int | None] = 16  # programs take seconds
    layout: ClassVar[Layout] = Layout(kind="histogram", quantities=ESTIMATES, label="estimate - exact worst-case loss")
    loss: Loss = "margin"
    ratio: float = 0.4
    classifier_relus: int = 1
    seconds: float = 20.0

    def __post_init__(self) -> None:
        SABR(ratio=self.ratio)
        TAPS(classifier_relus=self.classifier_relus)
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}: it must be one of {', '.join(LOSSES)}")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds are {self.seconds}: give a number above 0")

    def measure(self, part: Part) -> list[Measurement]:
        if not isinstance(part.region, Box):
            raise ValueError(f"the threat model is {part.threat.name}: integer programs take boxes, choose linf")
        estimates = self._estimates(part)
        worst, most = self._worst(part)
        _check_attacks(estimates["pgd"], most)
        exact = torch.maximum(worst, estimates["pgd"])  # the attack may find a worse point in the gap of the program
        errors = {name: estimates[name] - exact for name in ESTIMATES}
        sizes = {f"|{name}|": errors[name].abs() for name in ESTIMATES}
        return [measurement({**errors, **sizes, "exact": exact, "open": worst.isnan().double()})]

    def _estimates(self, part: Part) -> dict[str, Tensor]:
        """The four estimates, [B] each."""
        loss, net, x = LOSSES[self.loss], part.proof, part.x.double()
        batch = Batch.within(part.threat, x, part.y, net(x), part.generator())
        box, spec = batch.region.hull, margin_rows(part.y, net.classes, dtype=x.dtype)
        sabr, plain = SABR(ratio=self.ratio), net.rounded_outward(False)
        around = small_box(box, worst_point(sabr.attack, plain, batch), self.ratio)
        attacked = PGD(steps=50, restarts=3)(OBJECTIVES[self.loss](plain, part.y), box, x, part.generator())
        return {
            "interval": loss(interval.lower_bounds(net, box, spec)),
            "sabr": loss(interval.lower_bounds(plain, around, spec)),
            "taps": loss(TAPS(classifier_relus=self.classifier_relus).margins(plain, batch)),
            "pgd": loss(margins(plain(attacked), part.y)),
        }

    def _worst(self, part: Part) -> tuple[Tensor, Tensor]:
        """The worst losses that programs found at points, and their upper bounds, [B] each; NaN if time ran out."""
        graph = part.proof.map(Tensor.cpu)
        box = part.threat.region(part.x.double().cpu()).hull
        spec = margin_rows(part.y.cpu(), graph.classes, dtype=torch.float64)
        losses = list[tuple[Tensor, Tensor]]()
        for index, rows in enumerate(spec):
            one = box.take(torch.tensor([index]))
            losses.append(self._worst_of_one(graph, one, rows, int(part.y[index])))
        found, most = (torch.cat(side).to(part.x.device) for side in zip(*losses, strict=True))
        return found, most

    def _worst_of_one(self, graph: Graph, box: Box, rows: Tensor, y: int) -> tuple[Tensor, Tensor]:
        """The two losses of one input, [1] each, on the CPU, where programs are solved; rows [K-1, K]."""
        inner = crown.boxes(graph, box)
        if self.loss == "margin":
            minima = [worst_case.least(graph, box, rows, inner, timeout=self.seconds)]
        else:
            minima = list(worst_case.worst_case(graph, box, y, inner, timeout=self.seconds).margins)
        if any(one.status != worst_case.OPTIMAL for one in minima):
            return rows.new_full((1,), torch.nan), rows.new_full((1,), torch.nan)
        found, least = (rows.new_tensor([[getattr(one, side) for one in minima]]) for side in ("upper", "lower"))
        return LOSSES[self.loss](found), LOSSES[self.loss](least)


def _check_attacks(attacked: Tensor, most: Tensor) -> None:
    """Raise FalseBoundError if an attack's loss, [B], is above its proved upper bound, [B]; NaN bounds nothing."""
    above = attacked > most + ROUNDING * (1 + most.abs())
    if bool(above.any()):
        place = int(above.int().argmax())
        raise worst_case.FalseBoundError(
            f"an attack reaches the loss {float(attacked[place])!r} at sample {place} of a part, and the integer "
            f"program says that {float(most[place])!r} is the worst: this is an error of the library"
        )


def loss_errors(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = "margin",
    ratio: float = 0.4,
    classifier_relus: int = 1,
    seconds: float = 20.0,
    **where: Unpack[Where],
) -> Measurements:
    """The errors "interval", "sabr", "taps" and "pgd" for inputs [N, *shape] with labels [N], their sizes "|taps|"
    etc., the "exact" loss, and "open".

    Other arguments as for `LossErrors` and, in `where`, for `Analysis`. Raises ValueError as `LossErrors` does.
    """
    asked = LossErrors(loss=loss, ratio=ratio, classifier_relus=classifier_relus, seconds=seconds)
    return asked(model, x, y, **where)

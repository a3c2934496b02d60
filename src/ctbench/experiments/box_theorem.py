"""The growth of boxes through a ReLU in closed form: Figure 4 and Theorem 4.1 of Müller et al. 2023."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ctbench.analyses.relu_growth import Centres, Normal, TwoSteps, curvature, mean_radius, tangent
from ctbench.experiments.networks import NetworkOf, Networks
from ctbench.experiments.quantities import Numbers, Table


@dataclass(frozen=True)
class MeanRadii(Table):
    """The mean radius after the ReLU, and the tangent at 0, for normal centres.

    Args:
        centres: their distribution.
        largest: the largest radius before the ReLU.
        places: the number of radii.
    """

    centres: Centres = Normal(mean=-1.0, deviation=0.5)  # noqa: RUF009
    largest: float = 3.0
    places: int = 60

    def __call__(self, networks: Networks, figure: Sequence[NetworkOf]) -> list[Numbers]:
        radii = [self.largest * (number + 1) / self.places for number in range(self.places)]
        return [
            {"radius": d, "mean radius": mean_radius(self.centres, d), "tangent": tangent(self.centres, d)}
            for d in radii
        ]


@dataclass(frozen=True)
class RandomCentres(Table):
    """The least curvature of the mean radius, for random distributions of centres with more mass below 0 at any |z|.

    Args:
        draws: the number of distributions of each kind.
        places: the number of radii at which the curvature is computed.
        seed: of the draws.
    """

    draws: int = 50
    places: int = 40
    seed: int = 0

    def __call__(self, networks: Networks, figure: Sequence[NetworkOf]) -> list[Numbers]:
        return list(self._rows())

    def _rows(self) -> Iterator[Numbers]:
        generator = torch.Generator("cpu").manual_seed(self.seed)
        for _ in range(self.draws):
            first, second = torch.rand(2, generator=generator, dtype=torch.float64, device="cpu").tolist()
            steps = TwoSteps(a=0.1 + first + second, b=second)
            yield self._row("two steps", steps, steps.reach)
            normal = Normal(mean=-0.05 - first, deviation=0.2 + second)
            yield self._row("normal", normal, 2 * normal.deviation)

    def _row(self, kind: str, centres: Centres, largest: float) -> Numbers:
        radii = (largest * (number + 0.5) / self.places for number in range(self.places))
        return {"centres": kind, "least curvature": min(curvature(centres, d) for d in radii)}

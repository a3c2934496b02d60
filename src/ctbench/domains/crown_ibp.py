"""CROWN-IBP: one backward CROWN pass over interval bounds. Zhang et al. 2020, "Towards stable and efficient training".

    bound = CROWN's bound, with the pre-activation bounds of interval propagation

With `every_layer` it is the best of the bounds of the form over the boxes of each layer on its way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ctbench import memory_budget
from ctbench.domains import crown, interval
from ctbench.domains.base import Domain
from ctbench.domains.relaxations import SlopeRule, adaptive, check_rule, rule_name
from ctbench.graph import Graph
from ctbench.regions import Box, Region


@dataclass(frozen=True, kw_only=True)
class CrownIBP(Domain):
    """One backward CROWN pass over interval boxes (Zhang et al. 2020).

    Args:
        slope: the rule of the free slopes, e.g. `ctbench.domains.relaxations.parallel`.
        every_layer: keep the best of the bounds at the input and at all layers on the way there.

    Raises:
        ValueError: slope is not a rule.
    """

    name: ClassVar[str] = "crown-ibp"
    slope: SlopeRule = adaptive
    every_layer: bool = False

    def __post_init__(self) -> None:
        check_rule(self.slope)

    def __repr__(self) -> str:
        return f"CrownIBP(slope={rule_name(self.slope)}, every_layer={self.every_layer})"

    def footprint(self, graph: Graph, forms: int) -> int:
        return crown.footprint(graph, forms)

    def boxes(self, graph: Graph, region: Region, *, memory: int = memory_budget.DEFAULT) -> list[Box]:
        """The boxes of interval propagation: CROWN-IBP improves the bounds of the output alone."""
        return interval.boxes(graph, region)

    def lower_bounds(
        self,
        graph: Graph,
        region: Region,
        spec: Tensor,
        *,
        inner: list[Box] | None = None,
        memory: int = memory_budget.DEFAULT,
    ) -> Tensor:
        """Lower bounds [B, S]; with `every_layer` and interval boxes, they are never below those of intervals."""
        inner, losses = interval.bounded(graph, region) if inner is None else (inner, None)
        domain = crown.Crown(slope=self.slope)
        bounds = domain.best_lower_bounds if self.every_layer else domain.lower_bounds
        return bounds(graph, region, spec, inner=inner, losses=losses)


boxes, lower_bounds = CrownIBP().boxes, CrownIBP().lower_bounds

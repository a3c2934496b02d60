"""CROWN-IBP: one backward CROWN pass over interval bounds. Zhang et al. 2020, "Towards stable and efficient training".

bound = CROWN's, with the pre-activation bounds of interval propagation

With `every_layer` it is the best of the bounds that the form has on its way back, over the boxes of each layer.
"""

from __future__ import annotations

from torch import Tensor

from ctbench.domains import crown, interval
from ctbench.domains.relaxations import SlopeRule, adaptive
from ctbench.graph import Graph
from ctbench.regions import Box, Region


def footprint(graph: Graph, forms: int) -> int:
    """How many numbers are held at once for a sample."""
    return crown.footprint(graph, forms)


def boxes(graph: Graph, region: Region) -> list[Box]:
    """The boxes of interval propagation: CROWN-IBP improves the output alone."""
    return interval.boxes(graph, region)


def lower_bounds(
    graph: Graph,
    region: Region,
    spec: Tensor,
    *,
    inner: list[Box] | None = None,
    slope: SlopeRule = adaptive,
    every_layer: bool = False,
) -> Tensor:
    """Lower bounds of S linear forms of the output over the region, [B, S].

    Args:
        graph, region, spec, inner, slope: as in `crown.lower_bounds`; by default `inner` are interval boxes.
        every_layer: keep the best of the bounds at the input and at all layers on the way there
            (`crown.best_lower_bounds`). With interval boxes it is also not below the bound of intervals.
    """
    known, losses = interval.bounded(graph, region) if inner is None else (inner, None)
    bounds = crown.best_lower_bounds if every_layer else crown.lower_bounds
    return bounds(graph, region, spec, inner=known, slope=slope, losses=losses)

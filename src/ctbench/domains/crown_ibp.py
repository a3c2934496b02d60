"""CROWN-IBP: one backward CROWN pass over interval bounds. Zhang et al. 2020, "Towards stable and efficient training".

bound = CROWN's, with the pre-activation bounds of interval propagation
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
) -> Tensor:
    """Lower bounds of S linear forms of the output over the region; arguments as in `crown.lower_bounds`."""
    inner = interval.boxes(graph, region) if inner is None else inner
    return crown.lower_bounds(graph, region, spec, inner=inner, slope=slope)

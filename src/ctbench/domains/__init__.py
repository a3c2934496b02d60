"""Over-approximations of what a network can answer: one file per domain.

A domain is a module with three functions on frozen graphs:

    footprint(graph, forms) -> int                                  numbers held at once for a sample, about
    boxes(graph, region) -> [Box]                                   a box per node
    lower_bounds(graph, region, spec, inner=None) -> Tensor         spec [B, S, *output] to bounds [B, S]
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Protocol

from torch import Tensor

from ctbench.graph import Graph
from ctbench.regions import Box, Region


class Domain(Protocol):
    def footprint(self, graph: Graph, forms: int) -> int: ...

    def boxes(self, graph: Graph, region: Region) -> list[Box]: ...

    def lower_bounds(
        self, graph: Graph, region: Region, spec: Tensor, *, inner: list[Box] | None = None, **options: Any
    ) -> Tensor: ...


def domains() -> dict[str, Any]:
    """Every domain by its name, as "crown-ibp" for crown_ibp.py: found by walking this package."""
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return {
        module.__name__.rpartition(".")[2].replace("_", "-"): module
        for module in modules
        if {"boxes", "lower_bounds"} <= vars(module).keys()
    }


def domain(name: str) -> Domain:
    """The domain of this name; ValueError lists the names there are."""
    known = domains()
    if name not in known:
        raise ValueError(f"no domain is called {name!r}; there are {', '.join(sorted(known))}")
    found: Domain = known[name]
    return found

"""A domain: how a network is over-approximated, with all its options.

    Crown(slope=parallel).lower_bounds(graph, region, spec)        # spec [B, S, *output] to bounds [B, S]
    domain("crown", slope=parallel)                                # the same domain by its name
    crown.lower_bounds(graph, region, spec)                        # with the default options: Crown().lower_bounds

Each file of this package has the formulas of a paper as the methods of a dataclass, whose fields are the options. The
functions of a file, e.g. `crown.boxes`, are the methods of its domain with the default options.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ctbench import memory_budget
from ctbench.graph import Graph
from ctbench.members import members, required_fields
from ctbench.regions import Box, Region


@dataclass(frozen=True, kw_only=True)
class Domain(ABC):
    """An over-approximation of the outputs of a network; the fields are its options.

    A domain that draws random numbers has a field `generator`, a `torch.Generator`: if `ctbench.bounds` computes bounds
    again for their gradients, it draws the same numbers again.
    """

    name: ClassVar[str]

    @property
    def sound(self) -> bool:
        """Whether its bounds hold for all points of a region. Only sound bounds certify."""
        return True

    def for_signs(self) -> Domain:
        """The domain for uses of the signs of lower bounds only: a search may stop at a positive bound."""
        return self

    @abstractmethod
    def footprint(self, graph: Graph, forms: int) -> int:
        """An estimate of how many numbers are in memory at once per sample, for `forms` linear forms of the output."""

    @abstractmethod
    def boxes(self, graph: Graph, region: Region, *, memory: int = memory_budget.DEFAULT) -> list[Box]:
        """A box for each node of a frozen graph, [B, *node].

        Args:
            graph: a frozen graph.
            region: the inputs, for B samples.
            memory: the number of bytes that one pass may take, for domains that make several passes. The default does
                not depend on the device: the results of a run must not depend on its free memory.
        """

    @abstractmethod
    def lower_bounds(
        self,
        graph: Graph,
        region: Region,
        spec: Tensor,
        *,
        inner: list[Box] | None = None,
        memory: int = memory_budget.DEFAULT,
    ) -> Tensor:
        """Lower bounds [B, S] of S linear forms of the output over the region.

        Args:
            graph: a frozen graph.
            region: the inputs, for B samples.
            spec: the forms, [B, S, *output].
            inner: sound boxes of all nodes; None: those of `boxes`.
            memory: see `boxes`.
        """


def domains() -> dict[str, type[Domain]]:
    """Return all domains by name: those of this package, and all other subclasses of `Domain` defined so far."""
    return members(Domain)


def domain(name: str | Domain, **options: Any) -> Domain:
    """Return the domain of this name with these options, e.g. domain("zonotope", fold=200); a domain returns itself.

    Raises:
        ValueError: a name or an option is unknown, an option is missing or has a wrong value, or a domain is given
            along with options.
    """
    if isinstance(name, Domain):
        if options:
            text = ", ".join(f"{key}={value!r}" for key, value in options.items())
            raise ValueError(f"the domain is {name!r}, given along with {text}: set options in the domain")
        return name
    if not isinstance(name, str):
        raise ValueError(f"the domain is {name!r}: give a name, e.g. 'crown', or a Domain, e.g. Crown()")
    kinds = domains()
    if name not in kinds:
        raise ValueError(f"no domain is called {name!r}; there are {', '.join(kinds)}")
    fields = [field.name for field in dataclasses.fields(kinds[name])]
    unknown = sorted(set(options) - set(fields))
    if unknown:
        raise ValueError(f"{name} takes no {', '.join(unknown)}; it takes {', '.join(fields) or 'no options'}")
    missing = sorted(set(required_fields(kinds[name])) - set(options))
    if missing:
        raise ValueError(f"the domain {name!r} has no default for {', '.join(missing)}: give a value")
    return kinds[name](**options)

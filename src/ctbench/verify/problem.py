"""What is to be proved: a network, inputs with their labels, and the threat model, for many samples at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from ctbench.graph import Graph
from ctbench.regions import Region, Threat
from ctbench.specification import margin_rows


@dataclass(frozen=True, eq=False)
class Problem:
    """Show for each sample that the network says y on the whole region around x."""

    net: Graph  # frozen
    x: Tensor  # [B, *shape], in the precision of the network
    y: Tensor  # [B]
    threat: Threat

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def region(self) -> Region:
        return self.threat.region(self.x)

    @cached_property
    def spec(self) -> Tensor:
        """The margins z_y - z_k that must be positive, [B, K-1, K]."""
        return margin_rows(self.y, self.net.classes, dtype=self.x.dtype)

    def select(self, samples: Tensor) -> Problem:
        """The problems of some samples: a mask [B] or indices."""
        return replace(self, x=self.x[samples], y=self.y[samples])


@dataclass(frozen=True, eq=False)
class Findings:
    """What a stage found out about B samples; a sample that is neither certified nor falsified stays open."""

    bound: Tensor | None = None  # [B]: lower bounds of the least margin; certified where positive
    witness: Tensor | None = None  # [B, *shape]: points that may be counterexamples, to be replayed

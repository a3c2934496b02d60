"""What is to be proved, for many samples at once, and what a stage finds out about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from ctbench.graph import Graph
from ctbench.regions import Region, Threat
from ctbench.specification import margin_rows
from ctbench.verify.rounding import rounding


@dataclass(frozen=True, eq=False)
class Problem:
    """Show for each sample that its margins are positive on its whole region.

    Problems come in two precisions: stages search in that of the network, and what they prove counts in double.
    """

    net: Graph  # frozen
    x: Tensor  # [B, *shape]: where attacks begin
    region: Region
    spec: Tensor  # the margins as linear forms of the output, [B, S, K]
    double: Problem | None = None  # the same in double precision; None if this is
    seconds: Tensor | None = None  # that each sample has left, [B], on the device of x; None for no limit

    @classmethod
    def of_labels(cls, net: Graph, x: Tensor, y: Tensor, threat: Threat, *, double: Problem | None = None) -> Problem:
        """That the network says y, [B], everywhere in the threat model's region around x."""
        return cls(net, x, threat.region(x), margin_rows(y, net.classes, dtype=x.dtype), double)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def exact(self) -> Problem:
        """The problem in double precision."""
        return self if self.double is None else self.double

    def select(self, samples: Tensor) -> Problem:
        """The problems of some samples: a mask [B] or indices."""
        return replace(
            self,
            x=self.x[samples],
            region=self.region.take(samples),
            spec=self.spec[samples],
            double=None if self.double is None else self.double.select(samples),
            seconds=None if self.seconds is None else self.seconds[samples],
        )

    def margins(self, points: Tensor) -> Tensor:
        """All margins at points [..., B, *shape]: [..., B, S]."""
        outputs = self.net(points.flatten(0, points.dim() - self.x.dim())).view(*points.shape[: -self.x.dim() + 1], -1)
        return (self.spec @ outputs.unsqueeze(-1)).squeeze(-1)

    def violation(self, points: Tensor) -> Tensor:
        """An attack's objective: how far the least margin is below zero, points [R, B, *shape] to [R, B]."""
        return -self.margins(points).amin(-1)

    @cached_property
    def rounding(self) -> Tensor:
        """What rounding in double precision cannot add to a margin, anywhere on a region, [B]."""
        return rounding(self.net, self.region, self.spec)


@dataclass(frozen=True, eq=False)
class Findings:
    """What a stage found out about B samples; a sample that is neither certified nor falsified stays open."""

    bound: Tensor | None = None  # [B]: lower bounds of the least margin; certified where positive
    witness: Tensor | None = None  # [B, *shape]: points that may be counterexamples, to be replayed
    late: Tensor | None = None  # [B]: whether more seconds could have told more
    seconds: Tensor | None = None  # [B]: what each took, if a stage can tell; else they share

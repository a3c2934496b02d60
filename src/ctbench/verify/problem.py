"""What is to be proved, for many samples at once, and what a stage finds out about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ctbench.domains import interval, rounding
from ctbench.graph import Graph
from ctbench.regions import Box, Region, Threat
from ctbench.specification import margin_rows
from ctbench.verify import rationals

Judge = Callable[[Tensor], tuple[Tensor, Tensor]]  # points [B, *shape] to those that may be told, and to [B] bool

SMALLEST = 2.0**-1074  # the smallest positive number of double precision
EXACTLY = 8  # points that are tried as counterexamples, of which as many are decided in whole numbers: one is enough


@dataclass(frozen=True, eq=False)
class Problem:
    """Show for each sample that its margins are positive on its whole region.

    Problems come in two precisions: stages search in that of the network, and what they prove counts in double, where
    the graph is outward: its bounds hold in the exact arithmetic of the stored weights.
    """

    net: Graph  # frozen
    x: Tensor  # [B, *shape]: where attacks begin
    region: Region
    spec: Tensor  # the margins as linear forms of the output, [B, S, K]
    double: Problem | None = None  # the same in double precision; None if this is
    seconds: Tensor | None = None  # that each sample has left, [B], on the device of x; None for no limit
    # moves points of the region to where they may be told, and says which of them are counterexamples, as ties may be;
    # None where these are the points with a negative margin
    judge: Judge | None = None

    @classmethod
    def of_labels(cls, net: Graph, x: Tensor, y: Tensor, threat: Threat, *, double: Problem | None = None) -> Problem:
        """That the network says y, [B], everywhere in the threat model's region around x."""
        return cls(net, x, threat.region(x), margin_rows(y, net.classes, dtype=x.dtype), double)

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def exact(self) -> Problem:
        """The problem in double precision, whose bounds are rounded outward."""
        found = self if self.double is None else self.double
        assert found.x.dtype == torch.float64, "a problem in another precision has its like in double precision"
        return found if found.net.outward else replace(found, net=found.net.rounded_outward())

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
        outputs = self.net(points.flatten(0, points.dim() - self.x.dim()))
        outputs = outputs.view(*points.shape[: -self.x.dim() + 1], outputs.shape[-1])
        return (self.spec @ outputs.unsqueeze(-1)).squeeze(-1)

    def violation(self, points: Tensor) -> Tensor:
        """An attack's objective: how far the least margin is below zero, points [R, B, *shape] to [R, B]."""
        return -self.margins(points).amin(-1)

    def least_margin(self, points: Tensor, spread: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Bounds of the least margin at points, or as far around them as `spread`: [B, *shape] to [B] each.

        They hold in exact arithmetic.
        """
        assert self.net.outward, "margins are enclosed in double precision"
        lower, upper = interval.at_points(self.net, Box(points - spread, points + spread), self.spec)
        return lower.amin(1), upper.amin(1)

    def signs(self, points: Tensor, *, most: int | None = None) -> Tensor:
        """The sign of the least margin at points, [B, *shape] to [B]: 1, 0 or -1, and NaN where it is not known.

        It is that of exact arithmetic. Where rounding leaves it open, whole numbers decide it, if the network allows,
        for the points of least margins, `most` of them; by default for as many as a few seconds are enough for.
        """
        lower, upper = self.least_margin(points)
        found = torch.where(lower > 0, 1.0, torch.where(upper < 0, -1.0, torch.nan))
        undecided = found.isnan() & torch.isfinite(lower + upper)
        count = min(int(undecided.sum()), rationals.affordable(self.net) if most is None else most)
        for place in upper.where(undecided, torch.inf).topk(count, largest=False).indices.tolist():
            try:
                least = min(rationals.forms(self.net, points[place], self.spec[place]))
            except rationals.NoExactValueError:
                break  # so it is for all points
            found[place] = (least > 0) - (least < 0)
        return found

    def judged(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points, [B, *shape] of the regions, where they may be told, and which of them are counterexamples, [B]."""
        return (points, self.violated(points)) if self.judge is None else self.judge(points)

    def violated(self, points: Tensor) -> Tensor:
        """Whether points, [B, *shape] of the regions, are counterexamples in exact arithmetic, [B] bool.

        Points of a region that is no box lie in it up to rounding: they count where all points around them do.
        """
        turned = self.margins(points.unsqueeze(0))[0].amin(1) <= 0
        if not bool(turned.any()):
            return turned
        rest, points = self.select(turned), points[turned]
        if isinstance(self.region, Box):
            return turned.masked_scatter(turned, rest.signs(points, most=EXACTLY) < 0)
        spread = rounding.of_terms(rounding.greatest(rest.region.hull), 4 * points[0].numel())
        return turned.masked_scatter(turned, rest.least_margin(points, spread)[1] < 0)


@dataclass(frozen=True, eq=False)
class Findings:
    """What a stage found out about B samples; a sample that is neither certified nor falsified stays open."""

    bound: Tensor | None = None  # [B]: lower bounds of the least margin; certified where positive
    witness: Tensor | None = None  # [B, *shape]: points that may be counterexamples, to be replayed
    late: Tensor | None = None  # [B]: whether more seconds could have told more
    seconds: Tensor | None = None  # [B]: what each took, if a stage can tell; else they share
    failed: Sequence[Mapping[str, str]] | None = None  # [B]: messages of other stages that it asked, by their titles


def checked(findings: Findings, samples: int) -> Findings:
    """The findings of a stage, if they are about this many samples.

    Raises:
        TypeError: the stage returned something else, or numbers that are not floating point.
        ValueError: the findings are about another number of samples.
    """
    if not isinstance(findings, Findings):
        raise TypeError(f"the stage returned a {type(findings).__name__}: return ctbench.verify.Findings(...)")
    bound, witness = findings.bound, findings.witness
    for name, value in (("bounds", bound), ("witnesses", witness)):
        if value is not None and not value.is_floating_point():
            raise TypeError(f"the stage gave {name} of {value.dtype}: give floating point numbers")
    if bound is not None and tuple(bound.shape) != (samples,):
        raise ValueError(f"the stage gave bounds of shape {tuple(bound.shape)} for {samples} samples")
    if witness is not None and len(witness) != samples:
        raise ValueError(f"the stage gave {len(witness)} witnesses for {samples} samples")
    if findings.failed is not None and len(findings.failed) != samples:
        raise ValueError(f"the stage gave {len(findings.failed)} entries of `failed` for {samples} samples")
    return findings

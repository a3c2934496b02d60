"""What is to be proved, for many samples at once, and what a stage finds out about it.

A point is a counterexample if it lies in the region of its sample and a margin is negative there, in exact arithmetic.
`Problem.counterexamples` decides that, and nothing else does: a stage only proposes points. VNN-LIB properties have a
rule of their own (`Problem.rule`), with which a margin of 0 can be a counterexample: outputs are unsafe or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ctbench.domains import interval, rounding
from ctbench.graph import Graph
from ctbench.regions import Box, Region, Threat
from ctbench.regions.box import Radii
from ctbench.specification import margin_rows
from ctbench.time_budget import Budget
from ctbench.verify import rationals
from ctbench.verify.common_shift import without_common_shift


class Rule(Protocol):
    """Which points of the regions of B samples are counterexamples."""

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points [B, *shape], moved to where they can be stated, and whether these are counterexamples, [B] bool."""

    def select(self, samples: Tensor) -> Rule:
        """The rule of some samples: a mask [B] or indices."""


SMALLEST = 2.0**-1074  # the smallest positive number of double precision
EXACTLY = 8  # points that are decided in whole numbers, of all that may be counterexamples: one of them is enough


def _check_width(x: Tensor, eps: Radii, box: Box) -> None:
    """Raise ValueError if a box with a radius is a single point: what is proved there says nothing of the numbers
    around it."""
    radii = torch.as_tensor(eps, dtype=x.dtype, device=x.device).expand_as(x)
    places = ((box.lower == box.upper) & (radii > 0)).nonzero()
    if len(places):
        place = tuple(places[0].tolist())
        raise ValueError(
            f"eps is {radii[place].item():g} where x is {x[place].item():g}: double precision has no other number this "
            f"near, give a larger eps, or 0"
        )


@dataclass(frozen=True, eq=False)
class Problem:
    """Show for each sample that its margins are positive on its whole region.

    A problem comes in two precisions: stages search in that of the network, and prove `proof`, the problem in double
    precision, where the bounds of the graph hold in the exact arithmetic of the stored weights.
    """

    net: Graph  # frozen
    x: Tensor  # [B, *shape]: where attacks begin
    region: Region
    spec: Tensor  # the margins as linear forms of the output, [B, S, K]
    double: Problem | None = None  # the same in double precision; None if this is in double precision
    budget: Budget | None = None  # the time of each sample, on the device of x; None for no limit
    rule: Rule | None = None  # which points are counterexamples; None for those with a negative margin

    @classmethod
    def of_labels(cls, net: Graph, x: Tensor, y: Tensor, threat: Threat, *, double: Problem | None = None) -> Problem:
        """The problem that the network says y, [B], everywhere in the threat model's region around x.

        Raises:
            ValueError: in double precision, eps > 0 is so small that a box is a single point.
        """
        net, region = without_common_shift(net), threat.region(x)
        if isinstance(region, Box) and x.dtype == torch.float64:
            _check_width(x, threat.eps, region)
        return cls(net, x, region, margin_rows(y, net.classes, dtype=x.dtype), double)

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def proof(self) -> Problem:
        """The problem in double precision, with bounds that are rounded outward."""
        double = self if self.double is None else self.double
        assert double.x.dtype == torch.float64, "a problem in another precision has one in double precision"
        return double if double.net.outward else replace(double, net=double.net.rounded_outward())

    def select(self, samples: Tensor) -> Problem:
        """The problems of some samples: a mask [B] or indices."""
        return replace(
            self,
            x=self.x[samples],
            region=self.region.take(samples),
            spec=self.spec[samples],
            double=None if self.double is None else self.double.select(samples),
            budget=None if self.budget is None else self.budget.select(samples),
            rule=None if self.rule is None else self.rule.select(samples),
        )

    def allotted(self, share: float = 1.0) -> Budget:
        """A share of the time that each sample has, as a budget that begins now."""
        if self.budget is None:
            return Budget.of([torch.inf] * len(self), device=self.x.device)
        return self.budget.part(share)

    def margins(self, points: Tensor) -> Tensor:
        """All margins at points [..., B, *shape]: [..., B, S]."""
        outputs = self.net(points.flatten(0, points.dim() - self.x.dim()))
        outputs = outputs.view(*points.shape[: -self.x.dim() + 1], outputs.shape[-1])
        return (self.spec @ outputs.unsqueeze(-1)).squeeze(-1)

    def violation(self, points: Tensor) -> Tensor:
        """An attack's objective: how far the least margin is below zero, points [R, B, *shape] to [R, B]."""
        return -self.margins(points).amin(-1)

    def least_margin(self, points: Tensor, spread: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Bounds of the least margin at points, or in boxes of radius `spread` around them: [B, *shape] to [B] each.

        They hold in exact arithmetic.
        """
        assert self.net.outward, "margins are enclosed in double precision"
        lower, upper = interval.at_points(self.net, Box(points - spread, points + spread), self.spec)
        return lower.amin(1), upper.amin(1)

    def signs(self, points: Tensor, *, most: int | None = None) -> Tensor:
        """The sign of the least margin at points, [B, *shape] to [B]: 1, 0 or -1, and NaN if it is not known.

        The sign holds in exact arithmetic. If rounding leaves it open, whole numbers decide it, if the network allows:
        for the `most` points with the least margins, by default for as many as take a few seconds.
        """
        lower, upper = self.least_margin(points)
        signs = torch.where(lower > 0, 1.0, torch.where(upper < 0, -1.0, torch.nan))
        undecided = signs.isnan() & torch.isfinite(lower + upper)
        count = min(int(undecided.sum()), rationals.affordable(self.net) if most is None else most)
        for place in upper.where(undecided, torch.inf).topk(count, largest=False).indices.tolist():
            try:
                least = min(rationals.forms(self.net, points[place], self.spec[place]))
            except rationals.NoExactValueError:
                break  # the same holds for all points
            signs[place] = (least > 0) - (least < 0)
        return signs

    def counterexamples(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points of the regions, [B, *shape], moved to where they can be stated, and which are counterexamples, [B]."""
        return (points, self._has_negative_margin(points)) if self.rule is None else self.rule(points)

    def _has_negative_margin(self, points: Tensor) -> Tensor:
        """Whether a margin is negative in exact arithmetic at points, [B, *shape] of the regions: [B] bool.

        Points of a region that is not a box lie in it up to rounding: all points around them must have such a margin.
        """
        is_candidate = self.margins(points.unsqueeze(0))[0].amin(1) <= 0
        if not bool(is_candidate.any()):
            return is_candidate
        candidates, points = self.select(is_candidate), points[is_candidate]
        if isinstance(self.region, Box):
            negative = candidates.signs(points, most=EXACTLY) < 0
        else:
            spread = rounding.of_terms(rounding.greatest(candidates.region.hull), 4 * points[0].numel())
            negative = candidates.least_margin(points, spread)[1] < 0
        return is_candidate.masked_scatter(is_candidate, negative)


@dataclass(frozen=True, eq=False)
class Findings:
    """What a stage found out about B samples; a sample that is neither certified nor falsified stays open."""

    bound: Tensor | None = None  # [B]: lower bounds of the least margin; a sample is certified if it is positive
    witness: Tensor | None = None  # [B, *shape]: points that may be counterexamples, to be replayed
    late: Tensor | None = None  # [B] bool: whether more time could have decided the sample
    seconds: Tensor | None = None  # [B]: what each sample took, if the stage can tell; by default they share the time
    failed: Sequence[Mapping[str, str]] | None = None  # [B]: messages of other stages that this one asked, by title


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
        raise ValueError(f"the stage gave bounds of shape {tuple(bound.shape)} for {samples} samples: give [samples]")
    if witness is not None and len(witness) != samples:
        raise ValueError(f"the stage gave {len(witness)} witnesses for {samples} samples: give one for each")
    if findings.failed is not None and len(findings.failed) != samples:
        raise ValueError(
            f"the stage gave {len(findings.failed)} entries of `failed` for {samples} samples: give one for each"
        )
    return findings

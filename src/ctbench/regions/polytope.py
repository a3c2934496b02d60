"""Polytopes: boxes in which rows of linear constraints hold.

    P = {x : lower <= x <= upper, G x + h <= 0}

The support function is bounded by its dual. Every multiplier >= 0 gives a lower bound, and the best one gives the
minimum (strong duality of linear programs):

    min over P of <a, x>  >=  max over lam >= 0 of  min over the box of <a + G^T lam, x> + <lam, h>

The dual is concave and piecewise linear. It is maximised one multiplier at a time, each exactly, so the bound may be
lower than the minimum where several rows count; it holds in any case. In double precision it is rounded outward. The
bound over a polytope without points is large.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctbench.regions.base import Region
from ctbench.regions.box import Box

SWEEPS = 4  # over the multipliers, if there are several
ROUNDS = 30  # of a projection
UNIT = 1.01 * 2.0**-53  # the unit roundoff of double precision, and second-order terms
MORE = 16  # roundings besides those of sums
VANISHED = 2.0**-1021  # more than a product loses by underflow


@dataclass(frozen=True, eq=False)
class Polytope(Region):
    """All x of a box with G x + h <= 0."""

    box: Box  # corners [B, *shape]
    rows: Tensor  # G, [B, m, n], over the inputs in C order
    offsets: Tensor  # h, [B, m]

    def __post_init__(self) -> None:
        batch, size = len(self.box.lower), self.box.lower[0].numel()
        if self.rows.shape != (batch, self.offsets.shape[-1], size) or self.offsets.dim() != 2:
            raise ValueError(
                f"rows are {list(self.rows.shape)} and offsets {list(self.offsets.shape)} for {batch} boxes of {size} "
                f"numbers: give [B, m, n] and [B, m]"
            )

    @property
    def hull(self) -> Box:
        """The box; a box that is as small as possible takes linear programs."""
        return self.box

    def project(self, x: Tensor) -> Tensor:
        """Points near x, [..., B, *shape], which satisfy all constraints up to small errors, if there are such points.

        Dykstra's projections onto each constraint in turn (Boyle and Dykstra 1986), and then plain ones.
        """
        point, rows = self._flat(x), self.rows.to(x)
        sizes = rows.square().sum(2).clamp(min=torch.finfo(x.dtype).tiny)
        kept = [torch.zeros_like(point) for _ in range(rows.shape[1] + 1)]
        lower, upper = self.box.lower.flatten(1), self.box.upper.flatten(1)
        for turn in range(2 * ROUNDS):
            for j in range(rows.shape[1]):
                start = point + kept[j] if turn < ROUNDS else point
                excess = ((start * rows[:, j]).sum(-1) + self.offsets[:, j]).clamp(min=0) / sizes[:, j]
                point = start - excess.unsqueeze(-1) * rows[:, j]
                kept[j] = start - point
            start = point + kept[-1] if turn < ROUNDS else point
            point = torch.clamp(start, lower, upper)
            kept[-1] = start - point
        return point.view_as(x)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Projections of random points of the box: they are not uniform."""
        return self.project(self.box.sample(count, generator))

    def start(self, x: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        return self.project(self.box.start(x, count, generator))

    def ascend(self, x: Tensor, gradient: Tensor, step: float | Tensor) -> Tensor:
        return self.project(self.box.ascend(x, gradient, step))

    def minimum(self, a: Tensor) -> Tensor:
        """A lower bound of the minimum; it is the minimum if there is one row."""
        least, a = self.box.minimum(a), a.flatten(2)
        a = a.expand(len(self.rows), *a.shape[1:])
        with torch.no_grad():  # the derivative in the multipliers is 0 at the maximum
            multipliers = self._multipliers(a)
        lower, upper = (corner.flatten(1).unsqueeze(1) for corner in (self.box.lower, self.box.upper))
        total = a + multipliers @ self.rows
        bound = (torch.where(total > 0, lower, upper) * total).sum(2) + (multipliers * self.offsets.unsqueeze(1)).sum(2)
        if a.dtype == torch.float64:
            bound = bound - self._error(a, multipliers)
        return torch.maximum(least, bound)

    def take(self, samples: Tensor) -> Polytope:
        return Polytope(self.box.take(samples), self.rows[samples], self.offsets[samples])

    def to(self, dtype: torch.dtype) -> Polytope:
        return Polytope(self.box.to(dtype), self.rows.to(dtype), self.offsets.to(dtype))

    def within(self, box: Box) -> Polytope:
        """The part of it in another box."""
        return replace(self, box=box)

    def _flat(self, x: Tensor) -> Tensor:
        """[..., B, *shape] to [..., B, n]."""
        return x.flatten(x.dim() - self.box.lower.dim() + 1)

    def _multipliers(self, a: Tensor) -> Tensor:
        """Multipliers of the rows for forms [B, S, n], [B, S, m]."""
        count = self.rows.shape[1]
        multipliers = a.new_zeros(*a.shape[:2], count)
        width = (self.box.upper - self.box.lower).flatten(1).unsqueeze(1)
        lower, upper = (corner.flatten(1).unsqueeze(1) for corner in (self.box.lower, self.box.upper))
        total = a
        for j in list(range(count)) * (SWEEPS if count > 1 else 1):
            row = self.rows[:, j].unsqueeze(1)
            others = total - multipliers[..., j : j + 1] * row
            best = _best(others, row, self.offsets[:, j : j + 1], lower, upper, width)
            multipliers[..., j] = best
            total = others + best.unsqueeze(-1) * row
        return multipliers

    def _error(self, a: Tensor, multipliers: Tensor) -> Tensor:
        """A bound of the rounding error of the dual for given multipliers, [B, S], with a factor of 2 to spare."""
        reach = torch.maximum(self.box.lower.abs(), self.box.upper.abs()).flatten(1).unsqueeze(1)
        terms = a.shape[2] + 2 * self.rows.shape[1] + MORE
        sizes = ((a.abs() + multipliers @ self.rows.abs()) * reach).sum(2)
        sizes = sizes + (multipliers * self.offsets.abs().unsqueeze(1)).sum(2)
        return 2 * terms * (UNIT * sizes + VANISHED * (1 + reach.sum(2)))


def _best(a: Tensor, row: Tensor, offset: Tensor, lower: Tensor, upper: Tensor, width: Tensor) -> Tensor:
    """The multiplier >= 0 with the greatest minimum over the box of <a + lam row, x> + lam offset, [B, S].

    The derivative in lam falls by |row_i| width_i where coordinate i changes its end, at lam = -a_i / row_i.
    """
    slope = offset + (
        torch.where(a > 0, lower, torch.where(a < 0, upper, torch.where(row > 0, lower, upper))) * row
    ).sum(2)
    turns = -a / torch.where(row == 0, 1.0, row)
    turns, order = torch.where((row != 0) & (turns > 0), turns, torch.inf).sort(dim=2)
    falls = (row.abs() * width).expand_as(a).gather(2, order).where(turns.isfinite(), 0.0).cumsum(2)
    ended = slope.unsqueeze(2) - falls <= 0
    place = ended.to(torch.int8).argmax(2, keepdim=True)  # the first one
    best = turns.gather(2, place).squeeze(2)
    # a row that no point of the box satisfies: beyond all turns the dual grows without end
    last = turns.where(turns.isfinite(), 0.0).amax(2)
    rise = slope - falls[..., -1]
    far = last + 4 * (1 + ((a.abs() + last.unsqueeze(2) * row.abs()) * (lower.abs() + upper.abs())).sum(2)) / rise
    best = torch.where(ended.any(2), best, far)
    return torch.where((slope > 0) & best.isfinite(), best, 0.0)

"""Balls of the l1 norm, and the threat model that makes them.

    min over the ball of <a, x'> = <a, x> - eps ||a||_inf

Within the data range, the radius is spent first on the coordinates with the largest |a|, on each up to its room (the
fractional knapsack). The dual problem has one price: the |a_i| of the coordinate at which the radius is used up, or 0:

    max over price >= 0 of  <a, x> - <(|a| - price)+, room> - eps price

A projection lowers all sizes by the same t, m = clip(|x' - x| - t, 0, room), like the projection onto the simplex
(Duchi et al. 2008, "Efficient projections onto the l1-ball for learning in high dimensions"). Ascent is that of Tramer
& Boneh 2019, "Adversarial training and robustness for multiple perturbations": the coordinates with the largest
gradient share the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctbench.regions.ball import Ball
from ctbench.regions.base import Threat, inner

SHARE = 0.01  # the share of the coordinates that one step of ascent moves
EDGE = 1e-5  # as a share of the data range: a coordinate with less room than this does not move


class L1Ball(Ball):
    """All x' with ||x' - center||_1 <= radius, in the data range if there is one."""

    def minimum(self, a: Tensor) -> Tensor:
        a, center = a.flatten(2), self.center.flatten(1)
        middle, size = inner(a, center), a.abs()
        if self.clip is None:
            return middle - self.radius * size.amax(-1)
        room = self._room(-a, center.unsqueeze(1))
        size = size.expand_as(room)
        falling, order = size.sort(dim=-1, descending=True)
        spent = room.detach().gather(-1, order).cumsum(-1)
        last = (spent < self.radius).sum(-1, keepdim=True)  # the index at which the radius is used up; n if it never is
        price = torch.cat([falling, torch.zeros_like(falling[..., :1])], -1).gather(-1, last)
        return middle - ((size - price).clamp(min=0) * room).sum(-1) - self.radius * price.squeeze(-1)

    def _length(self, offset: Tensor) -> Tensor:
        return offset.abs().sum(-1, keepdim=True)

    def _nearest(self, size: Tensor, room: Tensor) -> Tensor:
        room = torch.minimum(room, size)
        return torch.minimum((size - _threshold(size, room, self.radius)).clamp(min=0), room)

    def _uniform(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        # n of n + 1 exponential variables, divided by the sum of all n + 1, are uniform below the simplex
        size = like.new_empty(*like.shape[:-1], like.shape[-1] + 1).exponential_(generator=generator)
        sign = torch.empty_like(like).uniform_(-1, 1, generator=generator).sign()
        return sign * size[..., :-1] / size.sum(-1, keepdim=True)

    def _steepest(self, x: Tensor, gradient: Tensor) -> Tensor:
        # a projected coordinate may miss the edge of the data range by a rounding error: it counts as at the edge
        edge = 0.0 if self.clip is None else EDGE * (self.clip[1] - self.clip[0])
        gain = torch.where(self._room(gradient, x) > edge, gradient.abs(), 0)
        count = max(1, int(SHARE * gain.shape[-1]))
        least = gain.topk(count, dim=-1).values[..., -1:]
        chosen = (gain >= least) & (gain > 0)  # more than `count` if some gains are equal
        return gradient.sign() * chosen / chosen.sum(-1, keepdim=True).clamp(min=1)


def _threshold(size: Tensor, room: Tensor, radius: float) -> Tensor:
    """The smallest t >= 0 with sum of clip(size - t, 0, room) <= radius, for room <= size, [..., n] to [..., 1].

    As t falls, the slope of the sum is the number of coordinates between 0 and their room: it rises by one at each
    `size`, and falls by one at each `size - room`.
    """
    edges, order = torch.cat([size, size - room], -1).sort(dim=-1, descending=True)
    counts = torch.cat([torch.ones_like(size), -torch.ones_like(size)], -1).gather(-1, order).cumsum(-1)
    growth = counts[..., :-1] * -edges.diff(dim=-1)
    totals = torch.cat([torch.zeros_like(size[..., :1]), growth.cumsum(-1)], -1)  # the sum at each edge
    last = (totals <= radius).sum(-1, keepdim=True) - 1
    edge, total, count = (of.gather(-1, last) for of in (edges, totals, counts))
    return (edge - (radius - total) / count.clamp(min=1)).clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class L1(Threat):
    """The input may move by eps in the l1 norm, and stays in the data range; clip=None: the ball without a range."""

    name: ClassVar[str] = "l1"
    nested: ClassVar[bool] = True

    def region(self, x: Tensor) -> L1Ball:
        return L1Ball(x, self.eps, self.clip)

"""Balls of the l2 norm, and the threat model that makes them.

    min over the ball of <a, x'> = <a, x> - eps ||a||_2

Within the data range, the minimum is the dual of the ball constraint: every multiplier gives a lower bound, and the
best multiplier gives the minimum (strong duality: x itself is inside). With m the sizes of the moves,

    max over lam >= 0 of  <a, x> - <|a|, m> + lam (||m||_2^2 - eps^2),   m = min(|a| / (2 lam), room)

The sizes of a projection have the same form, m = min(t |x' - x|, room) with t <= 1. In both cases m must have the
length of the radius, and `_stretch` computes the t for this.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import torch
from torch import Tensor

from ctbench import waiting
from ctbench.regions.ball import Ball, tiny
from ctbench.regions.base import Threat, inner

ROUNDS = 24  # on an accelerator; images of MNIST need 5 rounds up to a radius of 1.5, and 18 at a radius of 15


class L2Ball(Ball):
    """All x' with ||x' - center||_2 <= radius, in the data range if there is one."""

    def minimum(self, a: Tensor) -> Tensor:
        a, center = a.flatten(2), self.center.flatten(1)
        middle, size = inner(a, center), a.abs()
        if self.clip is None:
            return middle - self.radius * _norm(a).squeeze(-1)
        # in units of the radius and of the largest coefficient; no move is longer than 1
        room = (self._room(-a, center.unsqueeze(1)) / max(self.radius, tiny(a))).clamp(max=1)
        with torch.no_grad():  # the derivative in the multiplier is 0 at its maximum
            greatest = size.amax(-1, keepdim=True)
            share = size / greatest.clamp(min=tiny(a))
            stretch = _stretch(share, room)
            free, multiplier = stretch * share, (greatest / (2 * stretch)).squeeze(-1)
        moves = torch.minimum(free, room)
        return middle - self.radius * ((size * moves).sum(-1) + multiplier * (1 - moves.square().sum(-1)))

    def _length(self, offset: Tensor) -> Tensor:
        return _norm(offset)

    def _nearest(self, size: Tensor, room: Tensor) -> Tensor:
        if self.clip is None:
            return size * (self.radius / _norm(size).clamp(min=tiny(size))).clamp(max=1)
        unit = max(self.radius, tiny(size))
        stretch = _stretch(size / unit, room / unit).clamp(max=1)
        return torch.minimum(stretch * size, room)

    def _uniform(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        direction = _unit(torch.empty_like(like).normal_(generator=generator))
        return direction * torch.empty_like(like[..., :1]).uniform_(generator=generator) ** (1 / like.shape[-1])

    def _steepest(self, x: Tensor, gradient: Tensor) -> Tensor:
        return _unit(gradient)


def _stretch(size: Tensor, room: Tensor) -> Tensor:
    """The largest t with ||min(t size, room)||_2 <= 1, [..., n] to [..., 1]; a huge number if no t is too large.

    Exact: the set of coordinates that reach their room determines t. The set starts empty; t and the set grow until no
    coordinate is added. Python would have to wait for an accelerator to test this, so there the number of rounds is
    fixed. If t could still grow after the last round, its sizes are also within the ball.
    """
    full = torch.zeros_like(size, dtype=torch.bool)
    huge: float = torch.finfo(size.dtype).max
    stretch = torch.zeros_like(size[..., :1])
    for _ in count() if waiting.is_free(size) else range(ROUNDS):
        remaining = 1 - torch.where(full, room, 0).square().sum(-1, keepdim=True)
        moving = torch.where(full, 0, size).square().sum(-1, keepdim=True)
        # if one coordinate takes all of the radius, the remaining radius may round to 0: t would also fall to 0
        stretch = torch.maximum(stretch, (remaining.clamp(min=0) / moving).sqrt().nan_to_num(nan=huge, posinf=huge))
        grown = full | (stretch * size >= room)
        if waiting.is_free(size) and torch.equal(grown, full):
            break
        full = grown
    return stretch


def _unit(x: Tensor) -> Tensor:
    """x / ||x||_2, or 0, [..., n]; squares of values such as 1e-30 do not underflow."""
    x = x / x.abs().amax(-1, keepdim=True).clamp(min=tiny(x))
    return x / _norm(x).clamp(min=tiny(x))


def _norm(x: Tensor) -> Tensor:
    """[..., n] to [..., 1]. In double precision, where it may be part of a proof, no square underflows or overflows."""
    unit = x.abs().amax(-1, keepdim=True).clamp(min=tiny(x)) if x.dtype == torch.float64 else None
    norm: Tensor = torch.linalg.vector_norm(x if unit is None else x / unit, dim=-1, keepdim=True)
    return norm if unit is None else unit * norm


@dataclass(frozen=True, kw_only=True)
class L2(Threat):
    """The input may move by eps in the l2 norm, and stays in the data range; clip=None: the ball without a range."""

    name: ClassVar[str] = "l2"
    nested: ClassVar[bool] = True

    def region(self, x: Tensor) -> L2Ball:
        return L2Ball(x, self.eps, self.clip)

"""Balls of the l2 norm, and the threat model that makes them.

    min over the ball of <a, x'> = <a, x> - eps ||a||_2

Cut with the data range, the minimum is that of the Lagrangian of the ball, which any multiplier makes a lower bound and
the right one makes the minimum (strong duality: x itself is inside). With m the sizes of the moves,

    max over lam >= 0 of  <a, x> - <|a|, m> + lam (||m||_2^2 - eps^2),   m = min(|a| / (2 lam), room)

The sizes of a projection have the same form, m = min(t |x' - x|, room) with t <= 1. Either way m must fill the ball,
and `_stretch` finds the t that does it.
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

ROUNDS = 24  # on an accelerator; 2,000 images of MNIST took 5 up to a radius of 1.5, and 18 at most, at 15


class L2Ball(Ball):
    """All x' with ||x' - center||_2 <= radius, in the data range if there is one."""

    def minimum(self, a: Tensor) -> Tensor:
        a, center = a.flatten(2), self.center.flatten(1)
        middle, size = inner(a, center), a.abs()
        if self.clip is None:
            return middle - self.radius * _norm(a).squeeze(-1)
        # in units of the radius, and of the greatest coefficient; no move is longer than 1
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
    """The greatest t with ||min(t size, room)||_2 <= 1, [..., n] to [..., 1]; a huge number where none is too great.

    Exact: t is known when the coordinates that reach their room are. Starting from none, t only grows and they only
    become more, until none is added. To see that none is, Python has to wait for an accelerator: there the rounds are
    counted, and a t that were still to grow gives sizes within the ball, too.
    """
    full = torch.zeros_like(size, dtype=torch.bool)
    huge: float = torch.finfo(size.dtype).max
    stretch = torch.zeros_like(size[..., :1])
    for _ in count() if waiting.is_free(size) else range(ROUNDS):
        left = 1 - torch.where(full, room, 0).square().sum(-1, keepdim=True)
        moving = torch.where(full, 0, size).square().sum(-1, keepdim=True)
        # where one coordinate takes all of the radius, what is left may round to 0: t would fall to 0, too
        stretch = torch.maximum(stretch, (left.clamp(min=0) / moving).sqrt().nan_to_num(nan=huge, posinf=huge))
        grown = full | (stretch * size >= room)
        if waiting.is_free(size) and torch.equal(grown, full):
            break
        full = grown
    return stretch


def _unit(x: Tensor) -> Tensor:
    """x / ||x||_2, or 0, [..., n]; squares of what is as small as 1e-30 do not vanish."""
    x = x / x.abs().amax(-1, keepdim=True).clamp(min=tiny(x))
    return x / _norm(x).clamp(min=tiny(x))


def _norm(x: Tensor) -> Tensor:
    """[..., n] to [..., 1]. In double precision, where it may be part of a proof, no square vanishes or overflows."""
    unit = x.abs().amax(-1, keepdim=True).clamp(min=tiny(x)) if x.dtype == torch.float64 else None
    norm: Tensor = torch.linalg.vector_norm(x if unit is None else x / unit, dim=-1, keepdim=True)
    return norm if unit is None else unit * norm


@dataclass(frozen=True, kw_only=True)
class L2(Threat):
    """The input may move by eps in the l2 norm, and stays in the data range; clip=None is the ball alone."""

    name: ClassVar[str] = "l2"

    def region(self, x: Tensor) -> L2Ball:
        return L2Ball(x, self.eps, self.clip)

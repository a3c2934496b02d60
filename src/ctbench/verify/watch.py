"""The seconds that each sample of a batch takes."""

from __future__ import annotations

import time

import torch
from torch import Tensor


class Watch:
    """Time is shared by the sub-problems that it is spent on: no sample gets more because others have ended."""

    def __init__(self, seconds: Tensor | None, samples: int, share: float = 1.0) -> None:
        """`seconds` is what each sample has, [B], None for no limit; it may take this share of it."""
        self.spent = torch.zeros(samples, dtype=torch.float64)
        self.limit = torch.full_like(self.spent, torch.inf) if seconds is None else share * seconds.double()
        self.last = time.perf_counter()

    def charge(self, samples: Tensor) -> None:
        """Share the time since the last charge among these samples, [N], one for each of their sub-problems."""
        now = time.perf_counter()
        shares = torch.bincount(samples.cpu(), minlength=len(self.spent)) / max(1, len(samples))
        self.spent = self.spent + shares * (now - self.last)
        self.last = now

    @property
    def left(self) -> Tensor:
        """The seconds that each sample has left, [B]."""
        return self.limit - self.spent

    def late(self) -> Tensor:
        """Which samples have none, [B]."""
        return self.left <= 0

    def beyond(self, share: float, seconds: float) -> Tensor:
        """Which samples have taken more than this share of what they may, or more than these seconds, [B]."""
        return self.spent > (share * self.limit).clamp(max=seconds)

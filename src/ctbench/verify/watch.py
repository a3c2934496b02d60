"""The seconds that each sample of a batch has taken and has left."""

from __future__ import annotations

import time

import torch
from torch import Tensor


class Watch:
    """Time is shared by the sub-problems that it is spent on: no sample gets more because others have ended."""

    def __init__(self, seconds: Tensor | None, samples: int) -> None:
        """`seconds` is what each sample may take, [B]; None for no limit."""
        self.left = torch.full((samples,), torch.inf, dtype=torch.float64) if seconds is None else seconds.double()
        self.last = time.perf_counter()

    def charge(self, samples: Tensor) -> None:
        """Share the time since the last charge among these samples, [N], one for each of their sub-problems."""
        now = time.perf_counter()
        shares = torch.bincount(samples.cpu(), minlength=len(self.left)) / max(1, len(samples))
        self.left = self.left - shares * (now - self.last)
        self.last = now

    def late(self) -> Tensor:
        """Which samples have no time left, [B]."""
        return self.left <= 0

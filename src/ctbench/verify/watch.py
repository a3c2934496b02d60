"""The seconds that each sample of a batch takes."""

from __future__ import annotations

import time

import torch
from torch import Tensor


class Watch:
    """Time is shared by the sub-problems that it is spent on: no sample gets more because others have ended."""

    def __init__(
        self, seconds: Tensor | None, samples: int, share: float = 1.0, *, device: torch.device | None = None
    ) -> None:
        """`seconds` is what each sample has, [B], None for no limit; it may take this share of it.

        All that it answers lies on the device of `seconds`; where there are none, on the one that is given.
        """
        place = device if seconds is None else seconds.device
        self.spent = torch.zeros(samples, dtype=torch.float64, device=place)
        self.limit = torch.full_like(self.spent, torch.inf) if seconds is None else share * seconds.double()
        self.last = time.perf_counter()

    def charge(self, samples: Tensor) -> None:
        """Share the time since the last charge among these samples, [N], one for each of their sub-problems."""
        now = time.perf_counter()
        samples = samples.to(self.spent.device)
        each = torch.full_like(samples, (now - self.last) / max(1, len(samples)), dtype=self.spent.dtype)
        self.spent = self.spent.index_add(0, samples, each)
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

"""How much time a computation may take: moments at which it is broken off, and the budget of each sample of a batch.

budget = Budget.of([60.0] * 8)         # seconds of 8 samples, from now on
with budget.within():                  # until all of them together have used up their time:
    crown.boxes(...)                   # looks at the clock before each of its passes, and raises OutOfTime
    budget = budget.charge(samples)    # the time since the last charge, shared by the samples it was spent on
    budget.is_late                     # which samples have no time left

A pass over a wide network takes seconds, and a bound takes many passes, so without these looks a user would wait long
for a result that comes too late. All moments are those of one clock, `now`. Without a limit there is no end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_end: ContextVar[float] = ContextVar("end", default=math.inf)


class OutOfTime(Exception):  # noqa: N818 (it is not an error)
    """The time limit of a computation is over."""


def now() -> float:
    """The clock: seconds since some moment, the same one for all processes of a machine."""
    return time.perf_counter()


@contextmanager
def until(end: float) -> Iterator[None]:
    """A context with a time limit. Inside another such context, the earlier end counts."""
    token = _end.set(min(end, _end.get()))
    try:
        yield
    finally:
        _end.reset(token)


def is_over() -> bool:
    """Whether the time is over."""
    return now() >= _end.get()


def check() -> None:
    """Raise OutOfTime if the time is over."""
    if is_over():
        raise OutOfTime


@dataclass(frozen=True, eq=False)
class Budget:
    """The time of each of B samples that are worked on together.

    Time is charged to the samples on which it is spent, so no sample gets more because others have ended.
    """

    limit: Tensor  # [B] seconds in double precision, inf for no limit
    spent: Tensor  # [B] seconds, on the same device
    since: float  # the moment of the last charge

    @classmethod
    def of(
        cls, seconds: Sequence[float] | Tensor, *, device: torch.device | None = None, since: float | None = None
    ) -> Budget:
        """Seconds for each sample, [B], inf for no limit; from now on, or since another moment."""
        limit = torch.as_tensor(seconds, dtype=torch.float64, device=device)
        return cls(limit, torch.zeros_like(limit), now() if since is None else since)

    def __len__(self) -> int:
        return len(self.limit)

    @property
    def left(self) -> Tensor:
        """The seconds that each sample has left, [B]."""
        return self.limit - self.spent

    @property
    def is_late(self) -> Tensor:
        """Which samples have no time left, [B] bool."""
        return self.left <= 0

    @property
    def end(self) -> float:
        """The moment at which the samples together have used up their time."""
        return self.since + float(self.left.clamp(min=0).sum())

    def within(self) -> AbstractContextManager[None]:
        """Break off computations at the end of the budget: they raise OutOfTime."""
        return until(self.end)

    def beyond(self, share: float, seconds: float) -> Tensor:
        """Which samples have spent more than this share of their limit, or more than these seconds, [B] bool."""
        return self.spent > (share * self.limit).clamp(max=seconds)

    def charge(self, samples: Tensor) -> Budget:
        """Share the time since the last charge among samples, [N] indices: one for each piece of work."""
        moment, samples = now(), samples.to(self.spent.device)
        each = torch.full_like(samples, (moment - self.since) / max(1, len(samples)), dtype=self.spent.dtype)
        return replace(self, spent=self.spent.index_add(0, samples, each), since=moment)

    def select(self, samples: Tensor) -> Budget:
        """The budget of some samples: a mask [B] or indices."""
        samples = samples.to(self.limit.device)
        return replace(self, limit=self.limit[samples], spent=self.spent[samples])

    def part(self, share: float = 1.0) -> Budget:
        """A share of the time that each sample has left, as a budget that begins now."""
        return Budget.of(share * self.left)

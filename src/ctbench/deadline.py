"""A moment after which what is being computed is of no use.

with until(end):           # on the clock of time.perf_counter
    crown.boxes(...)       # looks at the clock before each of its passes: OutOfTime

A pass over a wide network takes seconds, and a bound takes many of them, so whoever has a limit would wait long for a
result that comes too late. Where no limit is set nothing is ever out of time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_end: ContextVar[float] = ContextVar("end", default=math.inf)


class OutOfTime(Exception):  # noqa: N818 (nothing went wrong)
    """The time that a computation was given is over."""


def seconds(text: str) -> float:
    """Read a time limit.

    Raises:
        ValueError: the text is not a positive, finite number.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{text!r} is not a number of seconds > 0, e.g. 60")
    return number


@contextmanager
def until(end: float) -> Iterator[None]:
    """Until this moment, or one that was set around it if that comes first."""
    token = _end.set(min(end, _end.get()))
    try:
        yield
    finally:
        _end.reset(token)


def is_over() -> bool:
    """Whether the moment has come."""
    return time.perf_counter() >= _end.get()


def check() -> None:
    """Raise OutOfTime if the moment has come."""
    if is_over():
        raise OutOfTime

"""A time after which a computation gives up.

with until(end):           # on the clock of time.perf_counter
    crown.boxes(...)       # checks the clock before each of its passes, and may raise OutOfTime

A pass over a wide network takes seconds, and a bound takes many passes. Without this check, a caller with a time limit
would wait long for a result that comes too late. If no limit is set, nothing is ever out of time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_end: ContextVar[float] = ContextVar("end", default=math.inf)


class OutOfTime(Exception):  # noqa: N818 (it is not an error)
    """The time limit of a computation is over."""


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
    """A context with a time limit. Inside another such context, the earlier end counts."""
    token = _end.set(min(end, _end.get()))
    try:
        yield
    finally:
        _end.reset(token)


def is_over() -> bool:
    """Whether the time is over."""
    return time.perf_counter() >= _end.get()


def check() -> None:
    """Raise OutOfTime if the time is over."""
    if is_over():
        raise OutOfTime

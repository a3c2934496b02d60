"""Timing of several functions in turns, so that a slow moment of the machine affects all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def turns(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[dict[str, float]]:
    """The seconds of each contender in each of some rounds, after one round to warm up."""
    taken = list[dict[str, float]]()
    for _ in range(rounds + 1):
        taken.append({})
        for name, run in contenders.items():
            start = clock()
            run()
            taken[-1][name] = clock() - start
    return taken[1:]


def medians(contenders: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """The median seconds of each contender over some rounds, after one round to warm up."""
    taken = turns(contenders, rounds=rounds)
    return {name: statistics.median(each[name] for each in taken) for name in contenders}

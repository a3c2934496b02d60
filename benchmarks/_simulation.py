"""A certification on many workers, simulated: one driver cuts chunks, gives them to free workers, and takes results."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctbench.verify.job import chunks


@dataclass(frozen=True)
class Simulated:
    """What a simulated certification took."""

    seconds: float  # from the start to the last result
    ideal: float  # the same if the work could be divided without end, and the driver took no time
    driver: float  # the share of the time in which the driver was busy
    chunks: int


def simulated(seconds: Sequence[float], workers: int, *, per_chunk: float, per_sample: float) -> Simulated:
    """Certify samples on simulated workers, in the chunks that `certify` would cut.

    A worker that has finished a chunk waits for the driver, which serves one worker after the other.

    Args:
        seconds: the time of each sample on a worker, in the order of the samples.
        workers: the number of workers.
        per_chunk: seconds of the driver for each chunk.
        per_sample: seconds of the driver for each record, including the writing.
    """
    count = len(seconds)
    parts = list(chunks(np.arange(count), workers))
    free = [(0.0, 0)] * min(workers, len(parts))  # when each worker ends its chunk, and the records that it has then
    heapq.heapify(free)
    driver = busy = 0.0
    for chunk in parts:
        end, records = heapq.heappop(free)
        cost = per_chunk + records * per_sample
        driver, busy = max(driver, end) + cost, busy + cost
        heapq.heappush(free, (driver + sum(seconds[place] for place in chunk), len(chunk)))
    while free:
        end, records = heapq.heappop(free)
        driver, busy = max(driver, end) + records * per_sample, busy + records * per_sample
    return Simulated(driver, sum(seconds) / workers, busy / driver if driver else 0.0, len(parts))

"""The driver of a certification: its memory, and its CPU time for each record, with workers that answer at once.

The samples have one pixel, so nearly all memory besides that of Python and torch is what the driver keeps of them. The
time contains that of making and pickling records, which workers otherwise do; `reading` is what `ctbench compare` does.
"""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import tempfile
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._memory import peak
from ctbench.engine import Engine, Task
from ctbench.results import CertificationFiles, Verdict
from ctbench.verify import Bound, Records, certify
from ctbench.verify.cascade import Decision

SAMPLES = (1_000, 10_000, 100_000, 1_000_000)
TOGETHER = 32  # records that a worker sends at once
DECISION = Decision(stage="interval", bound=0.25).charged("clean", 0.001).charged("interval", 0.125)


@dataclass(frozen=True)
class AtOnce(Engine):
    """Workers that certify each sample in no time. What they say is pickled, as by processes."""

    def size(self) -> int:
        return 8

    def run(self, tasks: Iterable[Task], *, count: int | None = None) -> Generator[tuple[str, Any]]:
        decision = DECISION.decided(Verdict.CERTIFIED)
        for task in tasks:
            chunk, _ = pickle.loads(pickle.dumps(task.current()))
            for start in range(0, len(chunk.indices), TOGETHER):
                places = range(start, min(start + TOGETHER, len(chunk.indices)))
                records = [chunk.record(place, decision, prediction=0) for place in places]
                yield task.key, pickle.loads(pickle.dumps(records))


def main() -> None:
    print(f"\n{'samples':>10}{'MiB':>8}{'more':>8}{'us/record':>11}{'reading':>9}")
    context, first = multiprocessing.get_context("spawn"), 0.0
    for samples in SAMPLES:
        with context.Pool(1) as pool:
            memory, writing, reading = pool.apply(measured, (samples,))
        first = first or memory
        print(f"{samples:10}{memory:8.0f}{memory - first:8.0f}{1e6 * writing:11.0f}{1e6 * reading:9.0f}", flush=True)


def measured(samples: int) -> tuple[float, float, float]:
    """The peak memory in MiB, the CPU seconds of a certification for each record, and those of reading it again."""
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(1, 2)), torch.rand(samples, 1), torch.zeros(samples, dtype=int)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "linf-0.1.jsonl"
        start = time.process_time()
        certification = certify(
            model,
            x,
            y,
            eps=0.1,
            stages=[Bound(domain="interval")],
            engine=AtOnce(),
            records=Records(path, in_memory=False),
        )
        assert certification.certified_accuracy == 1.0
        certification.summary()
        middle = time.process_time()
        assert CertificationFiles(path).open().certified_accuracy == 1.0
        return peak(), (middle - start) / samples, (time.process_time() - middle) / samples


if __name__ == "__main__":
    sys.exit(main())

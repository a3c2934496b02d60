"""Running an experiment: its trials in parallel processes, with a record of each trial as soon as it ends. After an
interruption only the missing trials run.

    records = run(experiment.trials(scale), Path("records.jsonl"), jobs=8)
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from ctbench.experiments.base import KEY, Trial
from ctbench.experiments.measuring import measure
from ctbench.results import jsonl, locks
from ctbench.results.jsonl import Record
from ctbench.watchdog import exit_with_parent

Watch = Callable[[int, int], None]
Place = tuple[object, ...]


def run(
    trials: Sequence[Trial], path: Path, *, jobs: int = 1, total: float = math.inf, watch: Watch | None = None
) -> list[Record]:
    """The records of all trials: those in the file, and new ones, which are appended to the file.

    Args:
        trials: in the order in which they start.
        path: the file of records; it may also hold other trials of the same experiment.
        jobs: the number of trials at a time, with one thread each: 1 in this process, more in separate processes.
        total: seconds after which no further trial starts.
        watch: called with the number of finished trials and the number of trials, at the start and after each trial.

    Raises:
        ValueError: the file holds other records, or a record of one of these trials with another recipe or measurement;
            or another process writes the file.
        ChildProcessError: a process died.
    """
    with locks.alone(path.with_suffix(".lock"), path):
        return _run(trials, path, jobs, time.perf_counter() + total, watch)


def _run(trials: Sequence[Trial], path: Path, jobs: int, deadline: float, watch: Watch | None) -> list[Record]:
    done = _existing(path, trials)
    jsonl.rewrite(path, done.values())  # without a line that was truncated by a kill

    def tell() -> None:
        if watch is not None:
            watch(sum(_place(trial.key) in done for trial in trials), len(trials))

    tell()
    missing = [trial for trial in trials if _place(trial.key) not in done]
    with closing(_records(missing, jobs, deadline)) as records:
        for record in records:
            jsonl.append(path, [record])
            done[_place(record)] = record
            tell()
    return [done[_place(trial.key)] for trial in trials if _place(trial.key) in done]


def _existing(path: Path, trials: Sequence[Trial]) -> dict[Place, Record]:
    """The records of a file, by the places of their trials."""
    records = jsonl.read(path)
    if not all({*KEY, "trial"} <= record.keys() for record in records):
        raise ValueError(f"{path} holds records that are not trials: choose another place")
    by_place = {_place(record): record for record in records}
    for trial in trials:
        record = by_place.get(_place(trial.key))
        if record is not None and record["trial"] != trial.digest:
            raise ValueError(
                f"{path} holds a trial {trial.key} with another recipe or other measurements: choose another place, "
                f"or delete it"
            )
    return by_place


def _place(record: Record) -> Place:
    return tuple(record[name] for name in KEY)


def _records(trials: Sequence[Trial], jobs: int, deadline: float) -> Generator[Record]:
    """The records of trials, in the order in which they finish; no trial starts after the deadline."""
    waiting = deque(trials)
    if jobs == 1:
        while waiting and time.perf_counter() < deadline:
            yield _record(waiting.popleft())
        return
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    running = set[Future[Record]]()
    with theirs, ProcessPoolExecutor(jobs, context, _begin, (theirs,)) as pool, ours:
        while True:
            while waiting and len(running) < jobs and time.perf_counter() < deadline:
                running.add(pool.submit(_record, waiting.popleft()))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    yield future.result()
                except BrokenProcessPool:
                    raise ChildProcessError("a process died: run the rest again, with fewer jobs") from None


def _begin(parent: Connection) -> None:
    """Set up a worker process: the parent handles Ctrl-C, and the worker exits when the pipe to the parent closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_parent(parent)


def _record(trial: Trial) -> Record:
    """Measure a trial in one thread: sums in another order would give other numbers."""
    start, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        quantities = measure(trial)
    finally:
        torch.set_num_threads(threads)
    return {**trial.key, "trial": trial.digest, **quantities, "seconds": time.perf_counter() - start}

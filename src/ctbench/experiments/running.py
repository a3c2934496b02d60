"""Running an experiment: its trials in parallel processes, a record of each as soon as it is known, and what is missing
after an interruption.

    records = run(experiment.trials(scale), Path("records.jsonl"), jobs=8)
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
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
from ctbench.results import jsonl
from ctbench.results.jsonl import Record

Watch = Callable[[int, int], None]
Place = tuple[object, ...]


def run(
    trials: Sequence[Trial], path: Path, *, jobs: int = 1, total: float = math.inf, watch: Watch | None = None
) -> list[Record]:
    """The records of all trials, those of the file and new ones, which are appended to it.

    Args:
        trials: in the order in which they are begun.
        path: the file of records; other trials of the same experiment may be in it.
        jobs: trials at a time, of one thread each: 1 in this process, more in processes of their own.
        total: seconds after which no trial is begun any more.
        watch: called with how many trials are done, and how many there are: at first, and after each.

    Raises:
        ValueError: the file holds other records, or one of these trials that was made or measured otherwise.
        ChildProcessError: a process died.
    """
    deadline = time.perf_counter() + total
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _known(path, trials)
    jsonl.rewrite(path, done.values())  # without what a kill has torn

    def tell() -> None:
        if watch is not None:
            watch(sum(_place(trial.key) in done for trial in trials), len(trials))

    tell()
    left = [trial for trial in trials if _place(trial.key) not in done]
    with closing(_records(left, jobs, deadline)) as found:
        for record in found:
            jsonl.append(path, [record])
            done[_place(record)] = record
            tell()
    return [done[_place(trial.key)] for trial in trials if _place(trial.key) in done]


def _known(path: Path, trials: Sequence[Trial]) -> dict[Place, Record]:
    """The records of a file, by their trials' places."""
    records = jsonl.read(path)
    if not all({*KEY, "trial"} <= record.keys() for record in records):
        raise ValueError(f"{path} holds other records than those of trials: choose another place")
    known = {_place(record): record for record in records}
    for trial in trials:
        record = known.get(_place(trial.key))
        if record is not None and record["trial"] != trial.digest:
            raise ValueError(
                f"{path} holds a trial {trial.key} that was made by another recipe, or measured otherwise: choose "
                f"another place, or delete it"
            )
    return known


def _place(record: Record) -> Place:
    return tuple(record[name] for name in KEY)


def _records(trials: Sequence[Trial], jobs: int, deadline: float) -> Generator[Record]:
    """The records of trials, as they come; none is begun after the deadline."""
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
    """In a process: Ctrl-C is for the parent to answer, and nobody waits for what is found when the pipe to it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Connection) -> None:
    parent.poll(None)
    os._exit(1)


def _record(trial: Trial) -> Record:
    """Measure a trial, in one thread: sums in another order would be other numbers."""
    start, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = measure(trial)
    finally:
        torch.set_num_threads(threads)
    return {**trial.key, "trial": trial.digest, **found, "seconds": time.perf_counter() - start}

"""Running an experiment: its trials in parallel processes, a record of each as soon as it is known, and what is missing
after an interruption."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import torch

from ctbench.experiments.base import KEY, Trial
from ctbench.experiments.measuring import measure
from ctbench.results import jsonl
from ctbench.results.jsonl import Record

Watch = Callable[[int, int], None]


def run(
    trials: Sequence[Trial], path: Path, *, jobs: int = 1, total: float = math.inf, watch: Watch | None = None
) -> list[Record]:
    """The records of all trials, those of the file and new ones, which are appended to it.

    Args:
        trials: in the order in which they are begun.
        path: the file of records; other trials of the same experiment may be in it.
        jobs: processes at a time, of one thread each.
        total: seconds after which no trial is begun any more.
        watch: called with how many trials are done, and how many there are.

    Raises:
        ValueError: the file holds a record of one of the trials, made by another recipe.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    jsonl.rewrite(path, jsonl.read(path))  # without what a kill has torn
    done = {_place(record): record for record in jsonl.read(path)}
    for trial in trials:
        known = done.get(_place(trial.key))
        if known is not None and known["trial"] != trial.digest:
            raise ValueError(
                f"{path} holds a trial {trial.key} that was made by another recipe: choose another place, or delete it"
            )
    left = [trial for trial in trials if _place(trial.key) not in done]
    for record in _records(left, jobs, time.perf_counter() + total):
        jsonl.append(path, [record])
        done[_place(record)] = record
        if watch is not None:
            watch(sum(_place(trial.key) in done for trial in trials), len(trials))
    return [done[_place(trial.key)] for trial in trials if _place(trial.key) in done]


def _place(record: Record) -> tuple[object, ...]:
    return tuple(record[name] for name in KEY)


def _records(trials: Sequence[Trial], jobs: int, deadline: float) -> Iterator[Record]:
    """The records of trials, as they come; none is begun after the deadline."""
    if jobs == 1:
        for trial in trials:
            if time.perf_counter() < deadline:
                yield _record(trial)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting, running = deque(trials), set[Future[Record]]()
        try:
            while True:
                while waiting and len(running) < jobs and time.perf_counter() < deadline:
                    running.add(pool.submit(_record, waiting.popleft()))
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _record(trial: Trial) -> Record:
    start = time.perf_counter()
    found = measure(trial)
    return {**trial.key, "trial": trial.digest, **found, "seconds": time.perf_counter() - start}

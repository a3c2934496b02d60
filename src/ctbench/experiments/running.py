"""Running an experiment: its trials on any engine, with a record of each trial as soon as it ends. After an
interruption only the missing trials run.

    records = run(experiment.trials(scale), Path("records.jsonl"), engine=Local(workers=8))
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import takewhile
from pathlib import Path

import torch

from ctbench.engine import Engine, Here, Task
from ctbench.experiments.base import KEY, Trial
from ctbench.experiments.measuring import measure
from ctbench.results import jsonl, locks
from ctbench.results.jsonl import Record

Watch = Callable[[int, int], None]
Place = tuple[object, ...]


def run(
    trials: Sequence[Trial],
    path: Path,
    *,
    engine: Engine | None = None,
    total: float = math.inf,
    watch: Watch | None = None,
) -> list[Record]:
    """The records of all trials: those in the file, and new ones, which are appended to the file.

    Args:
        trials: in the order in which they start.
        path: the file of records; it may also hold other trials of the same experiment.
        engine: where the trials run, each in one thread; by default in this process, one after the other.
        total: seconds after which no further trial starts.
        watch: called with the number of finished trials and the number of trials, at the start and after each trial.

    Raises:
        ValueError: the file holds other records, or a record of one of these trials with another recipe or measurement;
            or another process writes the file.
        ChildProcessError: trials failed, or workers died of them; after all other trials have run.
    """
    with locks.alone(path.with_suffix(".lock"), path):
        return _run(trials, path, engine or Here(), time.perf_counter() + total, watch)


def _run(trials: Sequence[Trial], path: Path, engine: Engine, deadline: float, watch: Watch | None) -> list[Record]:
    done = _existing(path, trials)
    jsonl.rewrite(path, done.values())  # without a line that was truncated by a kill

    def tell() -> None:
        if watch is not None:
            watch(sum(_place(trial.key) in done for trial in trials), len(trials))

    tell()
    missing = [trial for trial in trials if _place(trial.key) not in done]
    in_time = takewhile(lambda _: time.perf_counter() < deadline, missing)
    tasks = (Task(f"trial {trial.key}", _records, (trial,)) for trial in in_time)
    with closing(engine.run(tasks, count=len(missing))) as records:
        for _, record in records:
            if _place(record) not in done:  # a worker may die after it has sent its record
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


def _records(trial: Trial) -> Iterator[Record]:
    """Measure a trial in one thread: sums in another order would give other numbers. Yields its only record."""
    start, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        quantities = measure(trial)
    finally:
        torch.set_num_threads(threads)
    yield {**trial.key, "trial": trial.digest, **quantities, "seconds": time.perf_counter() - start}

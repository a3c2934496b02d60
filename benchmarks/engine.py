"""Engines: tasks a second, one certification on each engine, and one on up to 1,000 simulated workers.

CTBENCH_RUN names a run folder or an entry of the zoo, which is certified on each engine, and CTBENCH_DATA the folder of
the data. CTBENCH_RECORDS names a file of records; their times per sample are simulated on many workers. Without these
only the first part runs. Wall times are worth something on an idle machine only; the simulation uses CPU times.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from operator import ne
from pathlib import Path

from benchmarks._simulation import simulated
from ctbench.engine import Engine, Here, Local, Ray, Task
from ctbench.results import CertificationFiles, SampleRecord, Verdict
from ctbench.training import load_run
from ctbench.verify import certify

TASKS = 2000
RECORDS = 5000
WORKERS = (1, 2, 8, 100, 1000)


def main() -> None:
    engines: dict[str, Engine] = {"here": Here(), "local:2": Local(workers=2)}
    if find_spec("ray") is not None:
        engines["ray, 2 workers"] = Ray(workers=2)
    per_task, per_result = _tasks(engines)
    per_record = per_result + _writing()
    run, data, records = map(os.environ.get, ("CTBENCH_RUN", "CTBENCH_DATA", "CTBENCH_RECORDS"))
    if run is None or data is None:
        print("\ncertification: not run, CTBENCH_RUN names no run or CTBENCH_DATA no data")
    else:
        _certification(run, Path(data), engines)
    if records is None:
        print("\nsimulation: not run, CTBENCH_RECORDS names no file of records")
    else:
        _simulation(CertificationFiles(Path(records)), per_task, per_record)


def results(number: int) -> Iterator[int]:
    """A task without work."""
    yield from range(number)


def _seconds(engine: Engine, tasks: int, each: int) -> tuple[float, float]:
    """The seconds from the first result of some tasks to the last one, without the start of workers; and our CPU's."""
    arrivals = engine.run((Task(str(number), results, (each,)) for number in range(tasks)), count=tasks)
    next(arrivals)
    start, cpu = time.perf_counter(), time.process_time()
    assert sum(1 for _ in arrivals) == tasks * each - 1, "every task gives all its results"
    return time.perf_counter() - start, time.process_time() - cpu


def _tasks(engines: dict[str, Engine]) -> tuple[float, float]:
    """Print the tasks a second; returns the CPU seconds of the driver for a task, and for a result, at most."""
    print(f"\n{'tasks without work':20}{'results each':>14}{'tasks/s':>10}{'results/s':>11}{'driver us/task':>16}")
    slowest = {1: 0.0, 100: 0.0}
    for name, engine in engines.items():
        for each in (1, 100):
            tasks = TASKS if each == 1 else TASKS // 20
            seconds, cpu = _seconds(engine, tasks, each)
            rates = f"{tasks / seconds:10.0f}{tasks * each / seconds:11.0f}{1e6 * cpu / tasks:16.0f}"
            print(f"{name:20}{each:14}{rates}", flush=True)
            slowest[each] = max(slowest[each], cpu / (tasks * each))
    return slowest[1], slowest[100]


def _writing() -> float:
    """Print the records a second of the writer; returns the CPU seconds for a record that is written alone."""
    record = SampleRecord(
        index=0,
        label=7,
        prediction=7,
        verdict=Verdict.CERTIFIED,
        stage="crown",
        bound=0.25,
        seconds=0.5,
        digest="0" * 16,
    )
    print(f"\n{'records':>10}{'at a time':>11}{'records/s':>11}")
    taken = dict[int, float]()
    for size in (1, 100):
        with tempfile.TemporaryDirectory() as folder:
            files = CertificationFiles(Path(folder) / "linf-0.1.jsonl")
            files.start({"samples": [0, RECORDS]}, resume=False)
            start = time.process_time()
            for _ in range(RECORDS // size):
                files.append([record] * size)
            taken[size] = (time.process_time() - start) / RECORDS
        print(f"{RECORDS:10}{size:11}{1 / taken[size]:11.0f}", flush=True)
    return taken[1]


def _certification(run: str, data: Path, engines: dict[str, Engine]) -> None:
    """Print the time of the complete cascade on all test images, on each engine."""
    loaded = load_run(run)
    x, y = loaded.recipe.dataset.load(data).test[:]
    print(f"\n{loaded.recipe.name}, {len(x)} images, complete cascade")
    print(f"{'engine':20}{'seconds':>10}{'here / it':>11}{'other verdicts':>16}")
    first = dict[str, tuple[float, list[Verdict]]]()
    for name, engine in engines.items():
        start = time.perf_counter()
        certification = certify(loaded.model, x, y, loaded.recipe.threat, timeout=20.0, engine=engine)
        seconds, verdicts = time.perf_counter() - start, [record.verdict for record in certification]
        reference = first.setdefault("here", (seconds, verdicts))
        other = sum(map(ne, reference[1], verdicts))
        print(f"{name:20}{seconds:10.1f}{reference[0] / seconds:11.2f}{other:16}", flush=True)


def _simulation(files: CertificationFiles, per_task: float, per_record: float) -> None:
    """Print the times on simulated workers, with the times per sample in a file of records."""
    seconds = [record.seconds for record in files.open()]
    for times in (1, 100):
        print(f"\n{times} x the {len(seconds)} samples of {files.records.name}, {sum(seconds) * times:.0f} s in all")
        print(
            f"{'workers':>8}{'seconds':>10}{'ideal':>10}{'ideal / it':>12}{'driver busy':>13}{'chunks':>9}"
            f"{'records/s':>11}"
        )
        for workers in WORKERS:
            simulation = simulated(seconds * times, workers, per_chunk=per_task, per_sample=per_record)
            share = simulation.ideal / simulation.seconds
            print(
                f"{workers:8}{simulation.seconds:10.1f}{simulation.ideal:10.1f}{share:12.2f}{simulation.driver:13.1%}"
                f"{simulation.chunks:9}{len(seconds) * times / simulation.seconds:11.0f}",
                flush=True,
            )

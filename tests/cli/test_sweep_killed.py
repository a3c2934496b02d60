"""Sweeps whose workers and drivers are killed at random points: nothing is lost, and nothing is done twice."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.cli.killable import Forking
from tests.engine.test_engines import alive

from ctbench.recipes import recipe
from ctbench.results import RunFolder, jsonl
from ctbench.training import train

EPOCHS, SAMPLES = 12, 13
CHANGES = ["network.width=2", f"epochs={EPOCHS}", "train_samples=400", "batch_size=100"]
RUNS = {f"digits_ibp,shi={shi},seed={seed}": [f"shi={shi}", f"seed={seed}"] for shi in (0, 0.5) for seed in (0, 1)}
RECORDS = len(RUNS) * (EPOCHS + SAMPLES)
COMMAND = ["sweep", "digits_ibp", "--grid", "shi=0,0.5", "--seeds", 2, "--samples", SAMPLES, "--stages", "fast"]
COMMAND += ["--jobs", 2, *(f"--set={change}" for change in CHANGES)]

Snapshot = tuple[dict[Path, list[bytes]], dict[Path, int]]  # records, and when weights were written

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds workers in /proc")


def written(out: Path) -> dict[Path, list[bytes]]:
    """The whole lines of all files of records."""
    files = [*out.glob("*/metrics.jsonl"), *out.glob("*/certified/*.jsonl")]
    return {path: path.read_bytes().rpartition(b"\n")[0].splitlines() for path in files}


def kept(out: Path) -> dict[Path, list[bytes]]:
    """The records that must stay: all, except the last epoch of a training, whose state may not be written yet."""
    return {path: lines[:-1] if path.name == "metrics.jsonl" else lines for path, lines in written(out).items()}


def complete(out: Path) -> dict[Path, int]:
    """The weights of complete runs, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("*/weights.safetensors")}


def kill_at(number: int, forking: Forking, out: Path, chance: random.Random, *, worker: bool) -> Snapshot:
    """Kill the driver or a worker somewhat after there are this many records; returns what there was before."""
    while sum(map(len, written(out).values())) < number:
        assert alive(forking.driver), forking.log.read_text()
        time.sleep(0.01)
    time.sleep(chance.random() / 20)
    crew, before = forking.workers(), (kept(out), complete(out))
    os.kill(chance.choice(crew) if worker else forking.driver, signal.SIGKILL)
    if not worker:
        assert forking.ended() == -signal.SIGKILL
        while any(map(alive, crew)):
            time.sleep(0.01)
    return before


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, bytes]:
    """The weights of each run, trained by itself."""
    out = tmp_path_factory.mktemp("alone")
    for name, changes in RUNS.items():
        train(recipe("digits_ibp").with_changes([*CHANGES, *changes]), out=out / name, quiet=True)
    return {name: RunFolder(out / name).weights.read_bytes() for name in RUNS}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [0])
def test_whatever_is_killed_no_run_is_lost_none_is_trained_twice_and_the_weights_are_the_same(
    tmp_path, forking, uninterrupted, seed
):
    chance, before = random.Random(seed), list[Snapshot]()
    first = chance.randrange(1, RECORDS // 2)
    out = tmp_path / "sweep"
    forking.start(*COMMAND, "--out", out)
    before.append(kill_at(first, forking, out, chance, worker=True))
    before.append(kill_at(chance.randrange(first, RECORDS - 5), forking, out, chance, worker=False))
    said_before = len(forking.log.read_text())
    forking.start(*COMMAND, "--out", out)
    assert forking.ended() == 0, forking.log.read_text()
    said = forking.log.read_text()[said_before:]
    records, weights = written(out), complete(out)
    for kept_before, weights_before in before:
        assert all(records[path][: len(lines)] == lines for path, lines in kept_before.items())
        assert weights_before.items() <= weights.items()
    assert {path.parent.name: path.read_bytes() for path in weights} == uninterrupted
    numbers = [len({record.get("epoch", record.get("index")) for record in jsonl.read(path)}) for path in records]
    assert sorted(numbers) == sorted(map(len, records.values())) == [EPOCHS] * 4 + [SAMPLES] * 4
    assert all(name in said for name in RUNS)
    assert "not all" not in said

"""A study whose workers and drivers are killed: no trial is lost, none is done twice, and the result is the same."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.test_engines import alive

from ctbench.results import Study, StudyFolder, jsonl

EPOCHS, TRIALS = 5, 3
COMMAND = ["tune", "digits_ibp", "--space", "robust_weight=0.5,0.8,1.0", "--trials", TRIALS, "--pruner", "none"]
COMMAND += ["--bound", "interval", "--trial-stages", "interval", "--stages", "interval", "--samples", 9, "--quiet"]
COMMAND += ["--on", "local:2", "--set", "network.width=2", "--set", f"epochs={EPOCHS}", "--set", "train_samples=200"]
COMMAND += ["--set", "batch_size=100", "--set", "shi=0", "--set", "network.batch_norm=false"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds workers in /proc")


def lines(out: Path, pattern: str) -> int:
    """How many records there are in files whose names match."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob(pattern))


def complete(out: Path) -> int:
    return sum(record["state"] == "complete" for record in jsonl.read(StudyFolder(out).trials))


POINTS: list[tuple[str, Callable[[Path], bool]]] = [  # when to kill; the worker stands first, then the command itself
    ("a worker that trains", lambda out: lines(out, "trials/*/metrics.jsonl") > 1),
    ("in training", lambda out: lines(out, "trials/*/metrics.jsonl") > EPOCHS),
    ("in certification", lambda out: lines(out, "trials/*/certified/*.jsonl") > 0),
    ("between trials", lambda out: complete(out) > 0),
    ("in a final training", lambda out: lines(out, "final/*/metrics.jsonl") > 1),
    ("in a final certification", lambda out: lines(out, "final/*/certified/*.jsonl") > 0),
]


def kept(out: Path) -> dict[Path, bytes]:
    """What must stay: weights, and records, except the last epoch of a training, whose state may not be there yet."""
    texts = {path: path.read_bytes() for path in [*out.glob("*/*/metrics.jsonl"), *out.glob("*/*/certified/*.jsonl")]}
    whole = {path: text[: text.rfind(b"\n") + 1] for path, text in texts.items()}
    epochs = {
        path: text[: text.rfind(b"\n", 0, -1) + 1] for path, text in whole.items() if path.name == "metrics.jsonl"
    }
    weights = {path: str(path.stat().st_mtime_ns).encode() for path in out.glob("*/*/weights.safetensors")}
    return whole | epochs | weights


def result(study: Study) -> tuple[list[dict[str, Any]], dict[str, Any], list[bytes]]:
    """All that a study found, without the times it took."""
    trials = [{**trial.to_json(), "seconds": 0} for trial in study.trials]
    return trials, dict(study.content), [run.weights.read_bytes() for run in study.runs]


@pytest.mark.timeout(600)
def test_whatever_is_killed_no_trial_is_lost_none_is_done_twice_and_the_result_is_the_same(tmp_path, forking):
    chance, out, before, killed = random.Random(0), tmp_path / "study", list[dict[Path, bytes]](), list[str]()
    forking.start(*COMMAND, "--out", tmp_path / "whole")
    assert forking.ended() == 0, forking.log.read_text()
    forking.start(*COMMAND, "--out", out)
    for point, reached in POINTS:
        while alive(forking.driver) and not reached(out):
            time.sleep(0.005)
        time.sleep(chance.random() / 20)
        crew = forking.workers() if alive(forking.driver) else []
        before.append(kept(out))
        if not alive(forking.driver):
            pass  # it was faster, on a machine with much other work
        elif "worker" in point:
            os.kill(chance.choice(crew), signal.SIGKILL)
            killed.append(point)
            continue
        else:
            os.kill(forking.driver, signal.SIGKILL)
            killed.append(point)
        assert forking.ended() in (0, -signal.SIGKILL), forking.log.read_text()
        while any(map(alive, crew)):
            time.sleep(0.005)
        forking.start(*COMMAND, "--out", out)
    assert forking.ended() == 0, forking.log.read_text()
    assert len(killed) >= 4, killed
    study, after = Study.read(out), kept(out)
    assert result(study) == result(Study.read(tmp_path / "whole"))
    assert [trial.state for trial in study.trials] == ["complete"] * TRIALS
    for path in [*out.glob("*/*/metrics.jsonl"), *out.glob("*/*/certified/*.jsonl")]:
        numbers = [record.get("epoch", record.get("index")) for record in jsonl.read(path)]
        assert len(set(numbers)) == len(numbers), path
    for earlier in before:
        assert all(after[path].startswith(content) for path, content in earlier.items())

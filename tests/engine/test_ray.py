"""A real Ray cluster of two nodes: the results of one process, each once, whatever is killed."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests import forked
from tests.engine import fated
from tests.engine.clusters import ROOT, Cluster, cluster, kill
from tests.engine.test_engines import alive

from ctbench.recipes import recipe
from ctbench.results import Study, Verdict, jsonl
from ctbench.tuning import tune
from ctbench.verify import certify

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (pip install ray)"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running
    shutil.rmtree(running.session, ignore_errors=True)  # the logs of processes that were killed while they wrote


@pytest.fixture(scope="module")
def two_nodes(head) -> Iterator[Cluster]:
    with head.node():
        yield head


def drive(running: Cluster, folder: Path, address: str | None = None) -> AbstractContextManager[subprocess.Popen[str]]:
    return running.driver("-m", "tests.engine.fated", address or running.address, folder)


def pids(folder: Path) -> set[int]:
    return {int(path.stem) for path in folder.glob("*.pid")}


def wait_for_workers(folder: Path, number: int, driver: subprocess.Popen[str]) -> None:
    """Wait until workers are held up."""
    while len(pids(folder)) < number:
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.05)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.perf_counter() + 60
    while not condition():
        assert time.perf_counter() < end, "workers go on"
        time.sleep(0.1)


def right(folder: Path) -> None:
    """Every sample has the verdict that one process gives it, once."""
    records = jsonl.read(folder / "records.jsonl")
    assert sorted(record["index"] for record in records) == list(range(40))
    alone = certify(**fated.job(folder))
    verdicts = {record["index"]: record["verdict"] for record in records}
    assert [verdicts[record.index] for record in alone] == [record.verdict for record in alone]
    assert {Verdict.CERTIFIED, Verdict.FALSIFIED} <= set(verdicts.values())


def ended_well(driver: subprocess.Popen[str]) -> None:
    _, told = driver.communicate()
    assert driver.returncode == 0, told


def test_a_node_that_is_killed_loses_nothing(head, tmp_path):
    """The first test: so that the cluster has no other nodes yet."""
    (tmp_path / "slow").touch()
    with head.node() as node, drive(head, tmp_path) as driver:
        wait_for_workers(tmp_path, 2, driver)
        workers = pids(tmp_path)
        kill(node)
        wait_until(lambda: sum(map(alive, workers)) == 1)
        (tmp_path / "slow").unlink()
        ended_well(driver)
    assert pids(tmp_path) == workers, "the other worker did the rest"
    right(tmp_path)


def test_a_worker_that_is_killed_loses_nothing_even_through_ray_client(two_nodes, tmp_path):
    (tmp_path / "once").touch()
    with drive(two_nodes, tmp_path, two_nodes.client_address) as driver:
        ended_well(driver)
    assert not (tmp_path / "once").exists()
    right(tmp_path)


def test_a_driver_that_is_killed_ends_its_workers_and_the_same_command_goes_on(two_nodes, tmp_path):
    (tmp_path / "slow").touch()
    with drive(two_nodes, tmp_path) as driver:
        wait_for_workers(tmp_path, 2, driver)
        driver.kill()
        driver.communicate()
    kept = jsonl.read(tmp_path / "records.jsonl")
    assert 0 < len(kept) < 40
    wait_until(lambda: not any(map(alive, pids(tmp_path))))
    (tmp_path / "slow").unlink()
    with drive(two_nodes, tmp_path) as driver:
        ended_well(driver)
    assert jsonl.read(tmp_path / "records.jsonl")[: len(kept)] == kept
    right(tmp_path)


def test_what_cannot_be_is_refused_in_a_line_each(two_nodes):
    with two_nodes.driver("-m", "tests.engine.refused", two_nodes.address) as driver:
        out, told = driver.communicate()
    assert driver.returncode == 0, told
    said = dict(line.split(": ", maxsplit=1) for line in out.splitlines())
    room = "the Ray cluster has room for"
    assert said["none"] == "no error"
    assert said["gpus"].startswith(
        f"ValueError: {room} 0 workers of 1 CPU and 1 GPU each, not for 1: its nodes have 1 CPU"
    )
    assert said["cpus"].startswith(f"ValueError: {room} 0 workers of 2 CPU each, not for 1")
    assert said["many"].startswith(f"ValueError: {room} 2 workers of 1 CPU each, not for 3")
    assert said["model"].startswith("ValueError: the network cannot be copied (")
    assert said["value"].startswith("ValueError: the network and its settings cannot be sent to workers (")
    assert said["replay"].startswith("ValueError: the network and its settings cannot be sent to workers (")
    assert said["task"].startswith("ValueError: a cannot be sent to workers (")
    assert said["result"].startswith("TasksFailedError: 1 task failed (a: RuntimeError: out of luck)")
    assert "of the Ray cluster, and 9.9 here: install the same version on all nodes" in said["version"]
    assert said["busy"].startswith("ValueError: no worker of 1 CPU could start on the Ray cluster within 2 seconds")
    assert len(said) == 11


def test_a_study_on_a_cluster_is_that_of_one_process(two_nodes, tmp_path):
    changes = ["network.width=2", "network.batch_norm=false", "epochs=2", "train_samples=200", "shi=0", "ramp.end=1"]
    space, stages = (
        "robust_weight=0.5,1.0",
        ["--bound", "interval", "--trial-stages", "interval", "--stages", "interval"],
    )
    options = ["--trials", 2, "--samples", 9, "--pruner", "none", "--quiet", "--on", "ray", "--out", tmp_path / "ray"]
    set_all = [f"--set={change}" for change in changes]
    with two_nodes.driver(
        "-m", "ctbench", "tune", "digits_ibp", "--space", space, *set_all, *stages, *options
    ) as driver:
        ended_well(driver)
    here = tune(
        recipe("digits_ibp").with_changes(changes),
        [space],
        out=tmp_path / "here",
        trials=2,
        samples=9,
        pruner="none",
        bound="interval",
        trial_stages="interval",
        stages="interval",
    )
    there = Study.read(tmp_path / "ray")
    assert there.content == here.content
    assert [replace(trial, seconds=0.0) for trial in there.trials] == [
        replace(trial, seconds=0.0) for trial in here.trials
    ]
    assert [run.weights.read_bytes() for run in there.runs] == [run.weights.read_bytes() for run in here.runs]


def swept(folder: Path, on: str) -> list[object]:
    """The arguments of the command."""
    options = ["--stages", "fast", "--samples", 60, "--quiet", "--import", ROOT / "tests/engine/short_recipes.py"]
    return ["sweep", "digits_ibp", "digits_standard", "--out", folder, "--on", on, *options]


def results(folder: Path) -> dict[str, object]:
    """The weights and the verdicts of the runs of a sweep."""
    weights = {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/weights.safetensors")}
    records = {path: jsonl.read(path) for path in folder.glob("*/certified/*.jsonl")}
    assert all(len({record["index"] for record in several}) == len(several) == 60 for several in records.values())
    verdicts = {
        str(path.relative_to(folder)): sorted((record["index"], record["verdict"]) for record in several)
        for path, several in records.items()
    }
    assert len(weights) == len(verdicts) == 2
    return weights | verdicts


def test_a_sweep_has_the_same_weights_and_verdicts_everywhere_even_if_its_driver_is_killed(two_nodes, tmp_path):
    for name, on in (("one", "local:1"), ("two", "local:2")):
        ran = forked.run("ctbench", *swept(tmp_path / name, on), cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
    command, folder = ["-m", "ctbench", *swept(tmp_path / "ray", "ray")], tmp_path / "ray"
    with two_nodes.driver(*command) as driver:
        while not list(folder.glob("*/metrics.jsonl")):
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.02)
        driver.kill()
        driver.communicate()
    with two_nodes.driver(*command) as driver:
        ended_well(driver)
    assert results(tmp_path / "one") == results(tmp_path / "two") == results(folder)

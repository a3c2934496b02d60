"""Workers of one job: the records of one process, each once, whatever is killed."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests import forked

from ctbench.networks import MLP
from ctbench.results import CertificationFiles, Verdict, jsonl
from ctbench.verify import Bound, Findings, Records, Stage, certify

# A job of 40 samples. Where a file "deadly" lies beside it, a process that comes to sample 20 kills itself; with a file
# "once", only the first one does. Where a file "slow" lies beside it, every process stays in its last stage for
# minutes. With a file "broken" a stage raises.
SCRIPT = """
import os, signal, sys, time
from dataclasses import dataclass
from pathlib import Path
import torch
from ctbench.networks import MLP
from ctbench.verify import Bound, Falsify, Findings, Records, Stage, certify

HERE = Path(__file__).parent

@dataclass(frozen=True, kw_only=True)
class Fate(Stage):
    title = "fate"

    def __call__(self, problem, generator):
        if bool((problem.x == 0.5).all(1).any()):
            with (HERE / "tried").open("a") as file:
                file.write("x")
            once = (HERE / "once").exists() and (HERE / "tried").stat().st_size == 1
            if (HERE / "deadly").exists() or once:
                os.kill(os.getpid(), signal.SIGKILL)
        if (HERE / "slow").exists():
            deaf = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            said = f"{'deaf to Ctrl-C' if deaf else ''}, {torch.get_num_threads()} threads"
            (HERE / "unfinished").write_text(said)
            (HERE / "unfinished").replace(HERE / f"{os.getpid()}.pid")
            time.sleep(300)
        if (HERE / "broken").exists():
            raise RuntimeError("out of luck")
        return Findings()

def job():
    torch.manual_seed(0)
    model = MLP(hidden=(12, 8)).build((4,), 3).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    x = torch.rand(40, 4)
    x[20] = 0.5
    stages = [Bound(domain="interval"), Fate(), Falsify(), Bound(domain="crown")]
    return {"model": model, "x": x, "y": model(x).argmax(1).detach(), "eps": 0.08, "stages": stages}

if __name__ == "__main__":
    path = HERE / "records.jsonl"
    certify(workers=2, records=Records(path, resume=path.exists()), **job())
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(SCRIPT)
    return path


def records(script: Path) -> list[dict]:
    return jsonl.read(script.with_name("records.jsonl"))


def call(script: Path, *, threads: int = 1, **options: object) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, script], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def finished(script: Path, *, processes: int) -> None:
    """Resume without what went wrong; every sample then has the verdict that one process gives it, once."""
    before, job = records(script), runpy.run_path(str(script))["job"]()
    for name in ("deadly", "slow"):
        script.with_name(name).unlink(missing_ok=True)
    if processes == 1:
        certify(**job, records=Records(script.with_name("records.jsonl"), resume=True))
    else:
        done = forked.run(script, cwd=script.parent)
        assert (done.returncode, done.stderr) == (0, "")
    after = records(script)
    assert after[: len(before)] == before
    assert sorted(record["index"] for record in after) == list(range(40))
    alone = certify(**job)
    verdicts = {record["index"]: record["verdict"] for record in after}
    assert [verdicts[record.index] for record in alone] == [record.verdict for record in alone]
    assert {Verdict.CERTIFIED, Verdict.FALSIFIED} <= set(verdicts.values())


@pytest.mark.timeout(120)
def test_samples_of_which_every_process_dies_are_told_of_and_the_others_are_certified(script):
    script.with_name("deadly").touch()
    done = forked.run(script, cwd=script.parent)
    assert done.returncode == 1
    told = done.stderr
    found = re.search(r"TasksFailedError: 1 task failed \(samples (\d+) to (\d+): 3 workers died of it", told)
    first, last = int(found[1]), int(found[2])
    assert first <= 20 <= last < first + 5
    assert "the last one: exit code -9): all other results are kept; resume the job to try again" in told
    assert script.with_name("tried").stat().st_size == 3
    kept = {record["index"] for record in records(script)}
    assert kept >= set(range(40)) - set(range(first, last + 1))
    assert 20 not in kept
    finished(script, processes=2)


@pytest.mark.timeout(120)
def test_what_a_process_had_in_hand_when_it_died_is_done_again(script):
    script.with_name("once").touch()
    done = forked.run(script, cwd=script.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert script.with_name("tried").stat().st_size == 2
    assert sorted(record["index"] for record in records(script)) == list(range(40))
    finished(script, processes=1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("whom", ["the parent", "everyone"])
def test_a_job_that_is_killed_leaves_no_process_and_no_record_twice(script, whom):
    script.with_name("slow").touch()
    with call(script, threads=2) as process:
        while len(list(script.parent.glob("*.pid"))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.1)
        said = {path.read_text() for path in script.parent.glob("*.pid")}
        if whom == "everyone":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.communicate(timeout=30)  # ends when the last process that shares its standard error does
    assert process.returncode == -signal.SIGKILL
    assert said == {"deaf to Ctrl-C, 1 threads"}
    kept = [record["index"] for record in records(script)]
    assert 0 < len(kept) < 40
    if whom == "everyone":
        finished(script, processes=1)


@pytest.mark.timeout(120)
def test_a_stage_that_raises_in_several_processes_is_told_of_once_by_their_parent(script):
    script.with_name("broken").touch()
    done = forked.run(script, cwd=script.parent)
    told = done.stderr
    assert done.returncode == 0
    assert told.count("StageFailedWarning") == 1
    failed = [record["failed"] for record in records(script) if record["failed"]]
    assert failed == [{"fate": "RuntimeError: out of luck"}] * len(failed)
    assert f"fate on {len(failed)} samples (RuntimeError: out of luck)" in told


def test_what_cannot_be_sent_to_processes_is_refused():
    class Local(Stage):
        title = "local"

        def __call__(self, problem: object, generator: object) -> Findings:
            return Findings()

    model = MLP(hidden=(4,)).build((4,), 3)
    with pytest.raises(ValueError, match=r"cannot be sent to workers \(.*Local.*\): define.*take one"):
        certify(model, torch.rand(9, 4), torch.zeros(9, dtype=torch.long), eps=0.1, stages=[Local()], workers=2)


def test_a_job_without_work_starts_no_process(tmp_path, monkeypatch):
    model, x = MLP(hidden=(4,)).build((4,), 3).eval(), torch.rand(9, 4)
    files, y = CertificationFiles(tmp_path / "a.jsonl"), torch.zeros(9, dtype=torch.long)
    first = certify(model, x, y, eps=0.1, stages=[Bound(domain="crown")], records=Records(files.records))
    monkeypatch.setattr("multiprocessing.get_context", lambda *_: pytest.fail("a process"))
    again = certify(
        model, x, y, eps=0.1, stages=[Bound(domain="crown")], workers=4, records=Records(files.records, resume=True)
    )
    assert again == first
    assert json.loads(files.settings.read_text())["norm"] == "linf"

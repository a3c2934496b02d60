"""One writer at a time, and a lock that its writer's death releases."""

import os
import signal
import subprocess
import sys

import pytest

from ctbench.results import RunFolder, locks


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path):
    lock, written = tmp_path / "new" / "run.lock", tmp_path / "new"
    refused = pytest.raises(ValueError, match=r"another process writes .*new: wait for it, or choose another place")
    with locks.alone(lock, written), refused, locks.alone(lock, written):
        pass
    with locks.alone(lock, written):
        pass


def test_an_error_of_the_writer_is_its_own_and_releases_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), locks.alone(tmp_path / "run.lock", tmp_path):
        _ = 1 / 0
    with locks.alone(tmp_path / "run.lock", tmp_path):
        pass


def test_the_death_of_the_writer_releases_the_lock(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from ctbench.results import locks\n"
        "with locks.alone(Path(sys.argv[1]), Path('here')): print('held', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "run.lock")], stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="another process writes"), locks.alone(tmp_path / "run.lock", tmp_path):
            pass
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
    with locks.alone(tmp_path / "run.lock", tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"run\.lock"), locks.alone(RunFolder(tmp_path).lock, tmp_path):
        pass

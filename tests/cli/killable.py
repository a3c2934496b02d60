"""Commands that tests may kill: each runs in a process that is forked (`forking.py`)."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.engine.test_engines import alive


class Forking:
    """A process that forks commands (`forking.py`)."""

    def __init__(self, log: Path) -> None:
        script, environment = Path(__file__).with_name("forking.py"), os.environ | {"OMP_NUM_THREADS": "1"}
        self.log, self.driver = log, 0
        self.process = subprocess.Popen(
            [sys.executable, str(script)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *arguments: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([[str(argument) for argument in arguments], str(self.log)]) + "\n")
        self.process.stdin.flush()
        self.driver = self._number()

    def ended(self) -> int:
        """The exit status of the command, once it has ended."""
        return self._number()

    def _number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def workers(self) -> list[int]:
        """The workers of the command, without the helper of multiprocessing."""
        children = Path(f"/proc/{self.driver}/task/{self.driver}/children").read_text().split()
        return [int(child) for child in children if b"resource_tracker" not in _command(child)]

    def close(self) -> None:
        for process in (self.process.pid, self.driver):
            if process and alive(process):
                os.kill(process, signal.SIGKILL)
        self.process.communicate()


def _command(process: str) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""

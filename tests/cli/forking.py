"""A process that has imported ctbench once, and forks another one for each command. Many starts cost one import.

It reads lines of JSON, the arguments of a command and a file for what the command prints. For each it writes the number
of the new process, and at its end the exit status. The workers of commands are forked as well. After each write of
records a process sleeps, so that a test can kill it there.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo

import ctbench.tuning.finishing
import ctbench.tuning.searching  # noqa: F401  imported here, like what tracing imports, and not by each process
from ctbench.cli import main
from ctbench.results import CertificationFiles, jsonl

torch.set_num_threads(1)
get_context = multiprocessing.get_context
multiprocessing.get_context = lambda method: get_context("fork")  # type: ignore[assignment,misc]


def slowly(owner: Any, name: str, seconds: float) -> None:
    """Make a function sleep at its end."""
    function: Callable[..., Any] = getattr(owner, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        time.sleep(seconds)
        return value

    setattr(owner, name, slow)


def forked(arguments: list[str], log: str) -> int:
    """Start a command; returns the number of its process."""
    process = os.fork()
    if process:
        return process
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        status = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    finally:
        os._exit(99)


if __name__ == "__main__":
    slowly(jsonl, "append", 0.02)
    slowly(CertificationFiles, "append", 0.3)
    for line in sys.stdin:
        driver = forked(*json.loads(line))
        print(driver, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(driver, 0)[1]), flush=True)

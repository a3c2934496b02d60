"""Processes that are forked from one that has imported torch: each costs a few hundredths of a second, and not seconds.

They are like those of the start method "spawn" except that torch is there: they have the environment and the working
folder of the process that starts them, import ctbench themselves, and get what they need by pickle. Their output is
that of the process they are forked from, so a test of what workers print needs "spawn".
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

IMPORTED = [
    "torch",
    "torch._dynamo",
    "torch.onnx",
    "onnx",
]  # nothing of ours: what a script forgets to import is missing
get_context = multiprocessing.get_context


class WithEnvironment:
    """A function to call in another process, with the environment that there is here when that process starts."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function

    def __getstate__(self) -> dict[str, Any]:
        return {"function": self.function, "environment": dict(os.environ)}

    def __call__(self, *arguments: Any) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        if threads := self.environment.get("OMP_NUM_THREADS"):
            torch.set_num_threads(int(threads))  # as torch does when it is imported
        self.function(*arguments)


class Forked:
    """What the engine takes of a context of multiprocessing."""

    def __init__(self) -> None:
        self.context: ForkServerContext = get_context("forkserver")
        self.context.set_forkserver_preload(IMPORTED)

    def Pipe(self) -> tuple[Connection, Connection]:  # noqa: N802
        return self.context.Pipe()

    def Process(self, *, target: Callable[..., object], args: tuple[Any, ...], daemon: bool) -> BaseProcess:  # noqa: N802
        return self.context.Process(target=WithEnvironment(target), args=args, daemon=daemon)


def context(method: str) -> Forked:
    """In place of `multiprocessing.get_context`: processes that are asked to be spawned are forked."""
    assert method == "spawn"
    return Forked()


def run(script: str | Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `python SCRIPT ARGUMENTS`, or `python -m PACKAGE ARGUMENTS`, in a forked process with one thread."""
    command = [str(script), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("out", "err")]
        process = Forked().Process(target=_run, args=(command, str(cwd), *map(str, paths)), daemon=False)
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(command, process.exitcode, *[path.read_text() for path in paths])


def _run(command: list[str], cwd: str, *outputs: str) -> None:
    multiprocessing.get_context = context  # type: ignore[assignment]  # its workers are forked as well
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    sys.argv = command
    script = Path(command[0])
    sys.path.insert(0, str(script.parent) if script.suffix == ".py" else cwd)
    if script.suffix == ".py":
        runpy.run_path(command[0], run_name="__main__")
    else:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)

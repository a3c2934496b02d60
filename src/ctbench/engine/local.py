"""Processes of this machine. Each has its share of the cores, or a device of its own, and exits with the driver."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait

from ctbench.engine.base import Task
from ctbench.engine.crew import Crew, Employer, Worker, WorkerDiedError
from ctbench.engine.serving import Desk, Kind, Message
from ctbench.memory import keep_freed_memory
from ctbench.watchdog import exit_with_parent

VISIBLE = "CUDA_VISIBLE_DEVICES"
GOODBYE = 10.0  # seconds in which a process that has closed its pipe must end


@dataclass(frozen=True, kw_only=True)
class Local(Employer):
    """Processes of this machine.

    A process that starts imports the script of its driver: so a script that uses this engine needs the line
    `if __name__ == "__main__":` around its work.

    Args:
        workers: the number of processes; None for one per accelerator with device="cuda", otherwise one per core. They
            share torch's threads, or the accelerators.
        device: the device of networks in the workers. With "cuda", each process sees one accelerator, of those that
            CUDA_VISIBLE_DEVICES allows. None leaves networks where they are.

    Raises:
        ValueError: the number is not a whole number of 1 or more.
    """

    workers: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and not (isinstance(self.workers, int) and self.workers >= 1):
            raise ValueError(f"workers is {self.workers!r}: give a whole number of processes, 1 or more, or None")

    @property
    def home(self) -> str | None:
        return None if self.device is None else "cpu"

    def size(self) -> int:
        if self.workers is not None:
            return self.workers
        return len(accelerators()) if self.device == "cuda" else cores()

    def crew(self, size: int) -> Crew[_Process]:
        return _Processes(size, self.device)


def cores() -> int:
    """The cores that this process may use, where the system tells; otherwise all cores."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def accelerators() -> list[str]:
    """The accelerators that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Raises:
        ValueError: there is none.
    """
    import torch

    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    devices = named or [str(number) for number in range(torch.cuda.device_count())]
    if not devices:
        raise ValueError("device is cuda, but no accelerator is visible: check CUDA_VISIBLE_DEVICES, or use the cpu")
    return devices


class _Processes(Crew["_Process"]):
    """Worker processes."""

    def __init__(self, size: int, device: str | None) -> None:
        super().__init__(size)
        self.device = device
        self.devices = accelerators() if device == "cuda" else []

    def hire(self) -> _Process:
        import torch

        environment = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // self.size))}
        if self.devices:  # the one with the fewest workers
            used = [worker.accelerator for worker in self.workers]
            environment[VISIBLE] = min(self.devices, key=used.count)
        return _Process(self.device, environment)

    def wait(self, workers: list[_Process]) -> list[_Process]:
        ready = wait([worker.pipe for worker in workers])
        return [worker for worker in workers if worker.pipe in ready]


class _Process(Worker):
    """A process, and our end of the pipe to it."""

    def __init__(self, device: str | None, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.accelerator = environment.get(VISIBLE)
        self.process = context.Process(target=_serve, args=(theirs, device), daemon=True)
        resource_tracker.ensure_running()  # now, because its start would unblock the signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is for us to answer
        try:
            with _changed(environment):
                self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def give(self, task: Task) -> None:
        digest = None if task.kept is None else task.kept.digest
        # pickled here, because multiprocessing would share tensors by /dev/shm, which is small in containers
        self._send(_sendable(task, (task.function, task.current(), digest)))

    def _send(self, content: bytes) -> None:
        try:
            self.pipe.send_bytes(content)
        except OSError:
            raise WorkerDiedError(self._death()) from None

    def take(self) -> Message:
        try:
            message: Message = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            raise WorkerDiedError(self._death()) from None
        if message[0] is Kind.NEEDS:
            kept = None if self.task is None else self.task.kept
            assert kept is not None, "only a task with a kept value needs one"
            self._send(kept.content)
        return message

    def _death(self) -> str:
        self.process.join(GOODBYE)
        return "it closed its pipe" if self.process.exitcode is None else f"exit code {self.process.exitcode}"

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _sendable(task: Task, content: object) -> bytes:
    try:
        return pickle.dumps(content)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{task.key} cannot be sent to workers ({error}): define its classes and functions at the top level of a "
            f"module, or take one process"
        ) from None


@contextmanager
def _changed(environment: Mapping[str, str]) -> Iterator[None]:
    """A context with some variables of the environment, which a process that starts in it inherits."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, device: str | None) -> None:
    """Perform tasks until the process is ended."""
    exit_with_parent()
    keep_freed_memory()
    desk = Desk(device)
    pipe.send_bytes(pickle.dumps((Kind.READY, None)))
    while True:
        try:
            function, arguments, digest = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return  # the driver has ended
        except Exception as error:  # of a module that only the driver can import, or of a value's own code
            pipe.send_bytes(
                pickle.dumps((Kind.FAILED, f"a worker cannot load the task: {type(error).__name__}: {error}"))
            )
            continue
        for message in desk.perform(function, arguments, digest, pipe.recv_bytes):
            try:
                content = pickle.dumps(message)
            except Exception as error:
                pipe.send_bytes(pickle.dumps((Kind.FAILED, f"its result cannot be sent to the driver: {error}")))
                break
            pipe.send_bytes(content)

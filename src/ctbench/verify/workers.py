"""Several processes certify the chunks of one job.

A process gets the next chunk after it has finished one, and sends records as soon as samples are decided. They come
back through pipes to the one process that writes them: whatever process dies, a record is written once or not at all.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait

import torch

from ctbench.memory import keep_freed_memory
from ctbench.results import SampleRecord
from ctbench.verify.job import Job, Samples
from ctbench.watchdog import exit_with_parent


def shared(job: Job, chunks: Iterator[Samples], workers: int) -> Iterator[list[SampleRecord]]:
    """The records of all chunks, in the order in which they arrive.

    Raises:
        ChildProcessError: processes died; raised after the others have finished all other chunks.
        ValueError: the job cannot be sent to processes.
    """
    try:
        content = pickle.dumps(job)  # multiprocessing would share tensors by /dev/shm, which is small in containers
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"the job cannot be shared by {workers} processes ({error}): take one process") from None
    crew = [_Worker(content, max(1, torch.get_num_threads() // workers)) for _ in range(workers)]
    busy, dead = {worker.pipe: worker for worker in crew}, []
    try:
        while busy:
            ready = wait(list(busy))
            for pipe in [pipe for pipe in busy if pipe in ready]:
                try:
                    records = pipe.recv()  # None if the process waits for a chunk
                    if records is not None:
                        yield records
                    elif (chunk := next(chunks, None)) is not None:
                        pipe.send_bytes(pickle.dumps(chunk))
                    else:
                        del busy[pipe]
                except (EOFError, OSError):
                    dead.append(busy.pop(pipe).exit_code())
    finally:
        for worker in crew:
            worker.end()
    if dead:
        codes = ", ".join(map(str, dead))
        raise ChildProcessError(
            f"{len(dead)} of {workers} processes died (exit code {codes}): resume the job to certify their samples"
        )


class _Worker:
    """A process, and our end of the pipe to it."""

    def __init__(self, content: bytes, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, content, threads), daemon=True)
        resource_tracker.ensure_running()  # now, because its start would unblock the signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is for us to answer
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def exit_code(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def end(self) -> None:
        self.process.terminate()
        self.process.join()


def _work(pipe: Connection, content: bytes, threads: int) -> None:
    """Certify chunks until the process is ended."""
    exit_with_parent()
    torch.set_num_threads(threads)
    keep_freed_memory()
    job: Job = pickle.loads(content)
    while True:
        pipe.send(None)
        for records in job.records(pickle.loads(pipe.recv_bytes())):
            pipe.send(records)

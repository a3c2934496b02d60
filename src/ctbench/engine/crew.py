"""Workers that die, and tasks that are given to them: the same for processes and for a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ctbench.engine.base import ATTEMPTS, Engine, Key, Queue, Task, TasksFailedError
from ctbench.engine.serving import Kind, Message


class WorkerDiedError(Exception):
    """A worker died; the message says how."""


class Worker(ABC):
    """A worker that can be given one task at a time."""

    task: Task | None = None
    ready: bool = False  # whether it has started

    @abstractmethod
    def give(self, task: Task) -> None:
        """Send a task to the worker. Raises ValueError if it cannot be sent, and WorkerDiedError."""

    @abstractmethod
    def take(self) -> Message:
        """What the worker says next; only called if it has said something. A kept value that it needs is sent.

        Raises:
            WorkerDiedError: it has died.
        """

    @abstractmethod
    def end(self) -> None:
        """End the worker, whatever it does."""


W = TypeVar("W", bound=Worker)


class Crew(ABC, Generic[W]):
    """Workers. They start when a run needs them, and stay until the crew is closed."""

    def __init__(self, size: int) -> None:
        self.workers: list[W] = []
        self.size = size
        self.stillborn = 0  # workers in a row that died before they were ready

    @abstractmethod
    def hire(self) -> W:
        """Start a worker; it says that it is ready when it is."""

    @abstractmethod
    def wait(self, workers: list[W]) -> list[W]:
        """Those of some workers that have said something, or died; at least one."""

    def run(self, tasks: Iterable[Task], count: int | None) -> Generator[tuple[Key, Any]]:
        """What `Engine.run` promises."""
        queue = Queue(iter(tasks))
        try:
            while len(self.workers) < (self.size if count is None else min(self.size, count)):
                self.workers.append(self.hire())
            while self._occupied(queue):
                for worker in self.wait([worker for worker in self.workers if worker.task or not worker.ready]):
                    yield from self._heard(worker, queue)
        finally:
            self._end([worker for worker in self.workers if worker.task])  # of a run that was broken off
        if queue.failures:
            raise TasksFailedError(queue.failures)

    def close(self) -> None:
        """End all workers."""
        self._end(self.workers)

    def _end(self, workers: list[W]) -> None:
        for worker in workers:
            worker.end()
        self.workers = [worker for worker in self.workers if worker not in workers]

    def _occupied(self, queue: Queue) -> bool:
        """Give tasks to free workers; returns whether there is something to wait for."""
        for worker in [worker for worker in self.workers if worker.ready and worker.task is None]:
            if (task := queue.next()) is None:
                return any(worker.task for worker in self.workers)
            worker.task = task
            try:
                worker.give(task)
            except WorkerDiedError as death:
                self._lost(worker, queue, death)
        return bool(self.workers)

    def _heard(self, worker: W, queue: Queue) -> Generator[tuple[Key, Any]]:
        """Take what a worker says."""
        try:
            kind, content = worker.take()
        except WorkerDiedError as death:
            self._lost(worker, queue, death)
            return
        if kind is Kind.READY:
            worker.ready, self.stillborn = True, 0
            return
        if kind is Kind.NEEDS:
            return
        assert worker.task is not None, "a worker only speaks of its task"
        if kind is Kind.RESULT:
            yield worker.task.key, content
            return
        if kind is Kind.FAILED:
            queue.failed(worker.task, content)
        worker.task = None

    def _lost(self, worker: W, queue: Queue, death: WorkerDiedError) -> None:
        """Put another worker in the place of one that died. Raises ChildProcessError if no worker can start."""
        worker.end()
        self.workers.remove(worker)
        if worker.task is not None:
            queue.died(worker.task, str(death))
        self.stillborn += not worker.ready
        if self.stillborn >= ATTEMPTS:
            raise ChildProcessError(
                f"{ATTEMPTS} workers died before they could begin, the last one: {death}; a script that uses workers "
                f"needs the line `if __name__ == '__main__':` around its work"
            )
        self.workers.append(self.hire())


class Employer(Engine):
    """An engine with a crew."""

    @abstractmethod
    def crew(self, size: int) -> Crew[Any]:
        """A crew of at most this many workers; none has started yet."""

    def run(self, tasks: Iterable[Task], *, count: int | None = None) -> Generator[tuple[Key, Any]]:
        with closing(self.crew(self.size() if count is None else min(self.size(), count))) as crew:
            yield from crew.run(tasks, count)

    @contextmanager
    def staying(self) -> Iterator[Engine]:
        with closing(self.crew(self.size())) as crew:
            yield _Staying(self, crew)


@dataclass(frozen=True)
class _Staying(Engine):
    """An engine whose crew stays."""

    engine: Engine
    crew: Crew[Any]

    @property
    def home(self) -> str | None:
        return self.engine.home

    def size(self) -> int:
        return self.crew.size

    def run(self, tasks: Iterable[Task], *, count: int | None = None) -> Generator[tuple[Key, Any]]:
        return self.crew.run(tasks, count)

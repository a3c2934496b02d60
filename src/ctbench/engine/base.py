"""Tasks, and the engines that run them.

An engine takes tasks one by one as its workers become free, and gives their results as they arrive, to one process:
the driver, which is the only writer of files. If a worker dies, its task is given to another one, until three workers
have died of it.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

Key = str
Arguments = tuple[Any, ...]
ATTEMPTS = 3  # workers that may die of a task


class TasksFailedError(ChildProcessError):
    """Some tasks failed; all other tasks have ended.

    Attributes:
        failures: the error of each failed task, by its key.
    """

    def __init__(self, failures: Mapping[Key, str]) -> None:
        self.failures = dict(failures)
        errors = "; ".join(f"{key}: {error}" for key, error in self.failures.items())
        number = "1 task" if len(self.failures) == 1 else f"{len(self.failures)} tasks"
        super().__init__(f"{number} failed ({errors}): all other results are kept; resume the job to try again")


@dataclass(frozen=True, eq=False)
class Kept:
    """A large value that many tasks share, e.g. a network: a worker loads it once, to its device, and keeps it."""

    value: Any

    @cached_property
    def content(self) -> bytes:
        """The value as bytes. Raises ValueError if it cannot be sent to another process."""
        return self.saved(pickle)

    @cached_property
    def digest(self) -> str:
        """What workers know it by."""
        return digest_of(self.content)

    def saved(self, pickler: ModuleType) -> bytes:
        """The value as bytes that `loaded` reads."""
        import torch

        buffer = io.BytesIO()
        try:
            torch.save(self.value, buffer, pickle_module=pickler)
        except (pickle.PicklingError, AttributeError, TypeError, NotImplementedError) as error:
            raise ValueError(
                f"the network and its settings cannot be sent to workers ({error}): define their classes and functions "
                f"at the top level of a module, or take one process"
            ) from None
        return buffer.getvalue()


def digest_of(content: bytes) -> str:
    """The digest of a kept value."""
    return hashlib.sha256(content).hexdigest()


def loaded(content: bytes, device: str | None) -> Any:
    """A kept value, with its tensors on a device; None leaves them where they are."""
    import torch

    return torch.load(io.BytesIO(content), map_location=device, weights_only=False)  # bytes of our own driver


@dataclass(frozen=True, eq=False)
class Task:
    """A piece of work.

    Args:
        key: its name, for its results and messages.
        function: a generator function at the top level of a module. It gets the kept value, if there is one, and the
            arguments. What it yields are results.
        arguments: picklable values; or a function that makes them. It is called in the driver each time that a worker
            gets the task: so what an earlier worker did before it died need not be done again.
        kept: a value that tasks share.
        on_failure: called in the driver with the error, as soon as the task has raised one or three workers have died
            of it. `Here` does not call it: its errors are raised.
    """

    key: Key
    function: Callable[..., Iterator[Any]]
    arguments: Arguments | Callable[[], Arguments] = ()
    kept: Kept | None = None
    on_failure: Callable[[str], object] | None = None

    def current(self) -> Arguments:
        """The arguments now."""
        return self.arguments() if callable(self.arguments) else self.arguments


class Engine(ABC):
    """A place where tasks run."""

    @property
    def home(self) -> str | None:
        """The device of networks in the driver's process; None leaves them where they are."""
        return "cpu"

    @abstractmethod
    def size(self) -> int:
        """How many tasks run at a time, at most."""

    @abstractmethod
    def run(self, tasks: Iterable[Task], *, count: int | None = None) -> Generator[tuple[Key, Any]]:
        """The results of tasks, each with the key of its task, as they arrive. Closing the generator stops all workers.

        A task whose worker dies starts again from its beginning, so it may give results twice.

        Args:
            tasks: taken one by one, each when a worker is free.
            count: how many tasks there are, if it is known: no more workers are started.

        Raises:
            TasksFailedError: tasks raised errors, or three workers died of them; after all other tasks have ended.
            ChildProcessError: no worker can start.
            ValueError: a task or its value cannot be sent to workers, or there are too few resources.
        """

    @contextmanager
    def staying(self) -> Iterator[Engine]:
        """A context with an engine like this one, whose workers stay until its end, for one run after the other."""
        yield self


@dataclass(frozen=True)
class Here(Engine):
    """This process: one task after the other. An error of a task is raised at once, as by a plain call.

    Args:
        device: the device of networks, e.g. "cuda".
    """

    device: str | None = None

    @property
    def home(self) -> str | None:
        return self.device

    def size(self) -> int:
        return 1

    def run(self, tasks: Iterable[Task], *, count: int | None = None) -> Generator[tuple[Key, Any]]:
        del count
        for task in tasks:
            first = () if task.kept is None else (task.kept.value,)
            for value in task.function(*first, *task.current()):
                yield task.key, value


@dataclass(eq=False)
class Queue:
    """Tasks that wait for a worker, and what became of those that failed."""

    tasks: Iterator[Task]
    again: deque[Task] = field(default_factory=deque)  # tasks whose worker died
    deaths: Counter[Key] = field(default_factory=Counter)
    failures: dict[Key, str] = field(default_factory=dict)

    def next(self) -> Task | None:
        """A task for a free worker; None if no task waits."""
        return self.again.popleft() if self.again else next(self.tasks, None)

    def died(self, task: Task, how: str) -> None:
        """The worker that had a task has died."""
        self.deaths[task.key] += 1
        if self.deaths[task.key] < ATTEMPTS:
            self.again.append(task)
        else:
            self.failed(task, f"{ATTEMPTS} workers died of it, the last one: {how}")

    def failed(self, task: Task, error: str) -> None:
        """A task has failed for good."""
        self.failures[task.key] = error
        if task.on_failure is not None:
            task.on_failure(error)

"""What a worker does, wherever it is: it performs tasks, and keeps the values that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ctbench.engine.base import Arguments, loaded

SHELVES = 4  # kept values of a worker, e.g. networks


class Kind(Enum):
    """What a worker says."""

    READY = "ready"  # it waits for its first task
    NEEDS = "needs"  # it waits for the kept value of the task
    RESULT = "result"
    ENDED = "ended"  # the task has ended, and the worker waits for another one
    FAILED = "failed"  # the same, with the error that the task raised


Message = tuple[Kind, Any]


@dataclass(eq=False)
class Desk:
    """The place of a worker.

    Args:
        device: the device of the values that it loads; None leaves them where they are.
        shelf: the values that it keeps, by their digests.
    """

    device: str | None
    shelf: dict[str, Any] = field(default_factory=dict)

    def perform(
        self,
        function: Callable[..., Iterator[Any]],
        arguments: Arguments,
        digest: str | None,
        fetch: Callable[[], bytes],
    ) -> Iterator[Message]:
        """Perform a task, and say what comes of it.

        Args:
            function, arguments: those of the task.
            digest: of its kept value; None if it has none.
            fetch: brings the kept value as bytes. It is called if the value is not on the shelf, after saying so.
        """
        try:
            if digest is not None and digest not in self.shelf:
                yield Kind.NEEDS, None
                if len(self.shelf) >= SHELVES:
                    del self.shelf[next(iter(self.shelf))]  # the oldest one makes room
                self.shelf[digest] = loaded(fetch(), self.device)
            first = () if digest is None else (self.shelf[digest],)
            for value in function(*first, *arguments):
                yield Kind.RESULT, value
        except Exception as error:  # the driver reports it with the task, and other tasks go on
            yield Kind.FAILED, f"{type(error).__name__}: {error}"
        else:
            yield Kind.ENDED, None

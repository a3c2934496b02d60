"""A watchdog for worker processes: without the process that started them, nobody would write their results."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import Connection, wait


def exit_with_parent(pipe: Connection | None = None) -> None:
    """Make this process of `multiprocessing` exit as soon as its parent has ended, however it ended.

    Args:
        pipe: the reading end of a pipe. The process also exits as soon as the parent has closed the other end: so a
            parent can stop workers in the middle of a task.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process that multiprocessing has started has a parent to wait for"
    signs: list[Connection | int] = [parent.sentinel] if pipe is None else [parent.sentinel, pipe]
    threading.Thread(target=_exit_after, args=(signs,), daemon=True).start()


def _exit_after(signs: list[Connection | int]) -> None:
    wait(signs)
    os._exit(1)

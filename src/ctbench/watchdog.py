"""A watchdog for worker processes: without the process that started them, nobody would write their results."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def exit_with_parent() -> None:
    """Make this process of `multiprocessing` exit as soon as its parent has ended, however it ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process that multiprocessing has started has a parent to wait for"
    threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)

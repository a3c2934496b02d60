"""A watchdog for worker processes: without the process that started them, nobody would write their results."""

from __future__ import annotations

import multiprocessing
import os
import threading


def exit_with_parent() -> None:
    """Make this process of `multiprocessing` exit as soon as its parent process has ended, however it ended."""
    threading.Thread(target=_wait_and_exit, daemon=True).start()


def _wait_and_exit() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process that multiprocessing has started has a parent to wait for"
    parent.join()
    os._exit(1)

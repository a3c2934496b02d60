"""One writer at a time: a lock file next to the written files, held until the writer ends, in whatever way."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def alone(lock: Path, written: Path) -> Iterator[None]:
    """A context in which no other process, and no other thread, may write the same files.

    Args:
        lock: the lock file. It and its folder are created; it stays, as another process may be opening it.
        written: what the lock protects, for the message.

    Raises:
        ValueError: another process holds the lock.
        OSError: the lock cannot be created.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = FileLock(lock, timeout=0)
    try:
        file.acquire()
    except Timeout:
        if not lock.exists():  # the lock could not be created
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(lock)) from None
        raise ValueError(f"another process writes {written}: wait for it, or choose another place") from None
    try:
        yield
    finally:
        file.release()

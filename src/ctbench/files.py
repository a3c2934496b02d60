"""Files that appear as a whole: a process that is killed while it writes leaves the old file, or none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished"  # the suffix of a file that is being written


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A context in which an OSError without a file, as of a write to a full disk, gets the name of this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_whole(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file atomically: no reader ever sees a part of the content, which may come in pieces."""
    unfinished = path.with_name(path.name + UNFINISHED)
    with naming(unfinished), unfinished.open("wb") as file:
        file.writelines([content] if isinstance(content, bytes) else content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)

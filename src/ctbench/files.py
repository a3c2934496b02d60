"""Files that appear as a whole: a process that is killed while it writes leaves the old file, or none."""

from __future__ import annotations

import os
from pathlib import Path

UNFINISHED = ".unfinished"  # the suffix of a file that is being written


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: no reader ever sees a part of the content."""
    unfinished = path.with_name(path.name + UNFINISHED)
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)

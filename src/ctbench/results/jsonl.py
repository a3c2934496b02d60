"""Append-only files of JSON lines: one record per line, valid even if the process is killed at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from ctbench.files import naming, write_whole

Record = dict[str, Any]
REPAIR = "remove this line, then run the command that wrote the file again (--resume keeps the other lines)"


def append(path: Path, records: Iterable[Record]) -> list[int]:
    """Add records to the end of a file, in one write; returns where each begins, in bytes."""
    added = [_line(record) for record in records]
    with naming(path), path.open("ab") as file:
        offsets = list(accumulate(map(len, added), initial=file.tell()))
        file.write(b"".join(added))
    return offsets[:-1]


def read(path: Path) -> list[Record]:
    """All records of a file, as of `lines`."""
    return [record for _, record in lines(path)]


def lines(path: Path) -> Iterator[tuple[int, Record]]:
    """All complete records of a file, one by one, each with its first byte; no record if there is no file.

    A last line without a line end was being written when its process was killed. It is ignored.

    Raises:
        ValueError: any other line is not a record; the message names the file and the line.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        offset = 0
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                with named(f"{path}, line {number}"):
                    record = parsed(line)
                yield offset, record
                offset += len(line)


def parsed(line: bytes) -> Record:
    """The record of a line. Raises ValueError if it is not one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON object ({error}): {REPAIR}") from None
    if not isinstance(record, dict):
        raise ValueError(f"not a JSON object but {type(record).__name__}: {REPAIR}")
    return record


def count(path: Path) -> int:
    """The number of complete records of a file, which are not looked at."""
    with path.open("rb") as file:
        return sum(line.endswith(b"\n") for line in file)


@dataclass
class Growing:
    """A file of records to which another process appends. Each `read` reads only the records that are new."""

    path: Path
    records: list[Record] = field(default_factory=list)
    inode: int = 0  # of the file whose records these are
    end: int = 0  # the byte after the last record

    def read(self) -> list[Record]:
        """All complete records so far; an empty list if there is no file.

        Raises:
            ValueError: a line is not JSON.
        """
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self.inode or status.st_size < self.end:  # the file was replaced by another one
                self.records, self.inode, self.end = [], status.st_ino, 0
            file.seek(self.end)
            whole, line_end, _ = file.read().rpartition(b"\n")
        self.records += [json.loads(line) for line in whole.split(b"\n") if line]
        self.end += len(whole + line_end)
        return self.records


def torn(path: Path) -> int | None:
    """The number of the last line if it has no line end, so that `read` ignores it; None if all are complete."""
    with path.open("rb") as file:
        return next((number for number, line in enumerate(file, start=1) if not line.endswith(b"\n")), None)


def mend(path: Path) -> None:
    """Remove a last line without a line end, which must not be joined with the next record."""
    with path.open("rb+") as file:
        file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))


@contextmanager
def named(place: Path | str) -> Iterator[None]:
    """Begin the message of a ValueError with a place, e.g. a file and a line."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def rewrite(path: Path, records: Iterable[Record]) -> None:
    """Replace the records of a file atomically: a reader sees the old records or the new ones."""
    write_whole(path, map(_line, records))


def _line(record: Record) -> bytes:
    return (json.dumps(record) + "\n").encode()


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON, atomically."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ValueError, with the name of the file, if it is not valid JSON."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file ({error}): restore it from a copy, or give another one") from None

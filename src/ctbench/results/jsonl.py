"""Append-only files of JSON lines: what was measured, one record a line, safe against being killed at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = dict[str, Any]
UNFINISHED = ".unfinished"  # how the name ends of what is being written


def append(path: Path, records: Iterable[Record]) -> None:
    """Add records to the end of a file, in one write."""
    text = "".join(json.dumps(record) + "\n" for record in records)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def read(path: Path) -> list[Record]:
    """All whole records of a file; none where there is no file.

    A last line without its end is what a killed process had not finished to write, and is left out.

    Raises:
        ValueError: any other line is not a record; names the file and the line.
    """
    if not path.exists():
        return []
    records: list[Record] = []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not a record of JSON ({error})") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number}: not a record of JSON but {type(record).__name__}")
        records.append(record)
    return records


def torn(path: Path) -> int | None:
    """The number of the last line where it has no end, and `read` leaves it out; None where all are whole."""
    content = path.read_bytes()
    return content.count(b"\n") + 1 if content and not content.endswith(b"\n") else None


@contextmanager
def named(place: Path | str) -> Iterator[None]:
    """Begin what a ValueError says with the place, as a file and a line, that it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def rewrite(path: Path, records: Iterable[Record]) -> None:
    """Replace a file's records at once: whoever reads sees the old ones or the new ones."""
    write_whole(path, "".join(json.dumps(record) + "\n" for record in records).encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people to read, at once."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ValueError that names a file which is none."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file ({error})") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file such that it is never seen half-written, whatever happens."""
    unfinished = path.with_name(path.name + UNFINISHED)
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)

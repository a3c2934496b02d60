"""Records that stay in their file: memory holds only where each one begins.

Each is checked when the file is opened. Later, a record is checked again unless the file is still the same.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import eq
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctbench.results import jsonl
from ctbench.results.certification import SampleRecord
from ctbench.results.checking import check_seal
from ctbench.results.verdicts import Verdict

NEVER = 2**62  # an attempt that no attempt follows
LATELY_NS = 3 * 10**9  # file systems round times, the coarsest to 2 seconds


class FileState(NamedTuple):
    """By what a file that was written again differs from before."""

    inode: int
    size: int
    written_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)

    @classmethod
    def settled(cls, path: Path) -> FileState | None:
        """The state of a file; None if there is no file, or it was written so lately that its time may not change."""
        if not path.exists():
            return None
        state = cls.of(path.stat())
        return state if time.time_ns() - state.written_ns > LATELY_NS else None


@dataclass(frozen=True, eq=False)
class Stored:
    """Records in a file, in an order. Each is read whenever it is asked for.

    Args:
        path: the file. Lines may be added to it while its records are read.
        indices: the indices of the samples, [N].
        offsets: where their records begin, in bytes, [N]; -1: a record is not in the file.
        missing: gives the records that are not in the file, by their positions.
        state: that of the file before all its records were checked; None: they are checked again.
    """

    path: Path
    indices: NDArray[np.int64]
    offsets: NDArray[np.int64]
    missing: Callable[[int], SampleRecord] | None = None
    state: FileState | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple | Stored) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, position: int) -> SampleRecord:
        with self.path.open("rb") as file:
            return self._read(file, position, self._reader(file))

    def __iter__(self) -> Iterator[SampleRecord]:
        with self.path.open("rb") as file:
            reader = self._reader(file)
            for position in range(len(self)):
                yield self._read(file, position, reader)

    def at(self, positions: NDArray[np.int64] | NDArray[np.bool_]) -> Stored:
        """Some of the records."""
        return Stored(self.path, self.indices[positions], self.offsets[positions], state=self.state)

    def _reader(self, file: BinaryIO) -> Callable[[jsonl.Record], SampleRecord]:
        same = self.state is not None and FileState.of(os.fstat(file.fileno())) == self.state
        return SampleRecord.of_checked if same else checked

    def _read(self, file: BinaryIO, position: int, reader: Callable[[jsonl.Record], SampleRecord]) -> SampleRecord:
        offset = int(self.offsets[position])
        if offset < 0:
            assert self.missing is not None, "what is not in the file is given"
            return self.missing(position)
        file.seek(offset)
        with jsonl.named(f"{self.path}, byte {offset}"):
            record = reader(jsonl.parsed(file.readline()))
            if record.index != self.indices[position]:
                raise ValueError(f"sample {record.index} in place of sample {self.indices[position]}: it was edited")
            return record


def checked(content: jsonl.Record) -> SampleRecord:
    """The record of a line. Raises ValueError if it is not one, contradicts itself or was edited."""
    record = SampleRecord.from_json(content)
    check_seal(content)
    return record


def latest(records: Iterable[tuple[int, SampleRecord]], path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices of records, ascending, and their places, without those that were replaced.

    Args:
        records: each with its place, in the order in which they were made. The record of an unknown sample is replaced
            by that of a later attempt, or by one that follows from another radius.
        path: their file, for the message.

    Raises:
        ValueError: a sample has two records otherwise.
    """
    rows = array("q")  # index, place, the attempt that a next record must follow, the attempt that this one is
    for place, record in records:
        is_open, elsewhere = record.verdict is Verdict.UNKNOWN, record.decided_at is not None
        rows.extend((record.index, place, record.attempt if is_open else NEVER, NEVER if elsewhere else record.attempt))
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    table = table[np.argsort(table[:, 0], kind="stable")]
    replaced = table[:-1, 0] == table[1:, 0]
    twice = table[:-1, 0][replaced & (table[:-1, 2] >= table[1:, 3])]
    if len(twice):
        raise ValueError(f"{path}: sample {twice[0]} has two records: remove one of the two lines")
    table = table[np.append(~replaced, True)[: len(table)]]
    return table[:, 0].copy(), table[:, 1].copy()

"""The files of a run folder, and how to read them without torch.

recipe.json          the recipe
versions.json        of the library (with its git commit), torch and Python
metrics.jsonl        a record for each epoch
state.safetensors    weights and optimiser after the last complete epoch: a run resumes from here
weights.safetensors  the trained weights: the run is complete
certified/NAME.jsonl  records of a certification, NAME.json its settings, NAME.counterexamples/INDEX.npy points,
                     NAME.lock the lock of the process that writes them
attacked/NAME-ATTACKS.jsonl  records of attacks at the norm and radius that NAME describes, and .json their settings
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ctbench.files import write_whole
from ctbench.results import jsonl
from ctbench.results.certification import Certification, SampleRecord
from ctbench.results.checking import check_seal, check_settings, sealed, unsealed


@dataclass(frozen=True)
class CertificationFiles:
    """The files of one certification: its settings and its records."""

    records: Path

    @property
    def settings(self) -> Path:
        return self.records.with_suffix(".json")

    @property
    def counterexamples(self) -> Path:
        """The folder of the counterexamples: INDEX.npy, in double precision."""
        return self.records.with_suffix(".counterexamples")

    def read(self) -> Certification:
        """All complete records, each checked.

        Raises:
            ValueError: a line is not a record, a record contradicts itself or was edited, or a sample has two records;
                the message names the file.
        """
        records = []
        for number, record in enumerate(jsonl.read(self.records), start=1):
            with jsonl.named(f"{self.records}, line {number}"):
                records.append(SampleRecord.from_json(record))
                check_seal(record)
        with jsonl.named(self.records):
            return Certification.of(records)

    def read_settings(self) -> dict[str, Any]:
        """The settings of the certification, checked.

        Raises:
            FileNotFoundError: there is no file of settings.
            ValueError: the file holds no settings, or they were edited.
        """
        if not self.settings.is_file():
            raise FileNotFoundError(
                f"there is no file {self.settings}, the settings of {self.records}: keep both files together"
            )
        settings = jsonl.read_json(self.settings)
        if not isinstance(settings, dict):
            raise ValueError(f"{self.settings} holds no settings of a certification but {type(settings).__name__}")
        with jsonl.named(self.settings):
            check_settings(settings)
        return unsealed(settings)

    def append(self, records: Sequence[SampleRecord], *, counterexamples: bool = False) -> None:
        """Add records. With `counterexamples` their points are written first, so that no record lacks its point."""
        for record in records:
            if counterexamples and record.counterexample is not None:
                self.counterexamples.mkdir(exist_ok=True)
                content = io.BytesIO()
                np.save(content, record.counterexample)
                write_whole(self.counterexamples / f"{record.index}.npy", content.getvalue())
        jsonl.append(self.records, map(_sealed, records))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A context in which no other process may write here: two processes would write each record twice.

        Raises:
            ValueError: another process writes here.
        """
        self._check_name()
        self.records.parent.mkdir(parents=True, exist_ok=True)
        lock = self.records.with_suffix(".lock")
        try:
            with FileLock(lock, timeout=0):
                yield
        except Timeout:
            if not lock.exists():  # the lock could not be created
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(lock)) from None
            raise ValueError(f"another process writes {self.records}: wait for it, or choose another place") from None

    def start(self, settings: dict[str, Any], *, resume: bool) -> dict[int, SampleRecord]:
        """Prepare the files for `append`; returns the existing records by index.

        Raises:
            ValueError: there are records and `resume` is off, or they were written under other settings.
        """
        self._check_name()
        self.records.parent.mkdir(parents=True, exist_ok=True)
        exist = self.records.exists(), self.settings.exists()
        if exist == (False, False) or (not exist[1] and not self.records.stat().st_size):
            # the empty records come first: after a kill between the two, the files still differ from those of others
            jsonl.rewrite(self.records, [])
            jsonl.write_json(self.settings, sealed(settings))
            return {}
        if exist != (True, True):
            there, missing = (self.records, self.settings) if exist[0] else (self.settings, self.records)
            raise ValueError(f"{there} exists, but not {missing.name} next to it: choose another place")
        if not resume:
            raise ValueError(f"{self.records} exists already: resume it (--resume), or choose another place (--out)")
        different = _differences(self.read_settings(), json.loads(json.dumps(settings)))
        if different:
            raise ValueError(f"{self.records} was made under other settings ({different}): choose another place")
        done = {record.index: record for record in self.read()}
        # a record truncated by a kill must not be joined with the next record
        jsonl.rewrite(self.records, jsonl.read(self.records))
        return done

    def _check_name(self) -> None:
        if self.records.suffix != ".jsonl":
            raise ValueError(f"{self.records} is not a file of records: choose a name that ends in .jsonl")

    def merge(self, parts: Sequence[CertificationFiles]) -> Certification:
        """Write the records of other files, at least one, that were written under the same settings.

        Raises:
            FileNotFoundError: a part does not exist.
            ValueError: these files already exist, settings differ, or a sample has two records.
        """
        if self.records.exists() and self.settings.exists():
            raise ValueError(f"{self.records} exists already: merge into a new file")
        missing = next((part.records for part in parts if not part.records.is_file()), None)
        if missing is not None:
            raise FileNotFoundError(f"there is no file {missing}: check the path")
        settings = [part.read_settings() for part in parts]
        for part, its in zip(parts, settings, strict=True):
            different = _differences(settings[0], its)
            if different:
                raise ValueError(f"{part.records} was made under other settings than {parts[0].records} ({different})")
        by_index: dict[int, tuple[Path, SampleRecord]] = {}
        for part in parts:
            for record in part.read():
                if record.index in by_index:
                    raise ValueError(
                        f"sample {record.index} has two records, in {by_index[record.index][0]} and in {part.records}: "
                        f"merge parts that have no sample in common"
                    )
                by_index[record.index] = part.records, record
        merged = Certification.of(record for _, record in by_index.values())
        self.start(settings[0], resume=False)
        jsonl.rewrite(self.records, map(_sealed, merged))
        return merged


def _sealed(record: SampleRecord) -> dict[str, Any]:
    return sealed(record.to_json())


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """How settings differ, in words."""
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in keys)


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.json"

    @property
    def versions(self) -> Path:
        return self.path / "versions.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def state(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    def certification(self, name: str) -> CertificationFiles:
        return CertificationFiles(self.path / "certified" / f"{name}.jsonl")

    def certifications(self) -> list[CertificationFiles]:
        """All certifications, sorted by name."""
        return [CertificationFiles(path) for path in sorted((self.path / "certified").glob("*.jsonl"))]

    def attacked(self, name: str, attacks: str) -> Path:
        """The file of the records of attacks."""
        return self.path / "attacked" / f"{name}-{attacks}.jsonl"

    def attacks(self) -> list[Path]:
        """The settings of all records of attacks, sorted by name."""
        return sorted((self.path / "attacked").glob("*.json"))

    def require(self) -> None:
        """Raise an error unless this is the folder of a run."""
        if self.path.is_file():
            inside = self.path.parent.name in ("certified", "attacked")
            folder = self.path.parents[1] if inside else "the folder that ctbench train made"
            raise FileNotFoundError(f"{self.path} is a file, but a run folder is expected: give {folder}")
        if not self.path.is_dir():
            raise FileNotFoundError(f"there is no run folder {self.path}: check the path")
        if not self.recipe.is_file():
            raise FileNotFoundError(f"{self.path} is not a run folder: it has no {self.recipe.name}")

"""A file of records, and the file of the settings under which they were made, next to each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ctbench.results import jsonl, locks
from ctbench.results.checking import CHECKSUM, checksum, sealed, unsealed


@dataclass(frozen=True)
class RecordFiles:
    """NAME.jsonl, the records, and NAME.json, their settings."""

    records: Path
    kind: ClassVar[str]  # what made the records, for messages

    @property
    def settings(self) -> Path:
        return self.records.with_suffix(".json")

    def read_settings(self) -> dict[str, Any]:
        """The settings of the records, checked.

        Raises:
            FileNotFoundError: there is no file of settings.
            ValueError: the file holds no settings, or they were edited.
        """
        if not self.settings.is_file():
            raise FileNotFoundError(
                f"there is no file {self.settings}, the settings of {self.records}: keep both files together"
            )
        try:
            settings = jsonl.read_json(self.settings)
        except ValueError as error:
            raise ValueError(f"{error}: restore the file, or choose another place with --out") from None
        if not isinstance(settings, dict):
            raise ValueError(f"{self.settings} holds no settings of {self.kind} but {type(settings).__name__}")
        with jsonl.named(self.settings):
            self._check(settings)
        return unsealed(settings)

    def _check(self, settings: Mapping[str, Any]) -> None:
        """Raise ValueError if settings, as read from JSON, were edited."""
        if settings.get(CHECKSUM) != checksum(settings):
            raise ValueError(
                f"not the settings of {self.kind}: their checksum does not match, so they were edited; restore the "
                f"file, or choose another place with --out"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A context in which no other process may write here: two processes would write each record twice.

        Raises:
            ValueError: another process writes here.
        """
        self._check_name()
        with locks.alone(self.records.with_suffix(".lock"), self.records):
            yield

    def _begin(self, settings: dict[str, Any]) -> bool:
        """Write the settings, if there are no files yet; returns whether there were none.

        Raises:
            ValueError: one of the two files exists without the other.
        """
        self._check_name()
        self.records.parent.mkdir(parents=True, exist_ok=True)
        exist = self.records.exists(), self.settings.exists()
        if exist == (False, False) or (not exist[1] and not self.records.stat().st_size):
            # the empty records come first: after a kill between the two, the files still differ from those of others
            jsonl.rewrite(self.records, [])
            jsonl.write_json(self.settings, sealed(settings))
            return True
        if exist != (True, True):
            there, missing = (self.records, self.settings) if exist[0] else (self.settings, self.records)
            raise ValueError(
                f"{there} exists, but not {missing.name} next to it: restore this file, or remove the other one to "
                f"begin again, or choose another place (--out)"
            )
        return False

    def _check_name(self) -> None:
        if self.records.suffix != ".jsonl":
            raise ValueError(f"{self.records} is not a file of records: choose a name that ends in .jsonl")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How settings differ, in words."""
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in keys)

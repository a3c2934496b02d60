"""The files of a run folder, and what can be read from them without torch.

recipe.json          the recipe
versions.json        of the library (with its git commit), torch and Python
metrics.jsonl        a record for each epoch
state.safetensors    weights and optimiser after the last whole epoch: where to resume
weights.safetensors  the trained weights: the run is complete
certified/NAME.jsonl  records of a certification, and NAME.json its settings
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctbench.results import jsonl
from ctbench.results.certification import Certification, SampleRecord


@dataclass(frozen=True)
class CertificationFiles:
    """The settings of a certification and the records made under them."""

    records: Path

    @property
    def settings(self) -> Path:
        return self.records.with_suffix(".json")

    def read(self) -> Certification:
        return Certification.of(SampleRecord.from_json(record) for record in jsonl.read(self.records))

    def start(self, settings: dict[str, Any], *, resume: bool) -> dict[int, SampleRecord]:
        """Make ready to append; returns the records there are already, by index.

        Raises:
            ValueError: there are records and resume is off, or they were made under other settings.
        """
        if self.records.suffix != ".jsonl":
            raise ValueError(f"{self.records} is no place for records: choose a name that ends in .jsonl")
        self.records.parent.mkdir(parents=True, exist_ok=True)
        made = self.records.exists(), self.settings.exists()
        if made == (False, False) or (not made[1] and not self.records.stat().st_size):
            # the empty records come first: a kill between the two leaves what can be told from files of others
            jsonl.rewrite(self.records, [])
            jsonl.write_json(self.settings, settings)
            return {}
        if made != (True, True):
            there, missing = (self.records, self.settings) if made[0] else (self.settings, self.records)
            raise ValueError(f"{there} exists, but not {missing.name} beside it: choose another place")
        if not resume:
            raise ValueError(f"{self.records} exists already: resume it, or choose another place")
        before, settings = jsonl.read_json(self.settings), json.loads(json.dumps(settings))
        different = sorted(key for key in settings.keys() | before.keys() if settings.get(key) != before.get(key))
        if different:
            told = "; ".join(f"{key} was {before.get(key)!r}, now {settings.get(key)!r}" for key in different)
            raise ValueError(f"{self.records} was made under other settings ({told}): choose another place")
        done = {record.index: record for record in self.read()}
        # a record cut short by a kill must not grow together with the next one
        jsonl.rewrite(self.records, (record.to_json() for record in done.values()))
        return done


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
        """All that there are, by name."""
        return [CertificationFiles(path) for path in sorted((self.path / "certified").glob("*.jsonl"))]

    def require(self) -> None:
        """Raise an error unless this is the folder of a run."""
        if not self.path.is_dir():
            raise FileNotFoundError(f"there is no run folder {self.path}")
        if not self.recipe.is_file():
            raise FileNotFoundError(f"{self.path} is no run folder: it has no {self.recipe.name}")

"""What was measured of a run besides its certifications: its analyses, and its accuracy on corrupted test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctbench.results import AnalysisFiles, CorruptionRecord, Layout, Measurements, jsonl, read_corruptions

CLEAN = ("clean", None)  # the key of the test set without a corruption
Tests = Mapping[tuple[str, int | None], CorruptionRecord]  # by corruption and severity


@dataclass(frozen=True, kw_only=True)
class AnalysisView:
    """How pages show an analysis.

    Args:
        about: a sentence about what it measures.
        layout: of its pictures; None: bars of its first quantities, or lines over its axis.
    """

    about: str = ""
    layout: Layout | None = None


@dataclass(frozen=True, kw_only=True)
class Analysed:
    """An analysis of a run.

    Args:
        title: its name, with a digest of the options that were changed.
        settings: those of its records.
        measurements: at least one record.
    """

    title: str
    settings: Mapping[str, Any]
    measurements: Measurements

    @property
    def name(self) -> str:
        return str(self.settings.get("analysis", self.title))

    @property
    def options(self) -> dict[str, Any]:
        options = self.settings.get("options")
        return dict(options) if isinstance(options, dict) else {}

    @property
    def data(self) -> str:
        return str(self.settings.get("dataset", "-"))

    @property
    def norm(self) -> str:
        return str(self.settings.get("norm", "-"))

    @classmethod
    def read(cls, files: AnalysisFiles) -> Analysed | None:
        """The analysis in some files; None if nothing is measured yet.

        Raises:
            FileNotFoundError: there is no file of settings.
            ValueError: a file is damaged or was edited.
        """
        measurements = files.read()
        if not measurements.records:
            return None
        return cls(title=files.records.stem, settings=files.read_settings(), measurements=measurements)


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """The accuracy of a run on corrupted test images.

    Args:
        title: the name of its file: the source of the images, and their number if not all were tested.
        settings: those of its records.
        tests: a record for each test set, that of the clean images among them.
    """

    title: str
    settings: Mapping[str, Any]
    tests: Tests

    @property
    def data(self) -> str:
        return str(self.settings.get("dataset", "-"))

    @classmethod
    def read(cls, records: Path) -> Corrupted | None:
        """The records of a file; None unless clean images and corrupted ones were tested.

        Raises:
            FileNotFoundError: there is no file of settings.
            ValueError: a file is damaged.
        """
        place, tests = records.with_suffix(".json"), read_corruptions(records)
        settings = jsonl.read_json(place)
        if not isinstance(settings, dict):
            raise ValueError(
                f"{place} is not an object: remove it and {records.name}, and run ctbench corruptions again"
            )
        return cls(title=records.stem, settings=settings, tests=tests) if CLEAN in tests and len(tests) > 1 else None

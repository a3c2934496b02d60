"""Runs side by side: one row for each certification, made of the files of the run folders alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ctbench.results import OUTCOMES, Certification, Failure, RunFolder, Verdict, jsonl


@dataclass(frozen=True, kw_only=True)
class Row:
    run: str
    dataset: str
    network: str
    method: str
    norm: str = "-"
    eps: float | None
    certification: Certification | None  # None where the run has not been certified
    training_seconds: float | None
    attacked: tuple[float, int] | None = None  # accuracy under attacks, and of how many samples, where there were any

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The stages that failed."""
        return self.certification.failures if self.certification else ()

    def cells(self) -> list[str]:
        found = self.certification
        shares = [found.natural_accuracy, found.adversarial_accuracy, found.certified_accuracy] if found else [None] * 3
        return [
            self.run,
            self.dataset,
            self.network,
            self.method,
            self.norm,
            "-" if self.eps is None else f"{self.eps:.4g}",
            str(len(found)) if found else "-",
            *("-" if share is None else f"{100 * share:.2f}" for share in shares),
            *(str(found.outcomes[outcome]) if found else "-" for outcome in UNKNOWN),
            ", ".join(failure.stage for failure in self.failures) or "-",
            f"{100 * self.attacked[0]:.2f} of {self.attacked[1]}" if self.attacked else "-",
            _duration(self.training_seconds),
            _duration(found.seconds if found else None),
        ]


UNKNOWN = tuple(outcome for outcome in OUTCOMES if outcome.startswith(Verdict.UNKNOWN))
HEADINGS = (
    "run",
    "data",
    "network",
    "method",
    "norm",
    "eps",
    "samples",
    "natural %",
    "adversarial %",
    "certified %",
    *UNKNOWN,
    "failed stages",
    "attacked %",
    "train",
    "certify",
)
TEXTS = 5  # the first columns hold text, the others numbers


def rows(folders: Iterable[Path]) -> list[Row]:
    """The rows of some run folders, in their order; a run with several certifications has several.

    Raises:
        FileNotFoundError: a folder is not there, or holds neither a run nor a certification.
        ValueError: a file in it is damaged.
    """
    return [row for path in folders for row in _rows_of(RunFolder(path))]


def _rows_of(folder: RunFolder) -> list[Row]:
    certifications = folder.certifications()
    if not certifications:
        folder.require()
    recipe: dict[str, Any] = jsonl.read_json(folder.recipe) if folder.recipe.exists() else {}
    if not isinstance(recipe, dict):
        raise ValueError(f"{folder.recipe} is no recipe: it holds {type(recipe).__name__}")
    about = {
        "run": folder.path.name,
        "method": recipe.get("method", {}).get("name", "-"),
        "training_seconds": _training_seconds(folder.metrics),
    }
    if not certifications:
        names = {part: recipe.get(part, {}).get("name", "-") for part in ("dataset", "network")}
        return [Row(**about, **names, eps=None, certification=None)]
    found = []
    for files in certifications:
        settings = files.read_settings()
        names = {part: settings.get(part, "-") for part in ("dataset", "network", "norm")}
        attacked = _attacked(folder, settings)
        found.append(Row(**about, **names, eps=settings.get("eps"), certification=files.read(), attacked=attacked))
    return found


def _attacked(folder: RunFolder, certified: dict[str, Any]) -> tuple[float, int] | None:
    """The accuracy under attacks of the network and regions that were certified, by the records of most samples."""
    found = []
    for settings in folder.attacks():
        made, records = jsonl.read_json(settings), jsonl.read(settings.with_suffix(".jsonl"))
        if records and all(made.get(name) == certified.get(name) for name in ("network_digest", "threat")):
            stand = sum(record["label"] == record["prediction"] and record["attack"] is None for record in records)
            found.append((stand / len(records), len(records)))
    return max(found, key=lambda pair: (pair[1], -pair[0]), default=None)  # of as many the lowest


def table(found: Iterable[Row]) -> Table:
    """The rows for a terminal."""
    made = Table()
    for place, heading in enumerate(HEADINGS):
        made.add_column(heading, justify="left" if place < TEXTS else "right")
    for row in found:
        made.add_row(*row.cells())
    return made


def markdown(found: Iterable[Row]) -> str:
    """The rows as a table for a document."""
    rule = ["---" if place < TEXTS else "---:" for place in range(len(HEADINGS))]
    lines = [HEADINGS, rule, *(row.cells() for row in found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _training_seconds(metrics: Path) -> float | None:
    """The sum over all epochs; None where there are none."""
    found = [epoch.get("seconds", 0.0) for epoch in jsonl.read(metrics)]
    for seconds in found:
        if not isinstance(seconds, int | float):
            raise ValueError(f"{metrics}: seconds is {seconds!r}, it must be a number: the file is damaged")
    return sum(found) if found else None


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"

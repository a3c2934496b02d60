"""Comparison of runs: one row for each certification, read from the files of the run folders."""

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
    eps: float | list[Any] | None  # the radius, or nested lists with a radius for each feature
    certification: Certification | None  # None if the run has not been certified
    training_seconds: float | None
    attacked: tuple[float, int] | None = None  # accuracy under attacks, and the number of attacked samples
    selected_on_test: bool = False  # whether the weights were selected by their accuracy on the test images

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The stages that failed."""
        return self.certification.failures if self.certification else ()

    def cells(self) -> list[str]:
        job = self.certification
        shares = [job.natural_accuracy, job.adversarial_accuracy, job.certified_accuracy] if job else [None] * 3
        return [
            self.run,
            self.dataset,
            self.network,
            f"{self.method} (selected on test data)" if self.selected_on_test else self.method,
            self.norm,
            _shown(self.eps),
            str(len(job)) if job else "-",
            *("-" if share is None else f"{100 * share:.2f}" for share in shares),
            *(str(job.outcomes[outcome]) if job else "-" for outcome in UNKNOWN),
            ", ".join(failure.stage for failure in self.failures) or "-",
            f"{100 * self.attacked[0]:.2f} of {self.attacked[1]}" if self.attacked else "-",
            _duration(self.training_seconds),
            _duration(job.seconds if job else None),
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
    """The rows of some run folders, in order; a run with several certifications has several rows.

    Raises:
        FileNotFoundError: a folder does not exist, is a file, or holds neither a run nor a certification.
        ValueError: a file in it is damaged or was edited.
    """
    return [row for path in folders for row in _rows_of(RunFolder(path))]


def _rows_of(folder: RunFolder) -> list[Row]:
    certifications = folder.certifications()
    if not certifications:
        folder.require()
    trained = _names(folder.recipe)
    about = {
        "run": folder.path.name,
        "method": trained["method"],
        "training_seconds": _training_seconds(folder.metrics),
        "selected_on_test": trained["select"] == "test",
    }
    if not certifications:
        names = {part: trained[part] for part in ("dataset", "network")}
        return [Row(**about, **names, eps=None, certification=None)]
    rows = []
    for files in certifications:
        settings = files.read_settings()
        names = {part: settings.get(part, "-") for part in ("dataset", "network", "norm")}
        attacked = _attacked(folder, settings)
        rows.append(Row(**about, **names, eps=settings.get("eps"), certification=files.read(), attacked=attacked))
    return rows


def _names(recipe: Path) -> dict[str, Any]:
    """The names of the data set, network, method and selection of a recipe; "-" if there is no recipe."""
    content = jsonl.read_json(recipe) if recipe.exists() else {}
    parts = ("dataset", "network", "method")
    if not isinstance(content, dict) or not all(isinstance(content.get(part, {}), dict) for part in parts):
        raise ValueError(
            f"{recipe} is not a recipe, an object with {', '.join(parts)}: restore the file, or leave this run out"
        )
    return {part: content.get(part, {}).get("name", "-") for part in parts} | {"select": content.get("select", "-")}


def _shown(eps: float | list[Any] | None) -> str:
    if eps is None:
        return "-"
    return "by feature" if isinstance(eps, list) else f"{eps:.4g}"


def _attacked(folder: RunFolder, certified: dict[str, Any]) -> tuple[float, int] | None:
    """The accuracy under attacks for the certified network and regions, from the file with the most records."""
    accuracies = []
    for path in folder.attacks():
        settings, records = jsonl.read_json(path), jsonl.read(path.with_suffix(".jsonl"))
        lacking = {field for record in records for field in ("label", "prediction", "attack") if field not in record}
        if lacking or not isinstance(settings, dict):
            fault = f"{path} is not an object" if not lacking else f"a record lacks {', '.join(sorted(lacking))}"
            raise ValueError(f"{path.with_suffix('.jsonl')}: {fault}: remove both files, and run ctbench attack again")
        if records and all(settings.get(name) == certified.get(name) for name in ("network_digest", "threat")):
            robust = sum(record["label"] == record["prediction"] and record["attack"] is None for record in records)
            accuracies.append((robust / len(records), len(records)))
    return max(accuracies, key=lambda pair: (pair[1], -pair[0]), default=None)  # the lowest among equal numbers


def table(rows: Iterable[Row]) -> Table:
    """The rows as a table for a terminal."""
    drawn = Table()
    for place, heading in enumerate(HEADINGS):
        drawn.add_column(heading, justify="left" if place < TEXTS else "right")
    for row in rows:
        drawn.add_row(*row.cells())
    return drawn


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    rule = ["---" if place < TEXTS else "---:" for place in range(len(HEADINGS))]
    lines = [HEADINGS, rule, *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _training_seconds(metrics: Path) -> float | None:
    """The sum over all epochs; None if there are no epochs."""
    times = [epoch.get("seconds", 0.0) for epoch in jsonl.read(metrics)]
    for seconds in times:
        if not isinstance(seconds, int | float):
            raise ValueError(f"{metrics}: seconds is {seconds!r}, it must be a number: remove this line")
    return sum(times) if times else None


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"

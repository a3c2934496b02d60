"""Tables of analyses: several runs side by side, from their files of records alone."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ctbench.report.grid import Grid
from ctbench.results import AnalysisFiles, Certification, Measurements, RunFolder
from ctbench.results.analysed import COMPARABLE
from ctbench.results.certification import ROBUST_ACCURACIES
from ctbench.results.decimals import decimals
from ctbench.results.runs import names_of

LAYER = "layer "  # how the names of quantities of single layers begin
MOST_PLACES = 12  # a table has no row for the places of an axis with more of them; CSV files and figures have all
HEADINGS = ("run", "method", "train eps", "eps", "samples")


@dataclass(frozen=True)
class Result:
    """An analysis of one run.

    Args:
        settings: those of its file.
        measurements: what it measured.
        folder: the run folder, where certifications are looked for; None if there is no such folder.
    """

    settings: dict[str, Any]
    measurements: Measurements
    folder: Path | None = None

    @classmethod
    def read(cls, files: AnalysisFiles, folder: Path | None = None) -> Result:
        """Raises FileNotFoundError or ValueError if there are no valid settings or records."""
        return cls(files.read_settings(), files.read(), folder)

    @property
    def labels(self) -> tuple[str, str, str]:
        """The run, its method and its radius in training."""
        radius = self.settings.get("train_eps")
        return (
            str(self.settings.get("run", "-")),
            str(self.settings.get("method") or "-"),
            "-" if radius is None else f"{radius:.4g}",
        )

    def certification(self, eps: float) -> Certification | None:
        """What was certified of this network at a radius, on the samples of the analysis; None unless all were."""
        return self.measurements.certified(self._certifications(eps), eps)

    def certified_elsewhere(self, eps: float) -> bool:
        """Whether this network was certified at a radius, but not on all samples of the analysis."""
        return bool(self._certifications(eps)) and self.certification(eps) is None

    def _certifications(self, eps: float) -> list[Certification]:
        return [job for radius, job in self._certified if radius == eps]

    @cached_property
    def _certified(self) -> list[tuple[Any, Certification]]:
        """The radii and the records of all certifications of this network on its data."""
        folder = RunFolder(self.folder) if self.folder else None
        certifications = list[tuple[Any, Certification]]()
        for files in folder.certifications() if folder else []:
            about = files.read_settings()
            same = all(about.get(name) == self.settings.get(name) for name in COMPARABLE)
            if same:
                certifications.append((about.get("eps"), files.open()))
        return certifications


def table(title: str, results: Sequence[Result], x_label: str = "x") -> Grid:
    """A row for each run and radius (and each place on the axis), a column for the mean of each quantity."""
    rows = [row for result in results for row in _rows(result)]
    names = list(dict.fromkeys(name for _, _, values in rows for name in values))
    axis = any(x is not None for _, x, _ in rows)
    lines = [
        (
            *labels,
            *([("-" if x is None else f"{x:.4g}")] if axis else []),
            *(f"{values[name]:.4g}" if name in values else "-" for name in names),
        )
        for labels, x, values in rows
    ]
    return Grid(title=title, headings=(*HEADINGS, *([x_label] if axis else []), *names), rows=lines, texts=2)


def told_apart(results: Sequence[Result]) -> list[Result]:
    """The results of several runs, with whole paths as the names of the runs if two of them have the same name."""
    if not all(result.folder for result in results):
        return list(results)
    names = names_of([result.folder for result in results if result.folder])
    pairs = zip(results, names, strict=True)
    return [replace(result, settings={**result.settings, "run": name}) for result, name in pairs]


def _rows(result: Result) -> Iterator[tuple[tuple[str, ...], float | None, dict[str, float]]]:
    """The labels, the place and the means of each row."""
    measurements = result.measurements
    for eps in measurements.radii:
        places = measurements.places(eps)
        if len(places) > MOST_PLACES:
            places = [x for x in places if x is None]
        for x in places:
            names = [name for name in measurements.quantities(eps, x) if not name.startswith(LAYER)]
            means = {name: measurements.mean(name, eps, x) for name in names}
            yield (*result.labels, decimals(eps, 4), str(measurements.samples(eps))), x, means


def as_csv(results: Iterable[tuple[str, Result]], *, accuracies: bool = False) -> str:
    """A line for each number, of analyses by their titles: mean, standard deviation and error, and sample count.

    With `accuracies` there are also those of the samples at this radius, if they were certified.
    """
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    columns = ("mean", "standard deviation", "standard error", "samples")
    out.writerow(["analysis", "run", "method", "train eps", "eps", "x", "quantity", *columns])
    for title, result in results:
        measurements = result.measurements
        for eps in measurements.radii:
            for x in measurements.places(eps):
                for name in measurements.quantities(eps, x):
                    summary = measurements.summary(name, eps, x)
                    numbers = (summary.mean, summary.deviation, summary.error)
                    cells = ["" if number != number else f"{number:.6g}" for number in numbers]
                    place = "" if x is None else f"{x:.6g}"
                    out.writerow([title, *result.labels, f"{eps:.6g}", place, name, *cells, summary.count])
            if accuracies and (job := result.certification(eps)):
                for kind in ROBUST_ACCURACIES:
                    share = f"{getattr(job, f'{kind}_accuracy'):.6g}"
                    out.writerow([title, *result.labels, f"{eps:.6g}", "", f"{kind} accuracy", share, "", "", len(job)])
    return text.getvalue()


@dataclass(frozen=True)
class Pairs:
    """A quantity of several runs, and an accuracy of each, at one radius."""

    eps: float
    quantity: str
    accuracy: str  # "certified" or "adversarial"
    runs: tuple[str, ...]
    values: tuple[float, ...]
    accuracies: tuple[float, ...]

    @property
    def correlation(self) -> float | None:
        """Pearson's correlation; None for fewer than two runs, or if one side is constant."""
        if len(set(self.values)) < 2 or len(set(self.accuracies)) < 2:
            return None
        return statistics.correlation(self.values, self.accuracies)

    def __str__(self) -> str:
        """The correlation; if the quantity is an accuracy, also mean and standard deviation of the differences."""
        related = "-" if self.correlation is None else f"{self.correlation:.4f}"
        about = f"{self.quantity} and {self.accuracy} accuracy at eps {decimals(self.eps)}"
        runs = "1 run" if len(self.runs) == 1 else f"{len(self.runs)} runs"
        text = f"{about}, {runs}: correlation {related}"
        if not self.quantity.endswith("accuracy"):
            return text
        apart = [value - accuracy for value, accuracy in zip(self.values, self.accuracies, strict=True)]
        spread = f" +- {statistics.stdev(apart):.4f}" if len(apart) > 1 else ""
        return f"{text}, difference {statistics.fmean(apart):.4f}{spread}"


def beside_accuracies(results: Sequence[Result], quantity: str) -> list[Pairs]:
    """A quantity and the accuracies of the runs that were certified on its samples at its radius, radius by radius."""
    pairs = list[Pairs]()
    for eps in sorted({eps for result in results for eps in result.measurements.radii}):
        shown = [result for result in results if eps in result.measurements.radii]
        certified = [(result, job) for result in shown if (job := result.certification(eps))]
        if not certified:
            continue
        runs = tuple(result.labels[0] for result, _ in certified)
        values = tuple(result.measurements.mean(quantity, eps) for result, _ in certified)
        for kind in ROBUST_ACCURACIES:
            accuracies = tuple(getattr(job, f"{kind}_accuracy") for _, job in certified)
            pairs.append(Pairs(eps, quantity, kind, runs, values, accuracies))
    return pairs

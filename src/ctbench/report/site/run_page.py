"""The page of a run: its recipe, its training, and who decided what of each certification."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctbench.report.comparison import duration
from ctbench.report.drawings import rows_csv
from ctbench.report.grid import NOTHING
from ctbench.report.site.analysis_page import AnalysisPart, own_analyses
from ctbench.report.site.charts import Chart, Point, Series, chart
from ctbench.report.site.corruption_page import CorruptionPart, own_corruptions
from ctbench.report.site.curves import RadiusCurves, radius_curves
from ctbench.report.site.pictures import Gallery, counterexamples, hardest
from ctbench.report.site.subjects import Certified, Subject, slug
from ctbench.report.site.tables import Cell, File, Table, count, files_of, percent, table, text
from ctbench.results import OUTCOMES, Certification, RadiusFiles, Verdict, jsonl
from ctbench.results.decimals import decimals

BINS = 20  # of a histogram of radii
COLOUR_OF = {Verdict.CERTIFIED: 2, Verdict.FALSIFIED: 7, Verdict.UNKNOWN: 3, Verdict.MISCLASSIFIED: 8}  # 8: grey


@dataclass(frozen=True)
class Share:
    """A part of a stacked bar."""

    name: str
    count: int
    share: float
    colour: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a page shows of a certification."""

    certified: Certified
    anchor: str
    facts: tuple[tuple[str, str], ...]
    shares: tuple[Share, ...]
    tables: tuple[Table, ...]
    galleries: tuple[Gallery, ...]
    samples: File | None  # all records


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """All that the page of a run shows."""

    subject: Subject
    facts: tuple[tuple[str, str], ...]
    overview: Table | None
    parts: tuple[Part, ...]
    training: tuple[Chart, ...]
    metrics: File | None
    radii: tuple[Chart, ...]
    without_curves: tuple[str, ...]  # why there are no curves over the radius
    analyses: tuple[AnalysisPart, ...]
    corruptions: tuple[CorruptionPart, ...]
    recipe: Table | None
    recipe_file: File | None

    @property
    def files(self) -> Iterator[File]:
        """The files that the page links to."""
        yield from self.overview.files if self.overview else ()
        yield from (file for file in (self.metrics, self.recipe_file) if file)
        yield from (part.samples for part in self.parts if part.samples)
        yield from files_of([*self.training, *self.radii, *self.analyses, *self.corruptions])


def run_page(subject: Subject) -> RunPage:
    """The page of a run."""
    name = subject.page.removesuffix(".html")
    epochs = [{key: value for key, value in epoch.items() if _finite(value)} for epoch in subject.epochs]
    curves = radius_curves([subject], f"{name}-radii")
    return RunPage(
        subject=subject,
        facts=tuple(_facts(subject)),
        overview=_overview(subject) if subject.certified else None,
        parts=tuple(_part(subject, certified, name) for certified in subject.certified),
        training=tuple(_training(name, epochs)),
        metrics=File(f"{name}-metrics.csv", rows_csv(epochs)) if epochs else None,
        radii=tuple(_radii(subject, curves, name)),
        without_curves=curves.lacking,
        analyses=tuple(own_analyses(subject)),
        corruptions=tuple(own_corruptions(subject)),
        recipe=_recipe(subject.recipe) if subject.recipe else None,
        recipe_file=File(f"{name}-recipe.json", json.dumps(subject.recipe, indent=2) + "\n")
        if subject.recipe
        else None,
    )


def _facts(subject: Subject) -> Iterator[tuple[str, str]]:
    row, path = subject.about, subject.folder.versions
    yield "method", row.named_method
    yield "data", row.dataset
    yield "network", row.network
    yield "seed", NOTHING if row.seed is None else str(row.seed)
    if subject.epochs:
        yield "training", f"{len(subject.epochs)} epochs, {duration(row.training_seconds)}"
    versions = jsonl.read_json(path) if path.is_file() else {}
    if isinstance(versions, dict):
        shown = [f"{key} {versions[key]}" for key in ("ctbench", "torch", "python", "device") if key in versions]
        if shown:
            yield "made with", ", ".join(shown)
    if subject.also:
        yield "also given as", ", ".join(subject.also)


def _overview(subject: Subject) -> Table:
    """The certifications of a run."""
    rows = []
    for place, one in enumerate(subject.certified):
        job = one.records
        rows.append(
            [
                Cell(text=one.title, links=((one.title, f"#certification-{place}"),)),
                percent(job.certified_accuracy),
                percent(job.natural_accuracy),
                percent(job.adversarial_accuracy),
                percent(job.counts[Verdict.UNKNOWN] / max(1, len(job))),
                percent(one.row.attacked.adversarial_accuracy if one.row.attacked else None),
                Cell(text=one.unfinished or str(len(job)), value=len(job)),
                Cell(text=duration(job.seconds), value=job.seconds),
            ]
        )
    headings = (
        "threat model",
        "certified %",
        "natural %",
        "adversarial %",
        "open %",
        "attacked %",
        "samples",
        "certify",
    )
    name = f"{subject.page.removesuffix('.html')}-certifications"
    return table("Certifications", headings, rows, name=name)


def _part(subject: Subject, certified: Certified, name: str) -> Part:
    settings, place = certified.settings, subject.certified.index(certified)
    certified = certified.in_memory()
    facts = [("samples", certified.unfinished or str(len(certified.records)))]
    facts += [(key, str(settings[key])) for key in ("threat", "timeout", "precision", "rounding") if key in settings]
    facts += [("stages", ", ".join(map(str, settings["stages"])))] if settings.get("stages") else []
    found = [counterexamples(certified, subject.images), hardest(certified, subject.images)]
    return Part(
        certified=certified,
        anchor=f"certification-{place}",
        facts=tuple(facts),
        shares=tuple(_shares(certified.records)),
        tables=(_stages(certified.records), _classes(subject, certified.records)),
        galleries=tuple(gallery for gallery in found if gallery is not None),
        samples=_samples(certified.records, name, slug(certified.files.records.stem)) if subject.with_samples else None,
    )


def _samples(records: Certification, name: str, place: str) -> File:
    """The fields of all records that are single numbers or texts."""
    rows = [{key: value for key, value in one.items() if not isinstance(value, dict)} for one in records.to_dicts()]
    return File(f"{name}-{place}-samples.csv", rows_csv(rows))


def _shares(job: Certification) -> Iterator[Share]:
    for verdict, number_of in job.counts.items():
        if number_of:
            yield Share(verdict.value, number_of, number_of / len(job), COLOUR_OF[verdict])


def _stages(job: Certification) -> Table:
    """The outcomes by stage, and the seconds of each stage."""
    outcomes = [outcome for outcome in job.outcomes if job.outcomes[outcome]]
    outcomes.sort(key=lambda outcome: OUTCOMES.index(outcome) if outcome in OUTCOMES else len(OUTCOMES))
    seconds = job.seconds_by_stage
    stages = [*dict.fromkeys([*seconds, *job.outcomes_by_stage])]
    rows = []
    for stage in stages:
        counts = job.outcomes_by_stage.get(stage, {})
        decided = sum(number for outcome, number in counts.items() if not outcome.startswith(Verdict.UNKNOWN))
        rows.append(
            [
                text(stage),
                Cell(text=str(decided), value=decided, share=decided / max(1, len(job))),
                *(count(counts.get(outcome, 0)) for outcome in outcomes),
                Cell(text=duration(seconds.get(stage, 0.0)), value=seconds.get(stage, 0.0)),
            ]
        )
    note = "Each sample goes through the stages until one decides it; an open sample is counted for the last one."
    return table("Who decided what", ("stage", "decided", *outcomes, "time"), rows, note=note)


def _classes(subject: Subject, job: Certification) -> Table:
    rows = [
        [
            Cell(text=subject.images.class_name(label), value=label),
            count(len(part)),
            percent(part.natural_accuracy, bar=True),
            percent(part.adversarial_accuracy, bar=True),
            percent(part.certified_accuracy, bar=True),
        ]
        for label, part in job.by_class().items()
    ]
    return table("Accuracy by class", ("class", "samples", "natural %", "adversarial %", "certified %"), rows)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _training(name: str, epochs: Sequence[Mapping[str, float]]) -> Iterator[Chart]:
    """Charts of what training wrote after each epoch."""
    kinds = (
        ("accuracy", "Accuracy", "accuracy (%)", 100.0),
        ("loss", "Loss", "loss", 1.0),
        ("relus", "ReLUs by their state", "share of ReLUs (%)", 100.0),
    )
    for ending, title, label, factor in kinds:
        columns = list(dict.fromkeys(key for epoch in epochs for key in epoch if key.endswith(ending)))
        series = [_course(epochs, column, place, factor) for place, column in enumerate(columns)]
        if series := [one for one in series if one.points]:
            yield chart(
                f"{name}-{ending}",
                title,
                series,
                x="epoch",
                y=label,
                y_range=(0.0, 100.0) if factor == 100 and ending == "relus" else None,
                x_range=_epochs(epochs),
            )
    if any("eps" in epoch for epoch in epochs):
        course = _course(epochs, "eps", 0, 1.0)
        yield chart(f"{name}-eps", "Radius in training", [course], x="epoch", y="eps", x_range=_epochs(epochs))


def _epochs(epochs: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    numbers = [epoch.get("epoch", place) for place, epoch in enumerate(epochs, start=1)]
    return min(numbers) - 0.5, max(numbers) + 0.5


def _course(epochs: Sequence[Mapping[str, float]], column: str, place: int, factor: float) -> Series:
    name = column.replace("_", " ")
    points = [
        Point(
            x=epoch.get("epoch", at),
            y=factor * epoch[column],
            text=f"{name}, epoch {epoch.get('epoch', at):g}: "
            f"{factor * epoch[column]:.4g}{' %' if factor == 100 else ''}",
        )
        for at, epoch in enumerate(epochs, start=1)
        if column in epoch
    ]
    return Series(name=name, points=tuple(points), colour=place)


def _radii(subject: Subject, curves: RadiusCurves, name: str) -> Iterator[Chart]:
    """Accuracies over the radius, and a histogram for each search for radii."""
    yield from curves.charts
    for search in subject.folder.searches():
        yield _histogram(search, name)


def _histogram(search: RadiusFiles, name: str) -> Chart:
    """How many samples have which largest certified and smallest falsified radius."""
    found, norm = search.read(), search.read_settings().get("norm", "")
    width = found.largest / BINS
    kinds = (
        ("certified up to", [sample.certified for sample in found if sample.right], 2, -0.25),
        ("falsified from", [sample.falsified for sample in found if sample.right], 7, 0.25),
    )
    series = []
    for title, values, colour, shift in kinds:
        counts = [0] * BINS
        for value in values:
            if value is not None:
                counts[min(BINS - 1, int(value / width))] += 1
        points = [
            Point(
                x=(place + 0.5 + shift) * width,
                y=float(times),
                text=f"{title} {decimals(place * width, 4)} to {decimals((place + 1) * width, 4)}: {times} samples",
            )
            for place, times in enumerate(counts)
        ]
        series.append(Series(name=title, kind="bars", points=tuple(points), colour=colour, width=0.48 * width))
    most = max(point.y for one in series for point in one.points)
    right = sum(sample.right for sample in found)
    return chart(
        f"{name}-{slug(search.records.stem)}-histogram",
        f"Radii of {right} samples that are right, {norm} up to {decimals(found.largest, 4)}",
        series,
        x="eps",
        y="samples",
        x_range=(0.0, found.largest),
        y_range=(0.0, 1.08 * most or 1.0),
    )


def _recipe(recipe: Mapping[str, Any]) -> Table:
    rows = [[text(path), text(value)] for path, value in _fields(recipe, "")]
    return table("Recipe", ("field", "value"), rows, texts=range(2))


def _fields(part: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for key, value in part.items():
        place = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            yield from _fields(value, place)
        else:
            yield place, value if isinstance(value, str) else json.dumps(value)

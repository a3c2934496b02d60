"""What pages show of corrupted test images: accuracies over the clean accuracy, of one run and of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ctbench.report.drawings import rows_csv
from ctbench.report.site.charts import Chart, Point, Series, chart
from ctbench.report.site.measured import CLEAN, Corrupted
from ctbench.report.site.subjects import Subject, page_names
from ctbench.report.site.tables import Cell, File, Table, files_of, percent, table, text

ABOUT = "The accuracy on corrupted test images over that on the clean ones; the mean is over the corruptions."
RATIO = "accuracy / clean accuracy"


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """The accuracies of a run on corrupted images, over its clean accuracy."""

    tested: Corrupted

    @property
    def clean(self) -> float:
        record = self.tested.tests[CLEAN]
        return record.right / record.samples

    @property
    def corruptions(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self.tested.tests if name != CLEAN[0]))

    @property
    def severities(self) -> list[int]:
        return sorted({severity for _, severity in self.tested.tests if severity is not None})

    def of(self, corruption: str, severity: int | None = None) -> float | None:
        """The ratio of a corruption, by default on the images of all severities; None if it is not known."""
        records = [
            record
            for (name, grade), record in self.tested.tests.items()
            if name == corruption and severity in (None, grade)
        ]
        if not records or not self.clean:
            return None
        return sum(one.right for one in records) / sum(one.samples for one in records) / self.clean

    def at(self, severity: int | None = None) -> dict[str, float]:
        """The ratios of all corruptions, by default on all severities; empty unless each one was tested."""
        ratios = {name: self.of(name, severity) for name in self.corruptions}
        tested = {name: ratio for name, ratio in ratios.items() if ratio is not None}
        return tested if len(tested) == len(ratios) else {}


@dataclass(frozen=True, kw_only=True)
class CorruptionPart:
    """All that a page shows of corrupted images.

    Args:
        name: of its files and in its page.
        title: its heading.
        runs: names and pages of the runs that are compared; none on the page of a run.
        samples: how many images each test set has.
        table, charts: the ratios.
        numbers: the number of images that are right in each test set.
    """

    name: str
    title: str
    runs: tuple[tuple[str, str], ...] = ()
    samples: str
    table: Table
    charts: tuple[Chart, ...]
    numbers: File
    about: str = ABOUT

    @property
    def files(self) -> tuple[File, ...]:
        return (self.numbers, *files_of([self.table, *self.charts]))


def own_corruptions(subject: Subject) -> list[CorruptionPart]:
    """The corrupted images of a run, for its page."""
    names = page_names((one.title for one in subject.corrupted), f"{subject.page.removesuffix('.html')}-corrupted")
    return [_own(subject, one, page.removesuffix(".html")) for one, page in zip(subject.corrupted, names, strict=True)]


def _own(subject: Subject, one: Corrupted, name: str) -> CorruptionPart:
    ratios = Ratios(tested=one)
    grades = [None, *ratios.severities]
    rows = [[text(kind), *(_ratio(ratios.of(kind, grade)) for grade in grades)] for kind in ratios.corruptions]
    rows.append([text("mean"), *(_ratio(_mean(ratios.at(grade))) for grade in grades)])
    headings = ("corruption", "all", *(f"severity {grade}" for grade in ratios.severities))
    clean = f"Clean accuracy: {100 * ratios.clean:.2f} %."
    return CorruptionPart(
        name=name,
        title=f"Corrupted images: {one.title}",
        samples=_samples(one),
        table=table("Accuracy over clean accuracy", headings, rows, name=f"{name}-ratios", note=clean),
        charts=tuple(_own_chart(ratios, name)),
        numbers=_numbers([(subject, one)], f"{name}.csv"),
    )


def _samples(one: Corrupted) -> str:
    return f"{one.tests[CLEAN].samples} clean images"


def _mean(ratios: dict[str, float]) -> float | None:
    return fmean(ratios.values()) if ratios else None


def _ratio(ratio: float | None) -> Cell:
    if ratio is None:
        return Cell(text="-")
    return Cell(text=f"{ratio:.3f}", value=ratio, share=min(1.0, ratio))


def _own_chart(ratios: Ratios, name: str) -> Iterator[Chart]:
    """The mean, the best and the worst corruption over the severity."""
    grades = [grade for grade in ratios.severities if ratios.at(grade)]
    if len(grades) < 2:
        return
    kinds = (("the least affected", max, 2, 1), ("mean", None, 0, 0), ("the most affected", min, 7, 1))
    series = []
    for title, choose, colour, dash in kinds:
        points = []
        for grade in grades:
            by_kind = ratios.at(grade)
            kind = choose(by_kind, key=by_kind.__getitem__) if choose else "mean"
            ratio = by_kind[kind] if choose else fmean(by_kind.values())
            points.append(Point(x=grade, y=ratio, text=f"severity {grade}, {kind}: {ratio:.3f}"))
        series.append(Series(name=title, colour=colour, dash=dash, points=tuple(points)))
    yield _over_severity(f"{name}-severities", series)


def _over_severity(name: str, series: Sequence[Series]) -> Chart:
    rows: list[dict[str, Any]] = [
        {"series": one.name, "severity": int(point.x), "ratio": point.y} for one in series for point in one.points
    ]
    highest = max(point.y for one in series for point in one.points)
    return chart(
        name,
        "Accuracy over clean accuracy, by severity",
        series,
        x="severity",
        y=RATIO,
        whole_x=True,
        y_range=(0.0, 1.05 * max(1.0, highest)),
    ).with_numbers(rows_csv(rows))


def _numbers(members: Sequence[tuple[Subject, Corrupted]], name: str) -> File:
    rows = [
        {
            "run": subject.name,
            "corruption": record.corruption,
            "severity": record.severity,
            "right": record.right,
            "samples": record.samples,
        }
        for subject, one in members
        for record in one.tests.values()
    ]
    return File(name, rows_csv(rows))


def compared_corruptions(subjects: Sequence[Subject]) -> list[CorruptionPart]:
    """A part of the page of analyses for each source of images that at least two runs were tested on alike."""
    groups: dict[tuple[Any, ...], list[tuple[Subject, Corrupted]]] = {}
    for subject in subjects:
        for one in subject.corrupted:
            about = (one.title, *(repr(one.settings.get(name)) for name in ("dataset", "source", "seed", "samples")))
            tests = sorted(repr((key, record.samples)) for key, record in one.tests.items())
            groups.setdefault((*about, *tests), []).append((subject, one))
    several = [members for _, members in sorted(groups.items()) if len(members) > 1]
    names = page_names((f"{members[0][1].title} {members[0][1].data}" for members in several), "corrupted")
    return [_compared(members, page.removesuffix(".html")) for members, page in zip(several, names, strict=True)]


def _compared(members: Sequence[tuple[Subject, Corrupted]], name: str) -> CorruptionPart:
    ratios = [(subject, Ratios(tested=one)) for subject, one in members]
    first, kinds = members[0][1], ratios[0][1].corruptions
    rows = [
        [
            Cell(text=subject.name, links=((subject.name, subject.page),)),
            percent(its.clean),
            _ratio(_mean(its.at())),
            *(_ratio(its.of(kind)) for kind in kinds),
        ]
        for subject, its in ratios
    ]
    return CorruptionPart(
        name=name,
        title=f"Corrupted images: {first.data}, {first.title}",
        runs=tuple((subject.name, subject.page) for subject, _ in members),
        samples=_samples(first),
        table=table(
            "Accuracy over clean accuracy, at all severities",
            ("run", "clean %", "mean", *kinds),
            rows,
            name=f"{name}-ratios",
        ),
        charts=tuple(_compared_chart(ratios, name)),
        numbers=_numbers(members, f"{name}.csv"),
    )


def _compared_chart(ratios: Sequence[tuple[Subject, Ratios]], name: str) -> Iterator[Chart]:
    """The mean over the corruptions at each severity, of all runs."""
    series = []
    for colour, (subject, its) in enumerate(ratios):
        means = {grade: fmean(known.values()) for grade in its.severities if (known := its.at(grade))}
        points = tuple(
            Point(x=grade, y=mean, text=f"{subject.name}, severity {grade}: mean {mean:.3f}", href=subject.page)
            for grade, mean in means.items()
        )
        if len(points) > 1:
            series.append(Series(name=subject.name, colour=colour, points=points))
    if series:
        yield _over_severity(f"{name}-severities", series)

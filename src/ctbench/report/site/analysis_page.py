"""What pages show of analyses: a part of the page of a run, and a page on which runs are compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ctbench.report import analyses
from ctbench.report.analyses import MOST_PLACES, Result
from ctbench.report.grid import NOTHING
from ctbench.report.site.analysis_charts import Member, analysis_charts, overall, place_of
from ctbench.report.site.charts import Chart
from ctbench.report.site.measured import Analysed
from ctbench.report.site.subjects import Subject, page_names
from ctbench.report.site.tables import Cell, File, Table, files_of, number, percent, table, text
from ctbench.results import Measurements
from ctbench.results.analysed import COMPARABLE
from ctbench.results.decimals import decimals

METHOD = "method"  # the option of an analysis that is the training method of its run
ERRORS = "±: the standard error of the mean over the samples."
CERTIFIED = "Certified accuracies are those of ctbench certify at the same radius."


@dataclass(frozen=True, kw_only=True)
class AnalysisPart:
    """All that a page shows of an analysis.

    Args:
        name: of its files and in its page.
        title: its heading.
        about: a sentence about what it measures.
        runs: names and pages of the runs that are compared; none on the page of a run.
        samples: how many there are.
        tables, charts: at all radii.
        facts: its settings.
        numbers: all means, those of layers included.
    """

    name: str
    title: str
    about: str
    runs: tuple[tuple[str, str], ...] = ()
    samples: str
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    facts: tuple[tuple[str, str], ...] = ()
    numbers: File

    @property
    def files(self) -> tuple[File, ...]:
        return (self.numbers, *files_of([*self.tables, *self.charts]))


def own_analyses(subject: Subject) -> list[AnalysisPart]:
    """The analyses of a run, for its page."""
    names = page_names((one.title for one in subject.analysed), f"{subject.page.removesuffix('.html')}-analysis")
    return [_own(subject, one, name.removesuffix(".html")) for one, name in zip(subject.analysed, names, strict=True)]


def _own(subject: Subject, one: Analysed, name: str) -> AnalysisPart:
    view, measurements = subject.view(one.name), one.measurements
    member, charts = Member(name=subject.name, measurements=measurements), list[Chart]()
    for eps in measurements.radii:
        place = name if len(measurements.radii) == 1 else f"{name}-{_in_name(eps)}"
        charts += analysis_charts([member], eps, view.layout, place)
    return AnalysisPart(
        name=name,
        title=one.title,
        about=view.about,
        samples=_samples(measurements),
        tables=tuple(_own_tables(one, name, view.layout.x_label if view.layout else "")),
        charts=tuple(charts),
        facts=tuple(_facts(one)),
        numbers=_numbers([(subject, one)], f"{name}.csv"),
    )


def _in_name(eps: float) -> str:
    """A radius in the name of a file."""
    return f"at-{eps:.10g}"


def _samples(measurements: Measurements) -> str:
    """How many samples there are, e.g. "359 samples"; of several radii with other numbers, the numbers of each."""
    counts = {eps: measurements.samples(eps) for eps in measurements.radii}
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} samples"
    return ", ".join(f"{count} samples at eps {decimals(eps, 4)}" for eps, count in counts.items())


def _facts(one: Analysed) -> Iterator[tuple[str, str]]:
    for key, value in {**one.settings, **{f"option {key}": value for key, value in one.options.items()}}.items():
        if key not in ("options", "analysis", "run", "network", "dataset"):
            yield key, value if isinstance(value, str) else json.dumps(value)


def _numbers(members: Sequence[tuple[Subject, Analysed]], name: str) -> File:
    """All means as CSV."""
    results = [(one.title, Result({**one.settings, "run": subject.name}, one.measurements)) for subject, one in members]
    return File(name, analyses.as_csv(results))


def _own_tables(one: Analysed, name: str, x_label: str) -> Iterator[Table]:
    """The means at each radius, and those over the axis where it has few places."""
    measurements = one.measurements
    radii = [eps for eps in measurements.radii if overall(measurements, eps, None)]
    if radii:
        names = list(dict.fromkeys(name for eps in radii for name in overall(measurements, eps, None)))
        rows = [[text(quantity), *(_mean(measurements, quantity, eps, None) for eps in radii)] for quantity in names]
        headings = ("quantity", *(f"eps {decimals(eps, 4)}" for eps in radii))
        yield table(f"{one.title}: means", headings, rows, name=f"{name}-means", note=_errors(rows))
    for eps in measurements.radii:
        places = [x for x in measurements.places(eps) if x is not None]
        if 0 < len(places) <= MOST_PLACES:
            names = list(dict.fromkeys(name for x in places for name in overall(measurements, eps, x)))
            rows = [[number(x), *(_mean(measurements, quantity, eps, x) for quantity in names)] for x in places]
            title, file = f"{one.title}: means at eps {decimals(eps, 4)}", f"{name}-places-{_in_name(eps)}"
            yield table(title, (x_label or "x", *names), rows, texts=(), name=file, note=_errors(rows))


def _mean(measurements: Measurements, quantity: str, eps: float, x: float | None) -> Cell:
    if quantity not in overall(measurements, eps, x):
        return text(NOTHING)
    summary = measurements.summary(quantity, eps, x)
    error = f"± {summary.error:.2g}" if summary.error == summary.error else ""
    return Cell(text=f"{summary.mean:.4g}", detail=error, value=summary.mean)


Compared = list[tuple[Subject, Analysed]]


def compared_analyses(subjects: Sequence[Subject]) -> list[AnalysisPart]:
    """A part of the page of analyses for each analysis that at least two runs have of the same samples and radius."""
    groups = list(_groups(subjects))
    names = page_names(
        (f"{members[0][1].title} {members[0][1].data} {_in_name(eps)}" for eps, members in groups), "analysis"
    )
    return [
        _compared(eps, members, name.removesuffix(".html")) for (eps, members), name in zip(groups, names, strict=True)
    ]


def _groups(subjects: Sequence[Subject]) -> Iterator[tuple[float, Compared]]:
    """Analyses with the same options, threat model, radius and samples, one of each run."""
    groups: dict[tuple[Any, ...], Compared] = {}
    for subject in subjects:
        for one in subject.analysed:
            options = {name: value for name, value in one.options.items() if name != METHOD}
            about = [repr(one.settings.get(name)) for name in ("analysis", "dataset", "norm", "threat", "seed")]
            for eps in one.measurements.radii:
                key = (one.title, *about, repr(sorted(options.items())), eps, one.measurements.digest(eps))
                groups.setdefault(key, []).append((subject, one))
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], item[0][2], item[0][3], item[0][-2]))
    yield from ((key[-2], members) for key, members in ordered if len(members) > 1)


def _compared(eps: float, members: Compared, name: str) -> AnalysisPart:
    subject, first = members[0]
    view = subject.view(first.name)
    drawn = [
        Member(name=run.name, page=run.page, measurements=one.measurements, certified=_certified(run, one, eps))
        for run, one in members
    ]
    only = [(run, _at(one, eps)) for run, one in members]
    return AnalysisPart(
        name=name,
        title=f"{first.title}: {first.data}, {first.norm} eps {decimals(eps, 4)}",
        about=view.about,
        runs=tuple((run.name, run.page) for run, _ in members),
        samples=f"{first.measurements.samples(eps)} samples",
        tables=(_side_by_side(members, drawn, eps, name, view.layout.x_label if view.layout else ""),),
        charts=tuple(analysis_charts(drawn, eps, view.layout, name)),
        numbers=_numbers(only, f"{name}.csv"),
    )


def _at(one: Analysed, eps: float) -> Analysed:
    """The analysis at one radius."""
    records = tuple(record for record in one.measurements.records if record.eps == eps)
    return Analysed(title=one.title, settings=one.settings, measurements=Measurements(records))


def _certified(subject: Subject, one: Analysed, eps: float) -> float | None:
    """The certified accuracy of the same network on the same samples, at the same radius; None if it is not known."""
    same = [
        certified.records
        for certified in subject.certified
        if certified.row.eps == eps
        and all(certified.settings.get(name) == one.settings.get(name) for name in COMPARABLE)
    ]
    records = one.measurements.certified(same, eps)
    return records.certified_accuracy if records else None


def _side_by_side(members: Compared, drawn: Sequence[Member], eps: float, name: str, x_label: str) -> Table:
    """A row for each run: the means where the analysis has no axis, else those at the end of its axis."""
    places = [place_of(one.measurements, eps) for _, one in members]
    quantities = [
        name for place, (_, one) in zip(places, members, strict=True) for name in overall(one.measurements, eps, place)
    ]
    certified = any(member.certified is not None for member in drawn)
    headings = ("run", *dict.fromkeys(quantities), *(["certified %"] if certified else []), "method", "train eps")
    rows = []
    for place, (run, one), member in zip(places, members, drawn, strict=True):
        trained = one.settings.get("train_eps")
        rows.append(
            [
                Cell(text=run.name, links=((run.name, run.page),)),
                *(_mean(one.measurements, quantity, eps, place) for quantity in dict.fromkeys(quantities)),
                *([percent(member.certified)] if certified else []),
                text(one.settings.get("method") or NOTHING),
                number(trained if isinstance(trained, int | float) else None),
            ]
        )
    notes = [] if places[0] is None else [f"At {x_label or 'x'} {places[0]:g}."]
    notes += [_errors(rows), CERTIFIED if certified else ""]
    texts = (0, headings.index("method"))
    return table("Means of runs", headings, rows, texts=texts, name=f"{name}-means", note=" ".join(filter(None, notes)))


def _errors(rows: Sequence[Sequence[Cell]]) -> str:
    """What ± means, if a cell has it."""
    return ERRORS if any(cell.detail for row in rows for cell in row) else ""

"""Agreements: do the runs of a setting fail on the same samples?"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ctbench.report.agreement import agreement_csv
from ctbench.report.grid import NOTHING
from ctbench.report.site.charts import Chart, Point, Series, chart
from ctbench.report.site.pictures import Gallery, sample_gallery
from ctbench.report.site.subjects import Certified, Subject, page_names, settings_of
from ctbench.report.site.tables import Cell, File, Table, count, number, percent, table, text
from ctbench.results import Agreement, compare_certifications
from ctbench.results.agreement import SETTINGS

MOST = 200  # hard samples of a table


@dataclass(frozen=True, kw_only=True)
class AgreementPage:
    """All that a page shows of an agreement."""

    title: str
    name: str  # of its files and in its page
    runs: tuple[tuple[str, str], ...]  # names and pages
    samples: int
    none: int  # samples that no run certifies
    counts: Chart
    table: Table
    pairs: Table
    hard: Table
    gallery: Gallery
    files: tuple[File, ...]


def agreement_pages(subjects: Sequence[Subject]) -> list[AgreementPage]:
    """A part of the page for each setting that at least two runs are certified for on the same samples."""
    groups = list(_groups(subjects))
    pages = page_names((members[0][1].row.dataset + " " + members[0][1].title for members in groups), "agreement")
    return [_page(members, page) for members, page in zip(groups, pages, strict=True)]


def _groups(subjects: Sequence[Subject]) -> Iterator[list[tuple[Subject, Certified]]]:
    """Certifications of the same regions and samples, one of each run."""
    for members in settings_of(subjects).values():
        alike: dict[tuple[object, ...], dict[str, tuple[Subject, Certified]]] = {}
        for subject, one in members:
            if one.samples and len(one.records):
                about = tuple(repr(one.settings.get(name)) for name in SETTINGS)
                alike.setdefault((about, one.samples), {}).setdefault(subject.page, (subject, one))
        yield from (list(group.values()) for group in alike.values() if len(group) > 1)


def _page(members: Sequence[tuple[Subject, Certified]], page: str) -> AgreementPage:
    agreement = compare_certifications(
        [one.files for _, one in members],
        [subject.name for subject, _ in members],
        [one.records for _, one in members],
    )
    first, name = members[0][1], page.removesuffix(".html")
    title = f"{first.row.dataset}, {first.title}"
    subject = next((one for one, _ in members if not one.images.lacking), members[0][0])
    hard = set(agreement.uncertified)
    shown = [record for record in first.records if record.index in hard]
    return AgreementPage(
        title=title,
        name=name,
        runs=tuple((one.name, one.page) for one, _ in members),
        samples=len(agreement.indices),
        none=len(hard),
        counts=_counts(agreement, name),
        table=_table(agreement, name),
        pairs=_pairs(agreement, name),
        hard=_hard(agreement, name),
        gallery=sample_gallery(
            "Samples that no run certifies", f"{len(shown)} samples.", shown, subject.images, "certified by none"
        ),
        files=(
            File(f"{name}.csv", agreement_csv(agreement)),
            File(f"{name}-difficulties.csv", _difficulties(agreement)),
        ),
    )


def _counts(agreement: Agreement, name: str) -> Chart:
    kinds = (("observed", agreement.observed, 0, -0.21), ("expected if independent", agreement.expected, 1, 0.21))
    series = [
        Series(
            name=title,
            kind="bars",
            colour=colour,
            width=0.4,
            points=tuple(
                Point(x=times + shift, y=float(value), text=f"certified by {times}: {title} {value:.4g} samples")
                for times, value in enumerate(values)
            ),
        )
        for title, values, colour, shift in kinds
    ]
    most = max(point.y for one in series for point in one.points)
    return chart(
        f"{name}-counts",
        "How many runs certify a sample",
        series,
        x="certified by this many runs",
        y="samples",
        x_range=(-0.6, len(agreement.names) + 0.6),
        y_range=(0.0, 1.08 * most),
        categories=[str(times) for times in range(len(agreement.names) + 1)],
        note="More samples than expected at both ends: the runs make shared mistakes.",
    )


def _table(agreement: Agreement, name: str) -> Table:
    rows = [
        [Cell(text=str(times), value=times), count(observed), number(expected, "{:.1f}")]
        for times, (observed, expected) in enumerate(zip(agreement.observed, agreement.expected, strict=True))
    ]
    return table(
        "Samples by the number of runs that certify them",
        ("certified by", "observed", "expected"),
        rows,
        name=f"{name}-counts",
    )


def _pairs(agreement: Agreement, name: str) -> Table:
    rows = []
    for run, accuracy, line in zip(agreement.names, agreement.accuracies, agreement.correlations, strict=True):
        cells = [Cell(text=NOTHING) if phi is None else number(phi, "{:.3f}") for phi in line]
        rows.append([text(run), percent(accuracy), *cells])
    return table(
        "Phi coefficients of pairs of runs",
        ("run", "certified %", *agreement.names),
        rows,
        name=f"{name}-pairs",
        note="1: they certify the same samples; 0: as if they were independent.",
    )


def _hard(agreement: Agreement, name: str) -> Table:
    rows = [
        [count(sample["index"]), count(sample["label"]), count(sample["certified"]), percent(sample["difficulty"])]
        for sample in agreement.difficulties()[:MOST]
    ]
    headings = ("sample", "label", "certified by", "difficulty %")
    note = f"Difficulty: the share of the {len(agreement.names)} runs that do not certify it. The hardest {len(rows)}."
    return table("Hard samples", headings, rows, texts=(), name=f"{name}-hard", note=note)


def _difficulties(agreement: Agreement) -> str:
    content = io.StringIO()
    out = csv.DictWriter(content, ("index", "label", "certified", "difficulty"), lineterminator="\n")
    out.writeheader()
    out.writerows(agreement.difficulties())
    return content.getvalue()

"""Curves of runs: accuracies over the radius, and over the seconds that a sample may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ctbench.report.curves import NoSampleInCommonError, RadiusSeries, radius_series, times_of
from ctbench.report.drawings import rows_csv
from ctbench.report.site.charts import COLOURS, Chart, Point, Series, chart
from ctbench.report.site.leaderboard import Setting
from ctbench.report.site.subjects import Subject, page_names
from ctbench.results.decimals import decimals

LEAST = 2  # radii, besides the natural accuracy at radius 0
Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RadiusCurves:
    """Accuracies over the radius.

    Args:
        charts: a picture for each data set and norm.
        lacking: a sentence for each curve that cannot be drawn.
    """

    charts: tuple[Chart, ...]
    lacking: tuple[str, ...]


def radius_curves(subjects: Sequence[Subject], name: str) -> RadiusCurves:
    """The curves of runs that are certified at several radii, or have searches for radii."""
    groups, lacking = dict[str, Rows](), list[str]()
    for subject in subjects:
        for series in radius_series(subject.folder):
            try:
                rows = _named(subject, series)
            except NoSampleInCommonError as error:
                lacking.append(f"{subject.name} has no curve at {error.at}: {error.reason}.")
                continue
            for row in rows:
                groups.setdefault(row["setting"], []).append(row)
    pages = page_names(groups, name)
    charts = [
        curve_chart(page.removesuffix(".html"), f"Accuracy over the radius: {setting}", rows, "eps")
        for page, (setting, rows) in zip(pages, groups.items(), strict=True)
    ]
    return RadiusCurves(charts=tuple(charts), lacking=tuple(lacking))


def _named(subject: Subject, series: RadiusSeries) -> Rows:
    """The rows of a series, with the name of its run in the report; none if it has fewer than two radii besides 0."""
    if not series.is_curve:
        return []
    own, rows = subject.folder.path.name, series.rows()
    return [{**row, "run": subject.name + row["run"].removeprefix(own)} for row in rows] if len(rows) > LEAST else []


def curve_chart(name: str, title: str, rows: Rows, x: str) -> Chart:
    """Certified accuracy as a line and adversarial accuracy as a broken line, for each run."""
    series = []
    runs, last = list(dict.fromkeys(row["run"] for row in rows)), max(row[x] for row in rows)
    for place, run in enumerate(runs):
        here = sorted((row for row in rows if row["run"] == run), key=lambda row: row[x])
        here += [{**here[-1], x: last}] if x == "seconds" and here[-1][x] < last else []
        for accuracy, dash in (("certified", 0), ("adversarial", 1)):
            series.append(
                Series(
                    name=run if accuracy == "certified" else f"{run}, {accuracy}",
                    kind="steps" if x == "seconds" else "line",
                    colour=place % COLOURS,
                    dash=dash,
                    points=tuple(Point(x=row[x], y=row[accuracy], text=_told(row, x, accuracy)) for row in here),
                    legend=not dash,
                )
            )
    return chart(
        name,
        title,
        series,
        x="eps" if x == "eps" else "seconds a sample",
        y="accuracy (%)",
        log_x=x == "seconds",
        y_range=(0.0, 102.0),
        note="Solid: certified accuracy, a lower bound. Broken: adversarial accuracy, an upper bound.",
    ).with_numbers(rows_csv(rows))


def _told(row: dict[str, Any], x: str, accuracy: str) -> str:
    place = f"eps {decimals(row[x], 4)}" if x == "eps" else f"within {row[x]:.3g} s a sample"
    return f"{row['run']}, {place}: {accuracy} {row[accuracy]:.2f} %"


def time_chart(setting: Setting) -> Chart | None:
    """Accuracies over seconds of all runs of a setting; None if no sample was decided."""
    rows = list[dict[str, Any]]()
    for entry in setting.entries:
        for subject, one in entry.members:
            if isinstance(one.row.eps, int | float):
                rows += times_of(subject.name, one.settings, one.records)
    if not rows:
        return None
    name = f"seconds-{setting.name}"
    return curve_chart(name, f"Accuracy over seconds: {setting.title}", rows, "seconds")

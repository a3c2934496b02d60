"""Curves of runs: accuracies over the radius, and over the seconds that a sample may take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ctbench.report.curves import radius_rows, times_of
from ctbench.report.drawings import rows_csv
from ctbench.report.site.charts import COLOURS, Chart, Point, Series, chart
from ctbench.report.site.leaderboard import Setting
from ctbench.report.site.subjects import Subject, page_names
from ctbench.results.decimals import decimals

LEAST = 2  # radii, besides the natural accuracy at radius 0
Rows = list[dict[str, Any]]


def over_radii(subjects: Sequence[Subject]) -> dict[str, Rows]:
    """Rows of accuracies over the radius by their data set and norm, of runs with several radii or searches."""
    groups: dict[str, Rows] = {}
    for subject in subjects:
        for row in _radii_of(subject):
            groups.setdefault(row["setting"], []).append(row)
    return groups


def _radii_of(subject: Subject) -> Rows:
    if len(subject.certified) < LEAST and not subject.folder.searches():
        return []
    try:
        rows = radius_rows([subject.folder.path])
    except ValueError:  # certifications at several radii without a sample in common have no curve
        return []
    own = subject.folder.path.name
    named = [{**row, "run": subject.name + row["run"].removeprefix(own)} for row in rows]
    long = {row["run"] for row in named if sum(other["run"] == row["run"] for other in named) > LEAST}
    return [row for row in named if row["run"] in long]


def radius_charts(subjects: Sequence[Subject], name: str) -> list[Chart]:
    """A picture for each data set and norm."""
    groups = over_radii(subjects)
    names = page_names(groups, name)
    return [
        curve_chart(page.removesuffix(".html"), f"Accuracy over the radius: {setting}", rows, "eps")
        for page, (setting, rows) in zip(names, groups.items(), strict=True)
    ]


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

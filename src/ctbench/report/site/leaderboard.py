"""The leaderboard: a table for each data set, norm and radius, with means over seeds, and published results apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ctbench.report.comparison import duration, setting_title, shown_radius
from ctbench.report.drawings import rows_csv
from ctbench.report.fronts import dominates
from ctbench.report.grid import NOTHING
from ctbench.report.intervals import Spread
from ctbench.report.scatter import ACCURACIES
from ctbench.report.site.charts import Chart, Point, Series, chart, percents
from ctbench.report.site.subjects import Certified, Subject, page_names, settings_of
from ctbench.report.site.tables import OTHER_SAMPLES, Cell, Line, Remark, Table, count, mean_cell, percent, text
from ctbench.results import PublishedResult, Verdict, published_results
from ctbench.results.decimals import decimals

NOTE = (
    "± is half the width of a 95 % interval of the mean over seeds (Student's t): how training varies. A value is bold "
    "if its interval lies above those of all others of the table; single runs and ties are not bold."
)
FRONT_NOTE = "Faint: another run here is at least as good in both, and better in one."
PUBLISHED_NOTE = "Hollow: published, under other rules."
ACCURATE = ("method", "certified %", "natural %", "adversarial %", "open %")
ABOUT = ("samples", "remarks", "runs", "network", "train", "certify a sample")
LONGEST = 26  # letters of a label in a picture


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the leaderboard: a run, or runs that differ in their seeds alone."""

    method: str
    detail: str  # the fields of its recipe in which entries of this method differ
    members: tuple[tuple[Subject, Certified], ...]

    @property
    def label(self) -> str:
        """The method and its detail."""
        return f"{self.method}, {self.detail}" if self.detail else self.method

    @property
    def row(self) -> Any:
        return self.members[0][1].row

    def spread(self, accuracy: str) -> Spread:
        """In percent."""
        return Spread.of([100 * getattr(one.records, f"{accuracy}_accuracy") for _, one in self.members])

    @property
    def samples(self) -> int:
        """Of each run."""
        return len(self.members[0][1].records)

    def share(self, verdict: Verdict) -> float:
        counts = [one.records.counts[verdict] / max(1, len(one.records)) for _, one in self.members]
        return math.fsum(counts) / len(counts)

    @property
    def training_seconds(self) -> float | None:
        times = [one.row.training_seconds for _, one in self.members]
        known = [seconds for seconds in times if seconds is not None]
        return math.fsum(known) / len(known) if known else None

    @property
    def seconds_a_sample(self) -> float:
        """The mean over samples and runs."""
        return math.fsum(one.records.seconds for _, one in self.members) / max(
            1, sum(len(one.records) for _, one in self.members)
        )

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """What qualifies the numbers."""
        every = [one for _, one in self.members]
        remarks = []
        if any(one.row.selected_on_test for one in every):
            meaning = "the weights or the hyper-parameters were chosen by their accuracy on the test images: optimistic"
            remarks.append(Remark("chosen on test data", meaning))
        if unfinished := [one.unfinished for one in every if one.unfinished]:
            remarks.append(Remark("unfinished", "not all samples are certified yet", f"{', '.join(unfinished)} so far"))
        if any(one.bounds_only for one in every):
            meaning = "no stage searched until each sample was decided: a complete verifier may certify more"
            remarks.append(Remark("incomplete verifier", meaning))
        if late := sum(one.out_of_time for one in every):
            remarks.append(Remark("timeouts", "samples ran out of time, so they do not count as certified", str(late)))
        if failed := dict.fromkeys(failure.stage for one in every for failure in one.records.failures):
            remarks.append(Remark("errors", "stages failed on samples", ", ".join(failed)))
        return tuple(remarks)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A data set, a norm and a radius: the entries, and what is published."""

    name: str  # of its files and in its page
    dataset: str
    norm: str
    eps: Any
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        return setting_title(self.dataset, self.norm, self.eps)

    @property
    def published(self) -> list[PublishedResult]:
        """What papers say of this setting."""
        if not isinstance(self.eps, int | float):
            return []
        same = [each for each in published_results() if (each.dataset, each.norm) == (self.dataset, self.norm)]
        return [each for each in same if math.isclose(each.eps, self.eps, rel_tol=1e-6)]


def settings(subjects: Sequence[Subject]) -> list[Setting]:
    """The settings of all certifications."""
    groups = settings_of(subjects)
    rows = [members[0][1].row for members in groups.values()]
    names = page_names((f"{row.dataset} {row.norm} {shown_radius(row.eps).replace('/', 'of')}" for row in rows), "at")
    return [
        Setting(
            name=name.removesuffix(".html"),
            dataset=row.dataset,
            norm=row.norm,
            eps=row.eps,
            entries=_entries(members),
        )
        for row, name, members in zip(rows, names, groups.values(), strict=True)
    ]


def _entries(members: Sequence[tuple[Subject, Certified]]) -> tuple[Entry, ...]:
    groups: dict[Any, list[tuple[Subject, Certified]]] = {}
    for member in members:
        groups.setdefault(_alike(member[1]), []).append(member)
    parts = [part for group in groups.values() for part in _by_seed(group)]
    return tuple(
        Entry(method=part[0][1].row.method, detail=detail, members=tuple(part))
        for detail, part in zip(_details(parts), parts, strict=True)
    )


def _alike(certified: Certified) -> tuple[Any, ...]:
    """What runs that differ in their seeds alone have in common."""
    row = certified.row
    effort = [repr(certified.settings.get(name)) for name in ("stages", "timeout", "attack")]
    recipe = repr(sorted(row.parameters.items(), key=lambda item: item[0]))
    return row.network, row.named_method, recipe, *effort, certified.records.indices.tobytes(), certified.samples


def _by_seed(group: list[tuple[Subject, Certified]]) -> list[list[tuple[Subject, Certified]]]:
    """One part with all runs if their seeds are known and differ and all are finished, or a part for each run."""
    seeds = [member.row.seed for _, member in group]
    different = None not in seeds and len(set(map(repr, seeds))) == len(seeds)
    together = different and not any(member.unfinished for _, member in group)
    return [group] if together else [[member] for member in group]


def _details(parts: Sequence[Sequence[tuple[Subject, Certified]]]) -> list[str]:
    """For each part the fields of its recipe in which parts of its method differ."""
    firsts = [part[0][1].row for part in parts]
    details = []
    for row in firsts:
        rivals = [other for other in firsts if other.method == row.method]
        paths = dict.fromkeys(path for other in rivals for path in other.parameters)
        differ = [path for path in paths if len({repr(other.parameters.get(path)) for other in rivals}) > 1]
        parts_of = [path.removesuffix("name") for path in differ if path.endswith(".name")]  # each says what is in it
        inside = [path for path in differ if path.endswith(".name") or not path.startswith(tuple(parts_of))]
        values = {path.removesuffix(".name"): row.parameters.get(path) for path in inside}
        fields = [f"{path} {_value(value)}" for path, value in values.items() if value is not None]
        more = f", … {len(fields) - 3} more" if len(fields) > 3 else ""
        details.append(", ".join(fields[:3]) + more)
    return details


def _value(value: Any) -> str:
    return decimals(value, 4) if isinstance(value, float) else str(value)


def leaderboard(setting: Setting) -> Table:
    """The table of our runs, the best certified accuracy first."""
    order = sorted(setting.entries, key=lambda entry: [-entry.spread(name).mean for name in ("certified", "natural")])
    attacked = any(one.row.attacked for entry in order for _, one in entry.members)
    headings = (*ACCURATE, *(("attacked %",) if attacked else ()), *ABOUT)
    lines = [_line(entry, order, attacked=attacked) for entry in order]
    several = len({one.records.indices.tobytes() for entry in order for _, one in entry.members}) > 1
    notes = [OTHER_SAMPLES] if several else []
    notes += [NOTE] if any(len(entry.members) > 1 for entry in order) else []
    return Table(
        name=f"leaderboard-{setting.name}",
        caption="Runs of this report",
        headings=headings,
        texts=[headings.index(name) for name in ("method", "remarks", "runs", "network")],
        lines=tuple(lines),
        note=" ".join(notes),
        order=headings.index("certified %"),
        csv=rows_csv([_numbers(entry) for entry in order]),
    )


def _line(entry: Entry, rivals: Sequence[Entry], *, attacked: bool) -> Line:
    row = entry.row
    cells = [
        Cell(text=entry.method, detail=entry.detail),
        *(_mean(entry, rivals, accuracy) for accuracy in ("certified", "natural", "adversarial")),
        percent(entry.share(Verdict.UNKNOWN)),
    ]
    if attacked:
        rates = [one.row.attacked.adversarial_accuracy for _, one in entry.members if one.row.attacked]
        cells.append(percent(math.fsum(rates) / len(rates) if rates else None))
    cells += [
        count(entry.samples),
        Cell(text=", ".join(remark.word for remark in entry.remarks) or NOTHING, remarks=entry.remarks),
        _runs(entry),
        text(row.network),
        _time(entry.training_seconds),
        _time(entry.seconds_a_sample),
    ]
    return Line(cells=tuple(cells), facts={"method": row.method, "network": row.network})


def _runs(entry: Entry) -> Cell:
    if len(entry.members) == 1:
        subject = entry.members[0][0]
        return Cell(text=subject.name, links=((subject.name, subject.page),))
    links = tuple((f"seed {one.row.seed}", subject.page) for subject, one in entry.members)
    return Cell(text=f"{len(links)} seeds", value=len(links), links=links)


def _mean(entry: Entry, rivals: Sequence[Entry], accuracy: str) -> Cell:
    return mean_cell(entry.spread(accuracy), [other.spread(accuracy) for other in rivals if other is not entry])


def _time(seconds: float | None) -> Cell:
    if seconds is None:
        return Cell(text=NOTHING)
    return Cell(text=duration(seconds) if seconds >= 0.1 else f"{1000 * seconds:.1f} ms", value=seconds)


def _numbers(entry: Entry) -> dict[str, Any]:
    """The numbers of an entry, for a CSV file."""
    row = entry.row
    numbers: dict[str, Any] = {
        "dataset": row.dataset,
        "norm": row.norm,
        "eps": row.eps,
        "method": entry.label,
        "network": row.network,
        "runs": " ".join(subject.name for subject, _ in entry.members),
        "seeds": len(entry.members),
        "samples": entry.samples,
    }
    for accuracy in ACCURACIES:
        spread = entry.spread(accuracy)
        numbers |= {f"{accuracy} %": spread.mean, f"{accuracy} s": spread.deviation, f"{accuracy} ±": spread.half}
    return numbers | {
        "open %": 100 * entry.share(Verdict.UNKNOWN),
        "training seconds": entry.training_seconds,
        "seconds a sample": entry.seconds_a_sample,
        "remarks": "; ".join(remark.word for remark in entry.remarks),
    }


def published_table(setting: Setting) -> Table | None:
    """What papers say of the setting; None if there is nothing."""
    results = setting.published
    if not results:
        return None
    lines = [
        Line(
            cells=(
                text(result.method),
                text(result.by),
                text(f"{result.paper}, {result.table}"),
                *(_published(getattr(result.accuracies, accuracy)) for accuracy in ACCURACIES),
            ),
            facts={"method": result.method.lower()},
        )
        for result in sorted(results, key=lambda result: -(result.accuracies.certified or 0.0))
    ]
    return Table(
        name=f"published-{setting.name}",
        caption="Published results",
        headings=("method", "by", "printed in", *(f"{accuracy} %" for accuracy in ACCURACIES)),
        texts=range(3),
        lines=tuple(lines),
        note="Other networks, other verifiers, and as a rule the whole test set.",
        order=5,
        kind="published",
    )


def _published(value: float | None) -> Cell:
    return Cell(text=NOTHING) if value is None else Cell(text=f"{value:.2f}", value=value)


def colours(subjects: Sequence[Subject]) -> dict[str, int]:
    """A number for the colour of each method, in the order in which they appear."""
    return {name: place for place, name in enumerate(dict.fromkeys(subject.about.method for subject in subjects))}


def front_chart(setting: Setting, numbers: dict[str, int]) -> Chart | None:
    """Certified over natural accuracy; None if there is no single radius, or only one mark."""
    if not isinstance(setting.eps, int | float):
        return None
    places = [(entry.spread("natural").mean, entry.spread("certified").mean) for entry in setting.entries]
    ours = [_entry_point(entry, place, places) for entry, place in zip(setting.entries, places, strict=True)]
    others = list(dict.fromkeys(point for each in setting.published for point in _published_points(each)))
    by_method: dict[str, list[Point]] = {}
    for entry, point in zip(setting.entries, ours, strict=True):
        by_method.setdefault(entry.row.method, []).append(point)
    series = [
        Series(name=method, kind="marks", points=tuple(points), colour=numbers[method])
        for method, points in by_method.items()
    ]
    series += [Series(name="published", kind="marks", points=tuple(others), hollow=True)] if others else []
    if len(ours) + len(others) < 2:
        return None
    return chart(
        f"front-{setting.name}",
        f"Certified against natural accuracy: {setting.title}",
        series,
        x="natural accuracy (%)",
        y="certified accuracy (%)",
        x_range=percents([(one.x, one.spread[0] if one.spread else 0.0) for one in ours], [one.x for one in others]),
        y_range=percents([(one.y, one.spread[1] if one.spread else 0.0) for one in ours], [one.y for one in others]),
        front=[place for place in places if not any(dominates(other, place) for other in places)],
        note=f"{FRONT_NOTE} {PUBLISHED_NOTE}" if others else FRONT_NOTE,
    ).with_numbers(front_csv(setting))


def _entry_point(entry: Entry, place: tuple[float, float], places: Sequence[tuple[float, float]]) -> Point:
    natural, certified = entry.spread("natural"), entry.spread("certified")
    half = (natural.half, certified.half)
    seeds = f", mean of {len(entry.members)} seeds" if len(entry.members) > 1 else ""
    said = [f"{name} {_with_half(spread)} %" for name, spread in (("natural", natural), ("certified", certified))]
    beaten = any(dominates(other, place) for other in places)
    return Point(
        x=place[0],
        y=place[1],
        text=f"{entry.label}{seeds}: {', '.join(said)}{', dominated' if beaten else ', on the front'}",
        label=entry.label if len(entry.label) <= LONGEST else entry.method,
        href=entry.members[0][0].page,
        faint=beaten,
        spread=None if half[0] is None or half[1] is None else (half[0], half[1]),
    )


def _with_half(spread: Spread) -> str:
    return f"{spread.mean:.2f}" + ("" if spread.half is None else f" ± {spread.half:.2f}")


def _published_points(result: PublishedResult) -> Iterator[Point]:
    """The point of a published result, if the paper gives its certified accuracy."""
    natural, certified = result.accuracies.natural, result.accuracies.certified
    if certified is not None:
        said = f"natural {natural:.2f} %, certified {certified:.2f} %"
        yield Point(x=natural, y=certified, text=f"published: {result.method} by {result.by}, {said}")


def front_csv(setting: Setting) -> str:
    """The numbers of the chart."""
    places = [(entry.spread("natural").mean, entry.spread("certified").mean) for entry in setting.entries]
    rows = [
        _numbers(entry) | {"by": "here", "on the front": "no" if any(dominates(o, place) for o in places) else "yes"}
        for entry, place in zip(setting.entries, places, strict=True)
    ]
    about = {"dataset": setting.dataset, "norm": setting.norm, "eps": setting.eps}
    rows += [
        {**about, "method": each.method, "by": each.by}
        | {f"{accuracy} %": getattr(each.accuracies, accuracy) for accuracy in ACCURACIES}
        for each in setting.published
    ]
    return rows_csv(rows)

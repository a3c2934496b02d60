"""The leaderboard: a table for each data set, norm and radius, with means over seeds, and published results apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ctbench.report.comparison import duration, setting_title, shown_radius
from ctbench.report.drawings import rows_csv
from ctbench.report.grid import NOTHING
from ctbench.report.intervals import Spread
from ctbench.report.scatter import ACCURACIES
from ctbench.report.site.charts import Chart, Point, Series, chart, percents
from ctbench.report.site.subjects import Certified, Subject, page_names, settings_of
from ctbench.report.site.tables import OTHER_SAMPLES, Cell, Line, Remark, Table, count, mean_cell, percent, text
from ctbench.results import PublishedResult, Verdict, published_results
from ctbench.results.decimals import decimals
from ctbench.results.fronts import dominates

NOTE = (
    "± is half the width of a 95 % interval of the mean over seeds (Student's t): how training varies. A value is bold "
    "if its interval lies above those of all others of the table; single runs and ties are not bold."
)
FRONT_NOTE = "Faint: another run here is at least as good in both, and better in one."
PUBLISHED_NOTE = "Hollow: published, under other rules."
ACCURATE = ("method", "certified %", "natural %", "adversarial %", "open %")
ABOUT = ("samples", "remarks", "runs", "network", "train", "certify a sample")
LONGEST = 26  # letters of a label in a picture


@dataclass(frozen=True, eq=False, kw_only=True)
class Entry:
    """A line of the leaderboard: a run, or runs that differ in their seeds alone."""

    method: str
    fields: str  # of its recipe, in which entries of this method differ
    detail: str  # the first of them, or all if these do not tell entries apart
    members: tuple[tuple[Subject, Certified], ...]

    @property
    def label(self) -> str:
        """The method and its detail."""
        return f"{self.method}, {self.detail}" if self.detail else self.method

    @property
    def full_label(self) -> str:
        """The method and all fields."""
        return f"{self.method}, {self.fields}" if self.fields else self.method

    @property
    def row(self) -> Any:
        return self.members[0][1].row

    def spread(self, accuracy: str) -> Spread:
        """In percent."""
        return Spread.of([100 * getattr(one.records, f"{accuracy}_accuracy") for _, one in self.members])

    @property
    def place(self) -> tuple[float, float]:
        """Natural and certified accuracy, in percent."""
        return self.spread("natural").mean, self.spread("certified").mean

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
        if any(one.row.bounds_only for one in every):
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
    def is_comparable(self) -> bool:
        """Whether all entries are about the same samples and the same threat model."""
        return len({(one.row.threat, one.samples) for entry in self.entries for _, one in entry.members}) < 2

    def dominates(self, one: Entry, other: Entry) -> bool:
        """Whether an entry is on the front before another one, both of the same samples and threat model."""
        first, second = one.members[0][1], other.members[0][1]
        same = (first.row.threat, first.samples) == (second.row.threat, second.samples)
        return same and dominates(one.place, other.place)

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
    methods, fields = [part[0][1].row.method for part in parts], _fields(parts)
    short = [", ".join(each[:3]) + (f", … {len(each) - 3} more" if len(each) > 3 else "") for each in fields]
    same = Counter(zip(methods, short, strict=True))
    return tuple(
        Entry(
            method=method,
            fields=", ".join(each),
            detail=detail if same[method, detail] == 1 else ", ".join(each),
            members=tuple(part),
        )
        for method, each, detail, part in zip(methods, fields, short, parts, strict=True)
    )


def _alike(certified: Certified) -> tuple[Any, ...]:
    """What runs that differ in their seeds alone have in common."""
    row = certified.row
    recipe = repr(sorted(row.parameters.items(), key=lambda item: item[0]))
    return row.network, row.named_method, recipe, *row.verification.items(), row.samples


def _by_seed(group: list[tuple[Subject, Certified]]) -> list[list[tuple[Subject, Certified]]]:
    """One part with all runs if their seeds are known and differ and all are finished, or a part for each run."""
    seeds = [member.row.seed for _, member in group]
    different = None not in seeds and len(set(map(repr, seeds))) == len(seeds)
    together = different and not any(member.unfinished for _, member in group)
    return [group] if together else [[member] for member in group]


def _fields(parts: Sequence[Sequence[tuple[Subject, Certified]]]) -> list[list[str]]:
    """For each part the fields of its recipe in which parts of its method differ."""
    firsts = [part[0][1].row for part in parts]
    fields = []
    for row in firsts:
        rivals = [other for other in firsts if other.method == row.method]
        paths = dict.fromkeys(path for other in rivals for path in other.parameters)
        differ = [path for path in paths if len({repr(other.parameters.get(path)) for other in rivals}) > 1]
        parts_of = [path.removesuffix("name") for path in differ if path.endswith(".name")]  # each says what is in it
        inside = [path for path in differ if path.endswith(".name") or not path.startswith(tuple(parts_of))]
        values = {path.removesuffix(".name"): row.parameters.get(path) for path in inside}
        fields.append([f"{path} {_value(value)}" for path, value in values.items() if value is not None])
    return fields


def _value(value: Any) -> str:
    return decimals(value, 4) if isinstance(value, float) else str(value)


def leaderboard(setting: Setting) -> Table:
    """The table of our runs, the best certified accuracy first."""
    order = sorted(setting.entries, key=lambda entry: [-entry.spread(name).mean for name in ("certified", "natural")])
    attacked = any(one.row.attacked for entry in order for _, one in entry.members)
    headings = (*ACCURATE, *(("attacked %",) if attacked else ()), *ABOUT)
    lines = [_line(entry, order if setting.is_comparable else [], attacked=attacked) for entry in order]
    notes = [] if setting.is_comparable else [OTHER_SAMPLES]
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
        "method": entry.full_label,
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
    best = _front(setting)
    ours = [_entry_point(entry, beaten=entry not in best) for entry in setting.entries]
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
        front=[entry.place for entry in best] if setting.is_comparable else (),
        note=" ".join(
            [FRONT_NOTE, *([PUBLISHED_NOTE] if others else []), *([] if setting.is_comparable else [OTHER_SAMPLES])]
        ),
    ).with_numbers(front_csv(setting))


def _front(setting: Setting) -> list[Entry]:
    """The entries that no other one dominates."""
    return [one for one in setting.entries if not any(setting.dominates(other, one) for other in setting.entries)]


def _entry_point(entry: Entry, *, beaten: bool) -> Point:
    natural, certified = entry.spread("natural"), entry.spread("certified")
    half = (natural.half, certified.half)
    seeds = f", mean of {len(entry.members)} seeds" if len(entry.members) > 1 else ""
    said = [f"{name} {_with_half(spread)} %" for name, spread in (("natural", natural), ("certified", certified))]
    return Point(
        x=natural.mean,
        y=certified.mean,
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
    best = _front(setting)
    rows = [
        _numbers(entry) | {"by": "here", "on the front": "yes" if entry in best else "no"} for entry in setting.entries
    ]
    about = {"dataset": setting.dataset, "norm": setting.norm, "eps": setting.eps}
    rows += [
        {**about, "method": each.method, "by": each.by}
        | {f"{accuracy} %": getattr(each.accuracies, accuracy) for accuracy in ACCURACIES}
        for each in setting.published
    ]
    return rows_csv(rows)

"""Pictures of an analysis at one radius, of one run or of several: bars, curves, histograms, layers and scatters.

A picture of one run has a series for each quantity. Of several runs, there is a picture for each quantity, with a
series for each run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ctbench.report.analyses import LAYER, Pairs
from ctbench.report.drawings import rows_csv
from ctbench.report.site.charts import Chart, Point, Series, chart
from ctbench.report.site.subjects import slug
from ctbench.results import Layout, Measurements, Summary
from ctbench.results.decimals import decimals

BINS = 24  # of a histogram
FEW = 4  # quantities that have room as bars
MOST_MARKS = 20  # of a line: more of them hide it
NUMBERED = re.compile(rf"{LAYER}(\d+): (.+)")  # a quantity of a layer that has a number
Places = Sequence[tuple[float, float]]  # of a curve, x and y


@dataclass(frozen=True, kw_only=True)
class Member:
    """A run in the pictures of an analysis.

    Args:
        name: of the run.
        page: that its marks lead to, another one for each run; "" on the page of the run itself.
        measurements: what the analysis measured.
        certified: the certified accuracy at the same radius, in [0, 1], if the run has one.
    """

    name: str
    page: str = ""
    measurements: Measurements
    certified: float | None = None


@dataclass(frozen=True, kw_only=True)
class Subtitled:
    """What the pictures of an analysis have in common: the start of their file names, the radius, and the layout."""

    name: str
    eps: float
    layout: Layout

    def titled(self, words: str) -> str:
        return f"{capital(words)}, eps {decimals(self.eps, 4)}"


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a picture of curves looks: the end of its file name, its title, the kind of its series, and its axes."""

    part: str
    title: str
    kind: Literal["line", "steps", "marks"]
    x: str
    y: str
    log_x: bool = False
    log_y: bool = False
    whole_x: bool = False
    from_zero: bool = False  # whether the y axis begins at 0


def analysis_charts(members: Sequence[Member], eps: float, layout: Layout | None, name: str) -> list[Chart]:
    """The pictures of some runs with records at a radius.

    Args:
        members: at least one.
        eps: the radius.
        layout: of the figure of the analysis; None: `layout_of` the first run.
        name: of the files, without their ending.
    """
    drawn = Subtitled(name=name, eps=eps, layout=layout or layout_of(members[0].measurements, eps))
    return [*DRAWINGS[drawn.layout.kind](members, drawn), *_layers(members, drawn)]


def layout_of(measurements: Measurements, eps: float) -> Layout:
    """A layout for an analysis that has none: lines over its axis, or a histogram of its first quantity.

    Its quantities may have several units, so they are not drawn together.
    """
    places = [x for x in measurements.places(eps) if x is not None]
    if places:
        return Layout(kind="lines", quantities=tuple(overall(measurements, eps, places[0])), label="mean", x_label="x")
    first = overall(measurements, eps, None)[:1]
    return Layout(kind="histogram", quantities=tuple(first), label="".join(first))


def overall(measurements: Measurements, eps: float, x: float | None) -> list[str]:
    """The quantities at a place that have a mean, without those of single layers."""
    names = measurements.quantities(eps, x) if x in measurements.places(eps) else []
    means = {name: measurements.mean(name, eps, x) for name in names if not name.startswith(LAYER)}
    return [name for name, mean in means.items() if math.isfinite(mean)]


def place_of(measurements: Measurements, eps: float) -> float | None:
    """The place that stands for all: None if there are quantities without a place, else the last one of the axis."""
    return None if overall(measurements, eps, None) else measurements.places(eps)[-1]


def shown(summary: Summary) -> str:
    """A mean with its standard error, if it has one."""
    return f"{summary.mean:.4g}" + ("" if math.isnan(summary.error) else f" ± {summary.error:.2g}")


def capital(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"


def _bars(members: Sequence[Member], drawn: Subtitled) -> Iterator[Chart]:
    """A group of bars for each quantity, a bar for each run."""
    has = [overall(one.measurements, drawn.eps, None) for one in members]
    every = list(dict.fromkeys(name for names in has for name in names))
    quantities = every if len(every) <= FEW else [name for name in drawn.layout.quantities if name in every]
    if len(quantities) * len(members) < 2:
        return
    width, series, rows = 0.8 / len(members), list[Series](), list[dict[str, str | float]]()
    for place, one in enumerate(members):
        points = []
        for group, quantity in enumerate(quantities):
            if quantity in has[place]:
                summary = one.measurements.summary(quantity, drawn.eps)
                text = f"{one.name}, {quantity}: {shown(summary)}"
                middle = group + (place + 0.5) * width - 0.4
                points.append(Point(x=middle, y=summary.mean, text=text, href=one.page))
                rows.append({"run": one.name, "quantity": quantity, "mean": summary.mean, "error": summary.error})
        series.append(Series(name=one.name, kind="bars", colour=place, width=0.94 * width, points=tuple(points)))
    values = [point.y for one in series for point in one.points]
    yield chart(
        f"{drawn.name}-bars",
        drawn.titled(drawn.layout.label),
        series,
        x="",
        y=drawn.layout.label,
        x_range=(-0.6, len(quantities) - 0.4),
        y_range=(1.08 * min(0.0, *values), 1.08 * max(0.0, *values) or 1.0),
        categories=quantities,
    ).with_numbers(rows_csv(rows))


def _lines(members: Sequence[Member], drawn: Subtitled) -> Iterator[Chart]:
    """The means over the axis."""
    layout = drawn.layout

    def places(one: Member, quantity: str) -> Places:
        measurements = one.measurements
        axis = [x for x in measurements.places(drawn.eps) if x is not None]
        there = [x for x in axis if quantity in measurements.quantities(drawn.eps, x)]
        return [(x, measurements.mean(quantity, drawn.eps, x)) for x in there]

    look = Look(
        part="lines",
        title=layout.label,
        kind="line",
        x=layout.x_label,
        y=layout.label,
        log_x=layout.log,
        log_y=layout.log,
    )
    return _curves(members, drawn, layout.quantities, places, look)


def _histograms(members: Sequence[Member], drawn: Subtitled) -> Iterator[Chart]:
    """How the numbers of the samples are distributed, in bins that all series have in common."""
    label, quantities = drawn.layout.label, drawn.layout.quantities
    values = [value for one in members for name in quantities for value in _values(one.measurements, name, drawn.eps)]
    if not values:
        return iter(())
    low, high = min(values), max(values)
    width = (high - low) / BINS or 1.0

    def places(one: Member, quantity: str) -> Places:
        numbers, counts = _values(one.measurements, quantity, drawn.eps), [0] * BINS
        for value in numbers:
            counts[min(BINS - 1, int((value - low) / width))] += 1
        shares = [100 * count / max(1, len(numbers)) for count in counts]
        return [(low + place * width, share) for place, share in enumerate([*shares, 0.0])] if numbers else []

    look = Look(part="samples", title=f"samples by {label}", kind="steps", x=label, y="samples (%)", from_zero=True)
    return _curves(members, drawn, quantities, places, look)


def _values(measurements: Measurements, quantity: str, eps: float) -> list[float]:
    """The numbers of the samples; none of a whole part, or if samples are counted: each is 0 or 1."""
    if quantity not in overall(measurements, eps, None):
        return []
    numbers = [value for value in measurements.values(quantity, eps) if math.isfinite(value)]
    return numbers if len(set(numbers)) > 2 else []


def _scatter(members: Sequence[Member], drawn: Subtitled) -> Iterator[Chart]:
    """The certified accuracy over a quantity, a mark for each run; and the histograms of the quantity."""
    (quantity,) = drawn.layout.quantities
    marks = [
        (one, one.measurements.mean(quantity, drawn.eps), one.certified)
        for one in members
        if one.certified is not None and quantity in overall(one.measurements, drawn.eps, None)
    ]
    if len(marks) > 1:
        yield _against_certified(marks, quantity, drawn)
    yield from _histograms(members, drawn)


def _against_certified(marks: Sequence[tuple[Member, float, float]], quantity: str, drawn: Subtitled) -> Chart:
    series = []
    for place, (one, x, accuracy) in enumerate(marks):
        text = f"{one.name}: {quantity} {x:.4g}, certified {100 * accuracy:.2f} %"
        point = Point(x=x, y=100 * accuracy, text=text, href=one.page)
        series.append(Series(name=one.name, kind="marks", colour=place, points=(point,)))
    pairs = Pairs(
        eps=drawn.eps,
        quantity=quantity,
        accuracy="certified",
        runs=tuple(one.name for one, _, _ in marks),
        values=tuple(x for _, x, _ in marks),
        accuracies=tuple(accuracy for _, _, accuracy in marks),
    )
    rows = [{"run": one.name, quantity: x, "certified %": 100 * accuracy} for one, x, accuracy in marks]
    return chart(
        f"{drawn.name}-scatter",
        drawn.titled(f"certified accuracy against {quantity}"),
        series,
        x=drawn.layout.label,
        y="certified accuracy (%)",
        note=f"{capital(str(pairs))}." if len(marks) > 2 else "",
    ).with_numbers(rows_csv(rows))


def _layers(members: Sequence[Member], drawn: Subtitled) -> Iterator[Chart]:
    """The quantities of single layers; of several runs only those of the figure."""
    by_layer = {one.page: _by_layer(one.measurements, drawn.eps) for one in members}
    quantities = list(dict.fromkeys(name for one in by_layer.values() for name in one))
    if len(members) > 1:
        quantities = [name for name in quantities if name in drawn.layout.quantities]
    layers = [{layer for means in one.values() for layer in means} for one in by_layer.values()]
    if max(map(len, layers)) < 2:
        return iter(())
    whole = all(
        set(means) == there for one, there in zip(by_layer.values(), layers, strict=True) for means in one.values()
    )

    def places(one: Member, quantity: str) -> Places:
        return sorted(by_layer[one.page].get(quantity, {}).items())

    label, at = drawn.layout.label, place_of(members[0].measurements, drawn.eps)
    where = "" if at is None else f" at {drawn.layout.x_label or 'x'} {at:g}"
    kind: Literal["line", "marks"] = "line" if whole else "marks"
    look = Look(
        part="layers",
        title=f"{label} by layer{where}",
        kind=kind,
        x="layer",
        y=label,
        log_y=drawn.layout.log,
        whole_x=True,
    )
    return _curves(members, drawn, quantities, places, look)


def _by_layer(measurements: Measurements, eps: float) -> dict[str, dict[int, float]]:
    """The means of single layers by quantity and layer, at the place that stands for all."""
    place, means = place_of(measurements, eps), dict[str, dict[int, float]]()
    for name in measurements.quantities(eps, place):
        if match := NUMBERED.fullmatch(name):
            means.setdefault(match[2], {})[int(match[1])] = measurements.mean(name, eps, place)
    return means


def _curves(
    members: Sequence[Member],
    drawn: Subtitled,
    quantities: Sequence[str],
    places: Callable[[Member, str], Places],
    look: Look,
) -> Iterator[Chart]:
    """A picture of all quantities of one run; or a picture for each quantity, of all runs."""
    several = len(members) > 1
    for shown_here in [[name] for name in quantities] if several else [list(quantities)]:
        series, rows = list[Series](), list[dict[str, str | float]]()
        for colour, (one, quantity) in enumerate((one, name) for one in members for name in shown_here):
            name = one.name if several else quantity
            pairs = [place for place in places(one, quantity) if _fits(place, look)]
            points = [Point(x=x, y=y, text=f"{name}, {look.x} {x:.4g}: {y:.4g}", href=one.page) for x, y in pairs]
            if points:
                kind = "curve" if look.kind == "line" and len(points) > MOST_MARKS else look.kind
                series.append(Series(name=name, kind=kind, colour=colour, points=tuple(points)))
            rows += [{"run": one.name, "quantity": quantity, look.x: x, look.y: y} for x, y in pairs]
        if series:
            only = shown_here[0] if several and len(quantities) > 1 else ""
            highest = max(point.y for one in series for point in one.points)
            yield chart(
                f"{drawn.name}-{slug(look.part, only) if only else look.part}",
                drawn.titled(f"{look.title}: {only}" if only else look.title),
                series,
                x=look.x,
                y=look.y,
                log_x=look.log_x,
                log_y=look.log_y,
                whole_x=look.whole_x,
                y_range=(0.0, 1.08 * highest or 1.0) if look.from_zero else None,
            ).with_numbers(rows_csv(rows))


def _fits(place: tuple[float, float], look: Look) -> bool:
    """Whether a place can be drawn: a logarithmic axis has no place for 0."""
    axes = zip(place, (look.log_x, look.log_y), strict=True)
    return all(math.isfinite(value) and (value > 0 or not log) for value, log in axes)


Drawing = Callable[[Sequence[Member], Subtitled], Iterator[Chart]]
DRAWINGS: Mapping[str, Drawing] = {"bars": _bars, "lines": _lines, "histogram": _histograms, "scatter": _scatter}

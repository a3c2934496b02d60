"""Charts as geometry: where the axes, marks, lines and bars of an SVG picture lie. A template draws them.

Each point has a text with its numbers, which a page shows when a pointer or the keyboard is on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ctbench.report.site.tables import File

WIDTH, HEIGHT = 480.0, 330.0  # of a picture, in units of which a letter is about 6 wide
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 14.0, 46.0  # margins around the area of the data
COLOURS = 8  # of series, in the style sheet
SHAPES = 3  # of marks, in the template
DASHES = ("", "6 3", "2 3")
LETTER, LINE = 5.9, 12.0  # the size of a letter of a label
OFF = 4.0  # a value is off the scale if it is this many times further from the median than half of the others
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Tick:
    place: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis from `low` to `high`, drawn from `start` to `stop`."""

    label: str
    low: float
    high: float
    start: float
    stop: float
    log: bool = False
    whole: bool = False  # whether its values are whole numbers, e.g. of layers

    def place(self, value: float) -> float:
        """Where a value lies; values off the scale lie at its ends."""
        low, high, value = (math.log10(x) if self.log else x for x in (self.low, self.high, max(value, self._least)))
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return round(self.start + share * (self.stop - self.start), 2)

    @property
    def _least(self) -> float:
        return self.low if self.log else -math.inf

    @property
    def ticks(self) -> list[Tick]:
        values = _decades(self.low, self.high) if self.log else []
        if len(values) < 2:  # also of a logarithmic axis between two powers of ten
            values = _round_values(self.low, self.high, least=1.0 if self.whole else 0.0)
        return [Tick(self.place(value), f"{value:.6g}") for value in values]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten from low to high; where these are few, also twice and five times these."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, round((last - first) / 6))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    values = [float(f"{factor}e{power}") for power in range(first, last + 1, stride) for factor in factors]
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def _round_values(low: float, high: float, *, least: float = 0.0) -> list[float]:
    """Between about four and seven round numbers from low to high, or fewer that are `least` apart."""
    step = max(least, _step(low, high))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _step(low: float, high: float) -> float:
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a series, in the units of the data; `text` says its numbers."""

    x: float
    y: float
    text: str
    label: str = ""
    href: str = ""
    faint: bool = False
    spread: tuple[float, float] | None = None  # half the widths of the intervals of x and y
    floor: float = 0.0  # of a bar: where it begins


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that belong together.

    Args:
        name: in the legend.
        points: in the order in which the arrow keys walk over them.
        kind: "marks", "line" (with marks), "curve" and "steps" (without), or "bars".
        colour: the number of a colour; beyond the last colour, marks have another shape.
        dash: the number of a pattern of its line.
        hollow: whether its marks are hollow, for what others published.
        width: of bars, in units of x.
    """

    name: str
    points: tuple[Point, ...]
    kind: str = "line"
    colour: int = 0
    dash: int = 0
    hollow: bool = False
    width: float = 1.0
    legend: bool = True  # whether it has a place in the legend


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A point as it is drawn."""

    x: float
    y: float
    text: str
    href: str = ""
    faint: bool = False
    off: bool = False  # whether it lies off the scale, so that it is drawn at its edge
    label: str = ""
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"
    bars: Box | None = None  # x from, x to, y from, y to of the interval
    box: Box | None = None  # left, top, width, height of a bar


@dataclass(frozen=True, kw_only=True)
class Path:
    """A series as it is drawn."""

    name: str
    kind: str
    colour: int
    shape: int
    dash: str
    hollow: bool
    legend: bool
    points: tuple[Drawn, ...]
    line: str = ""  # of an SVG path

    @property
    def tips(self) -> list[tuple[float, float, str, str, float]]:
        """Place, text and link of each point; and of a bar, half its width."""
        return [(p.x, p.y, p.text, p.href, p.box[2] / 2 + 1 if p.box else 0.0) for p in self.points]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture.

    Args:
        name: of its files.
        title: its caption.
        x, y: the axes.
        paths: the series.
        note: how to read it.
        front: a line around the area that marks dominate, as an SVG path.
        categories: texts instead of ticks on the x axis.
        files: its numbers.
    """

    name: str
    title: str
    x: Axis
    y: Axis
    paths: tuple[Path, ...]
    note: str = ""
    front: str = ""
    categories: tuple[Tick, ...] = ()
    files: tuple[File, ...] = ()
    width: float = WIDTH
    height: float = HEIGHT

    @property
    def legends(self) -> list[Path]:
        """The series of the legend: none if there is only one."""
        shown = [path for path in self.paths if path.legend]
        return shown if len(shown) > 1 or any(path.hollow for path in shown) else []

    def with_numbers(self, content: str) -> Chart:
        """The same picture with a CSV file."""
        return replace(self, files=(File(f"{self.name}.csv", content),))


def chart(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
    whole_x: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    categories: Sequence[str] = (),
    front: Sequence[tuple[float, float]] = (),
    note: str = "",
) -> Chart:
    """The picture of some series.

    Args:
        name, title, note: as for `Chart`.
        series: at least one, with at least one point each.
        x, y: labels of the axes.
        log_x, log_y: whether an axis is logarithmic.
        whole_x: whether the values of x are whole numbers.
        x_range, y_range: the ends of the axes; None: around the points.
        categories: texts at x = 0, 1, 2 ... instead of numbers; those that are too long for their place are cut off.
        front: points in whose direction to the lower left a line goes around, from left to right.
    """
    points = [point for one in series for point in one.points]
    low, high = x_range or _room([point.x for point in points], log=log_x)
    across = Axis(label=x, low=low, high=high, start=LEFT, stop=WIDTH - RIGHT, log=log_x, whole=whole_x)
    low, high = y_range or _room([point.y for point in points], log=log_y)
    up = Axis(label=y, low=low, high=high, start=HEIGHT - BOTTOM, stop=TOP, log=log_y)
    paths = _labelled([_drawn(one, across, up) for one in series])
    return Chart(
        name=name,
        title=title,
        x=across,
        y=up,
        paths=tuple(paths),
        note=note,
        front=_front(front, across, up) if front else "",
        categories=tuple(
            Tick(across.place(place), _cut(text, (across.stop - across.start) / len(categories)))
            for place, text in enumerate(categories)
        ),
    )


def _cut(text: str, width: float) -> str:
    """A text that fits into a width."""
    letters = max(2, int(width / LETTER))
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _room(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """The ends of an axis around values; a logarithmic one shows those above 0."""
    return _around_in_decades([value for value in values if value > 0] or [1.0]) if log else _around(values)


def _around(values: Sequence[float]) -> tuple[float, float]:
    """A range with some room around values."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _around_in_decades(values: Sequence[float]) -> tuple[float, float]:
    """The same on a logarithmic axis."""
    low, high = min(values), max(values)
    room = (high / low) ** 0.06 if high > low else 2.0
    return low / room, high * room


def percents(values: Sequence[tuple[float, float]], others: Sequence[float] = ()) -> tuple[float, float]:
    """A range of percents around values, without those of them that are far below the others.

    Args:
        values: at least one, with half the widths of their intervals.
        others: values that are all inside.
    """
    ordered = sorted(value for value, _ in values)
    median = ordered[len(ordered) // 2]
    distances = sorted(abs(value - median) for value in ordered)
    far = OFF * max(distances[len(distances) // 2], 1.0)
    near = [(value, half) for value, half in values if value >= median - far]
    low, high = min(value - half for value, half in near), max(value + half for value, half in near)
    low, high = _around([max(0.0, min(low, *others, low)), min(100.0, max(high, *others, high))])
    return max(-2.0, -0.08 * high, low), min(101.0, high)  # no marks of the scale below 0 or above 100


def _drawn(series: Series, x: Axis, y: Axis) -> Path:
    points = tuple(_point(series, point, x, y) for point in series.points)
    places = [f"{point.x:g} {point.y:g}" for point in points]
    if series.kind == "steps":
        line = "M" + "".join(_stair(points))
    else:
        line = f"M{' L'.join(places)}" if series.kind in ("line", "curve") else ""
    return Path(
        name=series.name,
        kind=series.kind,
        colour=series.colour % COLOURS,
        shape=series.colour // COLOURS % SHAPES,
        dash=DASHES[series.dash % len(DASHES)],
        hollow=series.hollow,
        legend=series.legend,
        points=points,
        line=line,
    )


def _stair(points: Sequence[Drawn]) -> Iterator[str]:
    """A line that stays at a height until the next point."""
    for number, point in enumerate(points):
        yield f"{point.x:g} {point.y:g}" if number == 0 else f"H{point.x:g}V{point.y:g}"


def _point(series: Series, point: Point, x: Axis, y: Axis) -> Drawn:
    at, height = x.place(point.x), y.place(point.y)
    spread = box = None
    if point.spread is not None:
        half, tall = point.spread
        spread = x.place(point.x - half), x.place(point.x + half), y.place(point.y - tall), y.place(point.y + tall)
    if series.kind == "bars":
        left, right = x.place(point.x - series.width / 2), x.place(point.x + series.width / 2)
        base = y.place(point.floor)
        box = left, min(height, base), max(right - left - 1, 1.0), abs(base - height)
    return Drawn(
        x=at,
        y=height,
        text=point.text,
        href=point.href,
        faint=point.faint,
        off=not (y.low <= point.y <= y.high and x.low <= point.x <= x.high) and series.kind == "marks",
        label=point.label,
        bars=spread,
        box=box,
    )


def _front(corners: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """A line over the corners, from the left edge to the lower edge."""
    places = [(x.place(across), y.place(up)) for across, up in sorted(corners)]
    steps = [f"M{x.start:g} {places[0][1]:g}"]
    for (across, _), (_, after) in zip(places, [*places[1:], (0.0, y.start)], strict=True):
        steps.append(f"H{across:g}V{after:g}")
    return "".join(steps)


def _labelled(paths: Sequence[Path]) -> list[Path]:
    """The series with labels where there is room for them; the others have their text alone."""
    taken = [_around_mark(point) for path in paths for point in path.points if path.kind != "bars"]
    labelled = []
    for path in paths:
        points = []
        for point in path.points:
            drawn = _with_room(point, taken) if point.label else point
            points.append(drawn)
            if drawn.label:
                taken.append(_around_label(drawn))
        labelled.append(replace(path, points=tuple(points)))
    return labelled


def _around_mark(point: Drawn) -> Box:
    return point.x - 4, point.y - 4, point.x + 4, point.y + 4


def _around_label(point: Drawn) -> Box:
    width = LETTER * len(point.label)
    left = point.label_x - {"start": 0.0, "middle": width / 2, "end": width}[point.anchor]
    return left, point.label_y - LINE + 3, left + width, point.label_y + 3


PLACES: tuple[tuple[float, float, str], ...] = (
    (8, 4, "start"),
    (-8, 4, "end"),
    (0, -8, "middle"),
    (0, 17, "middle"),
    (7, -6, "start"),
    (-7, -6, "end"),
    (7, 14, "start"),
    (-7, 14, "end"),
)


def _with_room(point: Drawn, taken: Sequence[Box]) -> Drawn:
    """The point with its label where it covers nothing, or without it."""
    for across, down, anchor in PLACES:
        tried = replace(point, label_x=point.x + across, label_y=point.y + down, anchor=anchor)
        box = _around_label(tried)
        inside = box[0] >= LEFT and box[2] <= WIDTH - 2 and box[1] >= 2 and box[3] <= HEIGHT - BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            return tried
    return replace(point, label="")


def _overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]

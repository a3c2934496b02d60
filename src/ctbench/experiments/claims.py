"""Claims of papers, tested on the rows of a figure. A claim is a function from rows to a finding.

Less("sampled", called("ibp", "sabr"), called("pgd"))(rows)
# the claim holds here: sampled is 0.121 (IBP, SABR) against 0.241 (PGD) at MNIST, eps 0.1
"""

from __future__ import annotations

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ctbench.experiments.quantities import Numbers

Where = Mapping[str, Any]  # a column, and its value or a tuple of values
Claim = Callable[[Sequence[Numbers]], "Finding"]


@dataclass(frozen=True)
class Finding:
    """Whether a claim holds for the numbers of a figure, and these numbers."""

    holds: bool | None  # None: there is nothing to compare
    numbers: str
    partly: bool = False  # whether a part of the claim has nothing to compare

    def __str__(self) -> str:
        if self.holds is None:
            return f"the claim cannot be judged here: {self.numbers}"
        limit = ", as far as it can be judged" if self.partly and self.holds else ""
        return f"the claim {'holds' if self.holds else 'does not hold'} here{limit}: {self.numbers}"


def together(findings: Sequence[Finding]) -> Finding:
    """Several findings as one, which holds if all of them do that can be judged."""
    judged = [finding.holds for finding in findings if finding.holds is not None]
    partly = len(judged) < len(findings) or any(finding.partly for finding in findings)
    return Finding(all(judged) if judged else None, "; ".join(finding.numbers for finding in findings), partly)


@dataclass(frozen=True)
class All:
    """Several claims, which must all hold."""

    claims: tuple[Claim, ...]

    def __init__(self, *claims: Claim) -> None:
        object.__setattr__(self, "claims", claims)

    def __call__(self, rows: Sequence[Numbers]) -> Finding:
        return together([claim(rows) for claim in self.claims])


@dataclass(frozen=True, kw_only=True)
class Grouped(ABC):
    """A claim that must hold in each group of rows, e.g. in each setting.

    Args:
        by: the columns whose values make a group.
        where: the rows that count.
        but: the rows among them that do not count, e.g. an exception that the paper names.
    """

    by: tuple[str, ...] = ("setting",)
    where: Where | None = None
    but: Where | None = None

    def __call__(self, rows: Sequence[Numbers]) -> Finding:
        groups: dict[tuple[Any, ...], list[Numbers]] = {}
        exceptions = chosen(rows, self.but) if self.but else []
        for row in chosen(rows, self.where or {}):
            if any(row is one for one in exceptions):
                continue
            groups.setdefault(tuple(row.get(name) for name in self.by), []).append(row)
        return together([self._named(key, self.judge(group)) for key, group in groups.items()] or [_NOTHING])

    @abstractmethod
    def judge(self, rows: Sequence[Numbers]) -> Finding:
        """The finding of one group."""

    def _named(self, key: tuple[Any, ...], finding: Finding) -> Finding:
        shown = ", ".join(
            str(value) if name == "setting" else f"{name} {shortly(value)}"
            for name, value in zip(self.by, key, strict=True)
            if value is not None
        )
        return Finding(finding.holds, f"{finding.numbers} at {shown}" if shown else finding.numbers, finding.partly)


_NOTHING = Finding(None, "no row has these numbers")


@dataclass(frozen=True)
class Less(Grouped):
    """The mean of a quantity is smaller for some rows than for others.

    Args:
        quantity: its column.
        these, than: which rows.
        margin: by how much at least.
    """

    quantity: str
    these: Where
    than: Where
    margin: float = 0.0

    def judge(self, rows: Sequence[Numbers]) -> Finding:
        low, high = (mean(chosen(rows, where), self.quantity) for where in (self.these, self.than))
        if low is None or high is None:
            return Finding(None, f"{self.quantity}: {_NOTHING.numbers}")
        names = [_shown(where) for where in (self.these, self.than)]
        text = f"{self.quantity} is {shortly(low)} ({names[0]}) against {shortly(high)} ({names[1]})"
        return Finding(low + self.margin < high, text)


@dataclass(frozen=True)
class Below(Grouped):
    """One quantity is below another one in every row."""

    low: str
    high: str

    def judge(self, rows: Sequence[Numbers]) -> Finding:
        pairs = [(_number(row, self.low), _number(row, self.high)) for row in rows]
        usable = [(low, high) for low, high in pairs if low is not None and high is not None]
        if not usable:
            return _NOTHING
        right = sum(low < high for low, high in usable)
        low, high = (shortly(statistics.fmean(side)) for side in zip(*usable, strict=True))
        text = f"{self.low} {low}, {self.high} {high}"
        return Finding(
            right == len(usable), text if len(usable) == 1 else f"{text} (means; so in {right} of {len(usable)} rows)"
        )


@dataclass(frozen=True)
class Rises(Grouped):
    """A quantity is larger at the last place of an axis than at the first (or smaller, if it falls)."""

    quantity: str
    along: str
    falls: bool = False

    def judge(self, rows: Sequence[Numbers]) -> Finding:
        line = course(rows, self.quantity, self.along)
        if len(line) < 2:
            return _NOTHING
        (start, first), *_, (stop, last) = line
        text = f"{self.quantity} goes from {shortly(first)} to {shortly(last)} as {self.along} goes from "
        right = last < first if self.falls else last > first
        return Finding(right, f"{text}{shortly(start)} to {shortly(stop)}")


@dataclass(frozen=True)
class Widens(Grouped):
    """A quantity is larger for some rows than for others, and the difference grows along an axis.

    Args:
        quantity: its column.
        along: the axis.
        these, than: which rows.
    """

    quantity: str
    along: str
    these: Where
    than: Where

    def judge(self, rows: Sequence[Numbers]) -> Finding:
        high, low = (dict(course(chosen(rows, where), self.quantity, self.along)) for where in (self.these, self.than))
        gaps = [(place, high[place] - low[place]) for place in sorted(high.keys() & low.keys())]
        if len(gaps) < 2:
            return _NOTHING
        (start, first), *_, (stop, last) = gaps
        names = " - ".join(_shown(where) for where in (self.these, self.than))
        text = f"the difference in {self.quantity} ({names}) goes from {shortly(first)} to {shortly(last)} as "
        return Finding(last > max(first, 0.0), f"{text}{self.along} goes from {shortly(start)} to {shortly(stop)}")


@dataclass(frozen=True)
class Lowest(Grouped):
    """The mean of a quantity is lower for one method than for each other method; equal means are allowed.

    Args:
        quantity: its column.
        method: the method.
    """

    quantity: str
    method: str

    def judge(self, rows: Sequence[Numbers]) -> Finding:
        methods = dict.fromkeys(str(row.get("method")) for row in rows)
        means = {method: mean(chosen(rows, {"method": method}), self.quantity) for method in methods}
        values = {method: value for method, value in means.items() if value is not None}
        if self.method not in values or len(values) < 2:
            return _NOTHING
        best = min(values, key=lambda method: (values[method], method != self.method))
        text = f"{self.quantity} is lowest for {best} ({shortly(values[best])})"
        text += "" if best == self.method else f", {self.method} has {shortly(values[self.method])}"
        return Finding(best == self.method, text)


@dataclass(frozen=True)
class PeaksInside(Grouped):
    """A quantity has its maximum at neither end of an axis."""

    quantity: str
    along: str

    def judge(self, rows: Sequence[Numbers]) -> Finding:
        line = course(rows, self.quantity, self.along)
        if len(line) in (1, 2):
            return Finding(None, f"{self.quantity} has only {len(line)} of the 3 places on the axis {self.along}")
        if not line:
            return _NOTHING
        at, highest = max(line, key=lambda point: point[1])
        inside = highest > max(line[0][1], line[-1][1])
        shown = ", ".join(shortly(value) for _, value in line)
        return Finding(inside, f"{self.quantity} is {shown}, the highest at {self.along} {shortly(at)}")


@dataclass(frozen=True)
class SuperLinear(Grouped):
    """A quantity grows faster than in proportion to an axis: somewhere on it d log / d log is above 1."""

    quantity: str
    along: str

    def judge(self, rows: Sequence[Numbers]) -> Finding:
        line = [(x, y) for x, y in course(rows, self.quantity, self.along) if x > 0 and y > 0]
        if len(line) < 2:
            return _NOTHING
        slopes = [math.log(y2 / y1) / math.log(x2 / x1) for (x1, y1), (x2, y2) in pairwise(line)]
        return Finding(max(slopes) > 1, f"the largest exponent of {self.quantity} is {max(slopes):.3g}")


@dataclass(frozen=True)
class Correlates(Grouped):
    """Two quantities have a correlation of this sign, and of at least this size."""

    first: str
    second: str
    sign: int = 1
    least: float = 0.0

    def judge(self, rows: Sequence[Numbers]) -> Finding:
        pairs = [(_number(row, self.first), _number(row, self.second)) for row in rows]
        usable = [(a, b) for a, b in pairs if a is not None and b is not None]
        if not usable:
            return _NOTHING
        if len(usable) < 3 or any(len(set(side)) < 2 for side in zip(*usable, strict=True)):
            return Finding(None, f"{self.first} or {self.second} is the same for all {len(usable)} networks")
        correlation = statistics.correlation(*map(list, zip(*usable, strict=True)))
        text = f"the correlation of {self.first} and {self.second} is {correlation:.2f} over {len(usable)} networks"
        return Finding(self.sign * correlation > self.least, text)


@dataclass(frozen=True)
class BestOnDiagonal(Grouped):
    """For each value of one column, a quantity is highest in the row that has the same value in another column.

    Several rows may be the highest; values for which all rows are equal do not count.
    """

    quantity: str
    row: str
    column: str

    def judge(self, rows: Sequence[Numbers]) -> Finding:
        right = dict[float, bool]()
        for place in _places(rows, self.column):
            line = dict(course(chosen(rows, {self.column: place}), self.quantity, self.row))
            if len(set(line.values())) > 1:
                right[place] = line.get(place) == max(line.values())
        if not right:
            return Finding(None, f"{self.quantity} is the same for every {self.row}")
        text = (
            f"{self.quantity} is highest at {self.row} = {self.column} for {sum(right.values())} of {len(right)} values"
        )
        return Finding(all(right.values()), text)


@dataclass(frozen=True)
class Under(Grouped):
    """The mean of a quantity is below a number."""

    quantity: str
    bound: float

    def judge(self, rows: Sequence[Numbers]) -> Finding:
        value = mean(rows, self.quantity)
        return _NOTHING if value is None else Finding(value < self.bound, f"{self.quantity} is {shortly(value)}")


@dataclass(frozen=True)
class Over(Grouped):
    """A quantity is above a number in every row."""

    quantity: str
    bound: float

    def judge(self, rows: Sequence[Numbers]) -> Finding:
        values = [value for row in rows if (value := _number(row, self.quantity)) is not None]
        if not values:
            return _NOTHING
        text = f"of {len(values)} values of {self.quantity}, the smallest is {shortly(min(values))}"
        return Finding(min(values) > self.bound, text)


def chosen(rows: Sequence[Numbers], where: Where) -> list[Numbers]:
    """The rows with these values; a tuple of values allows each of them."""
    return [
        row
        for row in rows
        if all(row.get(name) in (value if isinstance(value, tuple) else (value,)) for name, value in where.items())
    ]


def mean(rows: Sequence[Numbers], quantity: str) -> float | None:
    """The mean of a column over the rows that have it; None if no row has it."""
    values = [value for row in rows if (value := _number(row, quantity)) is not None]
    return statistics.fmean(values) if values else None


def course(rows: Sequence[Numbers], quantity: str, along: str) -> list[tuple[float, float]]:
    """The mean of a column at each number of another one, ascending."""
    values = [
        (place, mean([row for row in rows if row.get(along) == place], quantity)) for place in _places(rows, along)
    ]
    return [(place, value) for place, value in values if value is not None]


def shortly(value: Any) -> str:
    """A number with three digits, or a text."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _number(row: Numbers, name: str) -> float | None:
    """The finite number in a column; None if there is a text, or nothing."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _places(rows: Sequence[Numbers], name: str) -> list[float]:
    """The numbers in a column, ascending, each once. Infinity is the largest place, e.g. of TAPS's weight w."""
    values = (row.get(name) for row in rows)
    return sorted({float(value) for value in values if isinstance(value, int | float) and not math.isnan(value)})


def _shown(where: Where) -> str:
    return "; ".join(map(_named, where.values())) or "all"


def _named(value: object) -> str:
    if not isinstance(value, tuple):
        return shortly(value)
    names = ", ".join(map(shortly, value))
    return f"mean of {names}" if len(value) > 1 else names

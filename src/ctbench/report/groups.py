"""Runs of one kind together: mean, standard deviation and interval of their accuracies over seeds.

    print(groups_markdown(grouped(rows(folders), by=("method",), over=("seed",))))

Rows of one group have the same setting (data set, network, norm and radius) and the same values of `by`. They may
differ in the fields of `over` alone: a mean over runs that also differ in a hyper-parameter would say nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ctbench.report.comparison import Row, shown_radius
from ctbench.report.drawings import rows_csv
from ctbench.report.formats import as_latex, as_markdown
from ctbench.report.grid import Bold, Grid
from ctbench.report.intervals import Spread

ACCURACIES = ("natural", "adversarial", "certified")
OWN = ("run", "dataset", "network", "norm", "eps", "seed")  # what a row has besides the fields of its recipe
NOTE = (
    "95 %: mean +- t s / sqrt(n) over the n runs, with Student's t of n - 1 degrees of freedom, cut off at 0 and "
    "100 %; it says how training varies. Bold: the best of its setting, if its interval overlaps no other."
)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ in their seeds alone, or in what else they were grouped over."""

    dataset: str
    network: str
    norm: str
    eps: Any  # the radius, or nested lists with a radius for each feature
    threat: str  # the threat model, as text
    samples_digest: str  # which samples were certified
    by: tuple[tuple[str, str], ...]  # the names and values of the group
    runs: tuple[str, ...]
    samples: int  # of each run
    natural: Spread  # in percent
    adversarial: Spread
    certified: Spread

    @property
    def setting(self) -> tuple[Any, ...]:
        """What groups have in common whose results are shown together."""
        return self.dataset, self.norm, self.eps

    def is_comparable(self, other: Group) -> bool:
        """Whether both are about the same regions of the same samples."""
        return (self.threat, self.samples_digest) == (other.threat, other.samples_digest)

    @property
    def label(self) -> str:
        return ", ".join(value if name == "method" else f"{name} {value}" for name, value in self.by)


def grouped(rows: Iterable[Row], by: Sequence[str] = ("method",), over: Sequence[str] = ("seed",)) -> list[Group]:
    """The groups of certified rows, in the order in which they appear. Rows without a certification are left out.

    Args:
        rows: the rows of `ctbench.report.rows`.
        by: fields of recipes by their paths, such as "method" or "optimizer.lr"; also run, dataset, network, norm, eps.
        over: the fields in which the rows of a group may differ, and do.

    Raises:
        ValueError: no row is certified, no row has one of the fields, rows of a group differ in another field or in
            their samples, or two of them do not differ.
    """
    certified = [row for row in rows if row.certification is not None]
    if not certified:
        raise ValueError("none of the runs has been certified: run ctbench certify first")
    for name in (*by, *over):
        if all(_value(row, name) is None for row in certified):
            raise ValueError(_unknown(name, sorted({path for row in certified for path in row.parameters})))
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in certified:
        groups.setdefault((*_setting(row), *(_text(row, name) for name in by)), []).append(row)
    return [_group(members, by, over) for members in groups.values()]


def _unknown(name: str, paths: Sequence[str]) -> str:
    """The message for a field that no row has: what it may have meant, and where all fields are."""
    fields = ["method", *OWN, *paths]
    near = [path for path in fields if name and name in path.split(".")]
    near += difflib.get_close_matches(name, [path for path in fields if path not in near], n=4, cutoff=0.6)
    meant = f"did you mean {' or '.join(near[:4])}? " if near else ""
    return (
        f"no run has the field {name!r}: {meant}ctbench show RUN/recipe.json lists the fields of a recipe; "
        f"besides, there are {', '.join(OWN)}"
    )


def separating(rows: Iterable[Row], over: Sequence[str] = ("seed",)) -> tuple[str, ...]:
    """The fields to group rows by, so that those of a group differ in `over` alone.

    They are the method, and each field in which rows of one method and setting differ.
    """
    by, firsts = {"method": None}, dict[tuple[Any, ...], Row]()
    for row in rows:
        first = firsts.setdefault((*_setting(row), row.named_method), row)
        by |= dict.fromkeys(_differences(first, row, over))
    return tuple(by)


def _setting(row: Row) -> tuple[Any, ...]:
    return row.dataset, row.network, row.norm, repr(row.eps)


def _differences(first: Row, other: Row, over: Sequence[str]) -> list[str]:
    """The hyper-parameters, without those of `over`, in which two rows differ."""
    names = (first.parameters.keys() | other.parameters.keys()) - {*over}
    return sorted(name for name in names if first.parameters.get(name) != other.parameters.get(name))


def _value(row: Row, name: str) -> Any:
    if name == "method":
        return row.named_method
    return getattr(row, name) if name in OWN else row.parameters.get(name)


def _text(row: Row, name: str) -> str:
    value = _value(row, name)
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _group(rows: list[Row], by: Sequence[str], over: Sequence[str]) -> Group:
    first = rows[0]
    for row in rows:
        if row.unfinished:
            raise ValueError(
                f"{row.run} is certified on {row.unfinished} samples: finish it (ctbench certify --resume), or leave "
                f"it out"
            )
    for other in rows[1:]:
        different = _differences(first, other, over)
        if first.named_method != other.named_method and "method" not in over:
            different.insert(0, "method")
        if different:
            raise ValueError(
                f"{first.run} and {other.run} are one group, but differ in {', '.join(different)}: add it to "
                f"--group-by, or to --over"
            )
        if first.samples != other.samples:
            raise ValueError(
                f"{first.run} is certified on {_count(first)} samples and {other.run} on other ones, "
                f"{_count(other)}: certify the same samples"
            )
        unlike = [name for name, value in first.verification.items() if value != other.verification.get(name)]
        if unlike:
            raise ValueError(
                f"{first.run} and {other.run} are one group, but their certifications differ in {', '.join(unlike)}: "
                f"certify them alike, or leave one out"
            )
    seen: dict[tuple[str, ...], str] = {}
    for row in rows:
        values = tuple(_text(row, name) for name in over)
        if values in seen:
            shown = ", ".join(f"{name} {value}" for name, value in zip(over, values, strict=True))
            raise ValueError(f"{seen[values]} and {row.run} both have {shown}: give each run once")
        seen[values] = row.run
    natural, adversarial, certified = (Spread.of([_percent(row, name) for row in rows]) for name in ACCURACIES)
    return Group(
        dataset=first.dataset,
        network=first.network,
        norm=first.norm,
        eps=first.eps,
        threat=first.threat,
        samples_digest=first.samples,
        by=tuple((name, _text(first, name)) for name in by),
        runs=tuple(row.run for row in rows),
        samples=_count(first),
        natural=natural,
        adversarial=adversarial,
        certified=certified,
    )


def _count(row: Row) -> int:
    """The number of certified samples."""
    assert row.certification is not None, "only certified rows are grouped"
    return len(row.certification)


def _percent(row: Row, name: str) -> float:
    return 100 * float(getattr(row.certification, f"{name}_accuracy"))


def group_cells(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a table; the best means are `Bold`, where no interval of their setting overlaps."""
    names = list(dict.fromkeys(name for group in groups for name, _ in group.by))
    headings = [*names, "data", "network", "norm", "eps", "runs", "samples"]
    headings += [f"{name} {part}" for name in ACCURACIES for part in ("%", "s", "95 %")]
    return headings, [_cells(group, groups) for group in groups]


def _cells(group: Group, groups: Sequence[Group]) -> list[str]:
    values = [value for _, value in group.by]
    cells = [*values, group.dataset, group.network, group.norm, shown_radius(group.eps)]
    cells += [str(len(group.runs)), str(group.samples)]
    rivals = [other for other in groups if other.setting == group.setting and other is not group]
    comparable = all(map(group.is_comparable, rivals))
    for name in ACCURACIES:
        spread: Spread = getattr(group, name)
        best = comparable and spread.is_above_all([getattr(other, name) for other in rivals])
        mean = f"{spread.mean:.2f}"
        ends = spread.within(0, 100)
        cells.append(Bold(mean) if best else mean)
        cells.append("-" if spread.deviation is None else f"{spread.deviation:.2f}")
        cells.append("-" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}")
    return cells


def groups_table(groups: Sequence[Group]) -> Grid:
    """The groups as a table for a terminal."""
    headings, cells = group_cells(groups)
    return Grid(headings=headings, rows=cells, texts=len(headings) - 2 - 3 * len(ACCURACIES))


def groups_markdown(groups: Sequence[Group]) -> str:
    """The groups as a Markdown table, with how to read it."""
    headings, cells = group_cells(groups)
    return f"{as_markdown(headings, cells, texts=_texts(headings))}\n\n{NOTE}"


def groups_latex(groups: Sequence[Group]) -> str:
    """The groups as a LaTeX table for the package booktabs."""
    headings, cells = group_cells(groups)
    return as_latex(headings, cells, texts=_texts(headings))


def groups_csv(groups: Sequence[Group]) -> str:
    """The groups as CSV, with the ends of each interval, and nothing where there is no value."""
    return rows_csv([group_numbers(group) for group in groups])


def group_numbers(group: Group) -> dict[str, Any]:
    """The columns of a group as numbers and texts, None where there is no value."""
    row: dict[str, Any] = dict(group.by) | {
        name: getattr(group, name) for name in ("dataset", "network", "norm", "eps")
    }
    row |= {"runs": len(group.runs), "samples": group.samples}
    for name in ACCURACIES:
        spread: Spread = getattr(group, name)
        low, high = spread.within(0, 100) or (None, None)
        row |= {f"{name} %": spread.mean, f"{name} s": spread.deviation, f"{name} from": low, f"{name} to": high}
    return row


def _texts(headings: Sequence[str]) -> range:
    return range(len(headings) - 3 * len(ACCURACIES))

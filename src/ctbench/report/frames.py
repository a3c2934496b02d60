"""Tables as pandas.DataFrame: numbers as numbers, and nothing is rounded. Accuracies have the units of their tables.

to_pandas(rows(folders)).sort_values("certified %")
to_pandas(Study.read("studies/sabr")).plot.scatter("method.ratio", "certified_accuracy")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ctbench.report.comparison import DISCREPANCIES, HEADINGS, UNKNOWN, Row, with_differences
from ctbench.report.fronts import Front, front_rows
from ctbench.report.groups import ACCURACIES, Group, group_numbers
from ctbench.results import Radii, Study
from ctbench.results.certification import pandas_module

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

Numbers = dict[str, Any]


def to_pandas(table: Iterable[Row | Group | Front | Mapping[str, Any]] | Radii | Study) -> pd.DataFrame:
    """A table with a row for each row, group, mark of a front, sample or trial. Needs pandas.

    Args:
        table: one of

            - `rows(...)`: accuracies in percent, seconds, and a column for each hyper-parameter that differs
            - `grouped(...)`: means, standard deviations and the ends of intervals in percent
            - `fronts(...)`: its marks; the accuracies are those of the axes, "x" and "y". `front_rows` names them
            - other rows of names and values, e.g. of `front_rows` or `ctbench.report.curves.radius_rows`
            - `ctbench.radii(...)` or `RadiusFiles.read()`: the radii of each sample
            - a `Study`: its trials, with a column for each parameter and each bound

    Raises:
        ValueError: pandas is not installed, or the table is something else.
    """
    pandas = pandas_module()
    return pandas.DataFrame(_lines(table))


def _lines(table: object) -> list[Numbers]:
    if isinstance(table, Study):
        return _trials(table)
    if isinstance(table, Radii):
        return [asdict(sample) for sample in table]
    if isinstance(table, Iterable) and not isinstance(table, str | Mapping):
        lines = list(table)
        for kind, numbers in ((Row, _rows), (Group, _groups), (Front, _marks), (Mapping, _mappings)):
            if all(isinstance(line, kind) for line in lines):
                return numbers(lines)
    raise ValueError(
        f"a {type(table).__name__} is not a table: give rows(...), grouped(...), fronts(...), Radii, a Study or a list "
        f"of dictionaries"
    )


def _rows(rows: Sequence[Row]) -> list[Numbers]:
    headings, _ = with_differences(rows)
    different = [name for name in headings if name not in (*HEADINGS, *DISCREPANCIES)]
    return [_row(row) | {path: row.parameters.get(path) for path in different} for row in rows]


def _row(row: Row) -> Numbers:
    job, attacked = row.certification, row.attacked
    accuracies = {f"{name} %": None if job is None else 100 * getattr(job, f"{name}_accuracy") for name in ACCURACIES}
    found = (attacked.natural_discrepancy, attacked.robust_discrepancy) if attacked else (None, None)
    return {
        "run": row.run,
        "data": row.dataset,
        "network": row.network,
        "method": row.named_method,
        "seed": row.seed,
        "norm": row.norm,
        "eps": row.eps,
        "samples": None if job is None else len(job),
        "samples wanted": row.wanted,
        **accuracies,
        **{outcome: None if job is None else job.outcomes[outcome] for outcome in UNKNOWN},
        "failed stages": ", ".join(failure.stage for failure in row.failures),
        "attacked samples": None if attacked is None else len(attacked),
        "attacked %": None if attacked is None else 100 * attacked.adversarial_accuracy,
        **dict(zip(DISCREPANCIES, found, strict=True)),
        "training seconds": row.training_seconds,
        "certification seconds": None if job is None else job.seconds,
    }


def _groups(groups: Sequence[Group]) -> list[Numbers]:
    return [group_numbers(group) for group in groups]


def _marks(fronts: Sequence[Front]) -> list[Numbers]:
    return [dict(line) for line in front_rows(fronts, "x", "y")]


def _mappings(lines: Sequence[Mapping[str, Any]]) -> list[Numbers]:
    return [dict(line) for line in lines]


def _trials(study: Study) -> list[Numbers]:
    lines = [trial.row() for trial in study.trials]
    for path in dict.fromkeys(path for trial in study.trials for path in trial.parameters):
        values = [_number(line[path]) for line in lines]
        if None not in values:
            for line, value in zip(lines, values, strict=True):
                line[path] = value
    return lines


def _number(value: Any) -> Any:
    """The number of a value, also if it is one of several choices, which are texts, e.g. "2/255"; else None."""
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value))
    except (ValueError, ZeroDivisionError):
        return None

"""Writing properties as VNN-LIB."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from ctbench.files import write_whole
from ctbench.vnnlib.property import Case, Halfspaces, Property, robustness


def write_robustness(path: Path | str, lower: Tensor, upper: Tensor, y: int, classes: int) -> None:
    """Write the property that class y wins everywhere in a box. Arguments and errors are those of `robustness`."""
    write_property(path, robustness(lower, upper, y, classes))


def write_property(path: Path | str, prop: Property) -> None:
    """Write a property atomically; the file is packed if its name ends in .gz.

    Numbers are written without exponents, which some readers do not support, and with enough digits to read back the
    same float64 numbers. The written numbers differ from these by at most half a unit in the last place, and the file
    is about the written numbers. Reading gives an equal property, except that cases with the same box become one case.
    """
    path = Path(path)
    content = _text(prop).encode()
    write_whole(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _text(prop: Property) -> str:
    names = [f"X_{i}" for i in range(prop.inputs)] + [f"Y_{k}" for k in range(prop.outputs)]
    lines = [f"(declare-const {name} Real)" for name in names]
    if len(prop.cases) == 1:
        formulas = [*_bounds(prop.cases[0]), _disjunction(map(_conjunction, prop.cases[0].unsafe))]
    else:
        formulas = [_disjunction(_whole(case) for case in prop.cases)]
    return "\n".join([*lines, *(f"(assert {formula})" for formula in formulas), ""])


def _whole(case: Case) -> str:
    """A case as one formula."""
    return f"(and {' '.join(_bounds(case))} {_disjunction(map(_conjunction, case.unsafe))})"


def _disjunction(formulas: Iterable[str]) -> str:
    return "(or\n" + "".join(f"  {formula}\n" for formula in formulas) + ")"


def _conjunction(alternative: Halfspaces) -> str:
    edges = [row.strict for row in alternative.comparisons]
    rows = zip(alternative.rows.tolist(), alternative.offsets.tolist(), edges, strict=True)
    return f"(and {' '.join(_comparison(*row) for row in rows)})"


def _bounds(case: Case) -> Iterator[str]:
    corners = zip(case.lower.tolist(), case.upper.tolist(), *_excluded(case), strict=True)
    for i, (lower, upper, above, below) in enumerate(corners):
        yield f"({'>' if above else '>='} X_{i} {_digits(lower)})"
        yield f"({'<' if below else '<='} X_{i} {_digits(upper)})"


def _excluded(case: Case) -> tuple[list[bool], list[bool]]:
    """For each lower and each upper bound, whether the box excludes it."""
    if case.real is None:
        return [False] * len(case.lower), [False] * len(case.upper)
    ends = zip((case.lower, case.upper), case.real.around, case.real.inside, strict=True)
    first, second = (((around == nearest) & (inside != nearest)).tolist() for nearest, around, inside in ends)
    return first, second


def _comparison(row: list[float], offset: float, strict: bool) -> str:
    """<row, y> + offset <= 0, or < 0."""
    less, more = ("<", ">") if strict else ("<=", ">=")
    coefficients = {f"Y_{k}": value for k, value in enumerate(row) if value != 0}
    if offset == 0 and sorted(coefficients.values()) == [-1.0, 1.0]:
        smaller, larger = sorted(coefficients, key=coefficients.__getitem__, reverse=True)
        return f"({more} {larger} {smaller})"
    terms = [name if value == 1 else f"(* {_digits(value)} {name})" for name, value in coefficients.items()]
    total = f"(+ {' '.join(terms)})" if len(terms) > 1 else (terms or ["0.0"])[0]
    return f"({less} {total} {_digits(-offset)})"


def _digits(number: float) -> str:
    return np.format_float_positional(number + 0.0, trim="0")

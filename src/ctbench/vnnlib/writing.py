"""Writing properties as VNN-LIB."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ctbench.files import write_whole
from ctbench.vnnlib.halfspaces import Halfspaces
from ctbench.vnnlib.property import Case, Property, robustness


def write_robustness(path: Path | str, lower: Tensor, upper: Tensor, y: int, classes: int) -> None:
    """Write the property that class y wins everywhere in a box. Arguments and errors are those of `robustness`."""
    write_property(path, robustness(lower, upper, y, classes))


def write_property(path: Path | str, prop: Property) -> None:
    """Write a property atomically; the file is packed if its name ends in .gz.

    Numbers are written without exponents, which some readers do not support, and with enough digits to read back the
    same float64 numbers. A query of VNN-LIB 2.0 is written as 1.0. The written numbers differ from these by at most
    half a unit in the last place, and the file is about the written numbers. Reading gives an equal property, except
    that cases with the same box become one case.
    """
    path = Path(path)
    content = _text(prop).encode()
    write_whole(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _text(prop: Property) -> str:
    variables = [f"X_{i}" for i in range(prop.inputs)] + [f"Y_{k}" for k in range(prop.outputs)]
    lines, names = [f"(declare-const {variable} Real)" for variable in variables], _Names(prop.outputs)
    if len(prop.cases) == 1:
        formulas = [*_inputs(prop.cases[0]), _disjunction(_conjunction(one, names) for one in prop.cases[0].unsafe)]
    else:
        formulas = [_disjunction(_whole(case, names) for case in prop.cases)]
    return "\n".join([*lines, *(f"(assert {formula})" for formula in formulas), ""])


@dataclass(frozen=True)
class _Names:
    """The names of columns: first the outputs, then the inputs."""

    outputs: int

    def __call__(self, column: int) -> str:
        return f"Y_{column}" if column < self.outputs else f"X_{column - self.outputs}"


def _whole(case: Case, names: _Names) -> str:
    """A case as one formula."""
    return f"(and {' '.join(_inputs(case))} {_disjunction(_conjunction(one, names) for one in case.unsafe)})"


def _inputs(case: Case) -> Iterator[str]:
    """What the inputs of a case satisfy."""
    yield from _bounds(case)
    if case.constraints is not None:
        yield from _comparisons(case.constraints, _Names(0))


def _disjunction(formulas: Iterable[str]) -> str:
    return "(or\n" + "".join(f"  {formula}\n" for formula in formulas) + ")"


def _conjunction(alternative: Halfspaces, names: _Names) -> str:
    return f"(and {' '.join(_comparisons(alternative, names))})"


def _comparisons(alternative: Halfspaces, names: _Names) -> Iterator[str]:
    edges = [row.strict for row in alternative.comparisons]
    for row in zip(alternative.rows.tolist(), alternative.offsets.tolist(), edges, strict=True):
        yield _comparison(*row, names)


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


def _comparison(row: list[float], offset: float, strict: bool, names: _Names) -> str:
    """<row, y> + offset <= 0, or < 0."""
    less, more = ("<", ">") if strict else ("<=", ">=")
    coefficients = {names(k): value for k, value in enumerate(row) if value != 0}
    if offset == 0 and sorted(coefficients.values()) == [-1.0, 1.0]:
        smaller, larger = sorted(coefficients, key=coefficients.__getitem__, reverse=True)
        return f"({more} {larger} {smaller})"
    terms = [name if value == 1 else f"(* {_digits(value)} {name})" for name, value in coefficients.items()]
    total = f"(+ {' '.join(terms)})" if len(terms) > 1 else (terms or ["0.0"])[0]
    return f"({less} {total} {_digits(-offset)})"


def _digits(number: float) -> str:
    return np.format_float_positional(number + 0.0, trim="0")

"""Reading VNN-LIB: text -> forms -> alternatives -> cases."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from ctbench.vnnlib.formulas import Alternative, Bound, all_of, alternatives_of
from ctbench.vnnlib.property import Case, Halfspaces, Property, RealBox, Row
from ctbench.vnnlib.syntax import Form, LocatedError, Word, application, check_count, commands_of, quoted

MAX_BYTES = 64 << 20  # of a file, unpacked
MAX_NUMBERS = 50_000_000  # in all boxes and rows together

VARIABLE = re.compile(r"[XY]_(0|[1-9][0-9]{0,8})")


class VnnlibError(ValueError):
    """A file is not VNN-LIB 1.0, or not a property of boxes. The message says where, and what was expected."""


def read_vnnlib(path: Path | str) -> Property:
    """The property of a file, which is unpacked if its name ends in .gz.

    Raises:
        FileNotFoundError: there is no such file.
        VnnlibError: the content is not a property of boxes in VNN-LIB 1.0; the message names the line, if possible.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise VnnlibError(f"{path} is not a complete gzip file ({error})") from None
    if len(content) > MAX_BYTES:
        raise VnnlibError(f"{path} holds more than {MAX_BYTES >> 20} MiB: split the property into several files")
    if b"\0" in content:
        raise VnnlibError(f"{path} is a binary file: expected VNN-LIB text, or gzip under a name that ends in .gz")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise VnnlibError(f"{path} is not text ({error}): expected VNN-LIB, or gzip under a .gz name") from None
    return parse_vnnlib(text, name=str(path))


def parse_vnnlib(text: str, *, name: str = "the text") -> Property:
    """The property that a text describes. Raises VnnlibError like `read_vnnlib`; messages call the text `name`."""
    text = text.removeprefix("\ufeff")  # the byte order mark with which Windows begins files
    try:
        return _property(commands_of(text))
    except LocatedError as error:
        line = "" if error.at is None else f", line {text.count(chr(10), 0, error.at) + 1}"
        raise VnnlibError(f"{name}{line}: {error}") from None


def _property(commands: list[Form]) -> Property:
    if not commands:
        raise LocatedError("it is empty: expected declarations and asserts")
    declarations, asserts = [], []
    for form in commands:
        command, arguments = application(form)
        if command == "declare-const":
            declarations.append(form)
        elif command == "assert":
            check_count(form, len(arguments) == 1, "one formula")
            asserts.append(arguments[0])
        else:
            raise LocatedError(f"{quoted(command)} is not supported: expected declare-const or assert", form.at)
    declared = _declared(declarations)
    inputs, outputs = (_count(declared, letter) for letter in "XY")
    alternatives = all_of([alternatives_of(formula, declared) for formula in asserts], at=None)
    return Property(inputs, outputs, tuple(_cases(alternatives, inputs, outputs)))


def _declared(declarations: list[Form]) -> set[str]:
    """The names of all variables."""
    names: set[str] = set()
    for form in declarations:
        words = [part.text for part in form.parts if isinstance(part, Word)]
        check_count(form, len(words) == len(form.parts) == 3, "a name and a type")
        _, name, kind = words
        if not VARIABLE.fullmatch(name):
            raise LocatedError(f"a variable is called {quoted(name)}: names are X_0, X_1, ... and Y_0, ...", form.at)
        if kind != "Real":
            raise LocatedError(f"{name} is declared as {quoted(kind)}: expected Real", form.at)
        if name in names:
            raise LocatedError(f"{name} is declared twice", form.at)
        names.add(name)
    return names


def _count(declared: set[str], letter: str) -> int:
    """The number of variables of a letter, which must be numbered 0, 1, 2, ..."""
    count = max(1, sum(name[0] == letter for name in declared))
    missing = next((name for name in (f"{letter}_{i}" for i in range(count)) if name not in declared), None)
    if missing is not None:
        raise LocatedError(f"{missing} is not declared: {letter} must be numbered 0, 1, 2, ... without gaps")
    return count


def _cases(alternatives: list[Alternative], inputs: int, outputs: int) -> Iterator[Case]:
    """The alternatives, sorted by their boxes. Alternatives with an empty box are dropped if there are others.

    If all boxes are empty only because bounds exclude their edges (x < 1 and x >= 1), one of them is kept as empty.
    """
    if not all(alternative.rows for alternative in alternatives):
        raise LocatedError("nothing is asserted about the outputs Y, or not in every alternative of an or")
    shared: dict[tuple[int, ...], list[Alternative]] = {}
    for alternative in alternatives:
        shared.setdefault(tuple(map(id, alternative.bounds)), []).append(alternative)
    numbers = 2 * len(shared) * inputs + sum(len(alternative.rows) for alternative in alternatives) * outputs
    if numbers > MAX_NUMBERS:
        raise LocatedError(f"boxes and rows would be {numbers} numbers: at most {MAX_NUMBERS}")
    unsafe: dict[_Corners, list[Halfspaces]] = {}
    empty: list[tuple[_Corners, list[Halfspaces]]] = []  # at most one: the first empty box
    conflict = None
    for members in shared.values():
        lower, upper = _box(members[0].bounds, inputs)
        clash = next(_clashes(lower, upper), None)
        if clash is None or clash[0].exact == clash[1].exact:
            _check_bounded(lower, upper)
            corners = _Corners.of(lower, upper, empty=clash is not None)
            halfspaces = [_halfspaces(member.rows, outputs) for member in members]
            if clash is None:
                unsafe.setdefault(corners, []).extend(halfspaces)
            else:
                empty = empty or [(corners, halfspaces)]
        elif conflict is None:
            name = f"X_{clash[0].coordinate}"
            conflict = f"the box is empty: {name} >= {clash[0].nearest!r} and {name} <= {clash[1].nearest!r}"
    if conflict is not None and not unsafe and not empty:
        raise LocatedError(conflict)
    for corners, halfspaces in unsafe.items() or empty:
        yield corners.case(tuple(halfspaces))


_Side: TypeAlias = list[Bound | None]  # the tightest bound of each input, if it has one


def _box(layers: Iterable[Iterable[Bound]], inputs: int) -> tuple[_Side, _Side]:
    """The tightest lower and upper bounds."""
    lower: _Side = [None] * inputs
    upper: _Side = [None] * inputs
    for bound in chain.from_iterable(layers):
        side = upper if bound.side > 0 else lower
        best = side[bound.coordinate]
        if best is None or bound.tighter(best):
            side[bound.coordinate] = bound
    return lower, upper


def _clashes(lower: _Side, upper: _Side) -> Iterator[tuple[Bound, Bound]]:
    """The pairs of bounds of an input with no number between them. Pairs with lower > upper come first."""
    pairs = [
        (below, above)
        for below, above in zip(lower, upper, strict=True)
        if below is not None and above is not None and below.nearest >= above.nearest
    ]
    yield from ((below, above) for below, above in pairs if below.exact > above.exact)
    yield from (
        (below, above) for below, above in pairs if below.exact == above.exact and (below.strict or above.strict)
    )


def _check_bounded(lower: _Side, upper: _Side) -> None:
    for name, side in (("lower", lower), ("upper", upper)):
        if None in side:
            raise LocatedError(f"X_{side.index(None)} has no {name} bound: give every input both, in every alternative")


class _Corners(NamedTuple):
    """A box as tuples of numbers, so that cases with the same box can be found."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    around: tuple[tuple[float, ...], tuple[float, ...]]
    inside: tuple[tuple[float, ...], tuple[float, ...]]
    empty: bool

    @classmethod
    def of(cls, lower: _Side, upper: _Side, *, empty: bool) -> _Corners:
        sides = [[bound for bound in side if bound is not None] for side in (lower, upper)]
        first, second = (tuple(bound.nearest for bound in side) for side in sides)
        return cls(
            first,
            second,
            (tuple(bound.around for bound in sides[0]), tuple(bound.around for bound in sides[1])),
            (tuple(bound.inside for bound in sides[0]), tuple(bound.inside for bound in sides[1])),
            empty,
        )

    def case(self, unsafe: tuple[Halfspaces, ...]) -> Case:
        lower, upper, *ends = (
            torch.tensor(corner, dtype=torch.float64) for corner in (self.lower, self.upper, *self.around, *self.inside)
        )
        return Case(lower, upper, unsafe, RealBox((ends[0], ends[1]), (ends[2], ends[3]), self.empty))


def _halfspaces(rows: tuple[Row, ...], outputs: int) -> Halfspaces:
    matrix = np.zeros((len(rows), outputs))
    for line, row in zip(matrix, rows, strict=True):
        for index, coefficient in row.coefficients:
            line[index] = float(coefficient)
    offsets = torch.tensor([float(row.offset) for row in rows], dtype=torch.float64)
    return Halfspaces(torch.from_numpy(matrix), offsets, torch.tensor([row.strict for row in rows]), rows)

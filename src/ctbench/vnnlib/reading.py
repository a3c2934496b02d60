"""Reading VNN-LIB: text -> alternatives -> cases."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ctbench.vnnlib.asserts import asserted, declarations_of
from ctbench.vnnlib.bounds import Bounds, Ends
from ctbench.vnnlib.formulas import Alternative, all_of
from ctbench.vnnlib.halfspaces import Halfspaces, Row
from ctbench.vnnlib.numbers import nearest
from ctbench.vnnlib.property import Case, Property
from ctbench.vnnlib.syntax import LocatedError, without_comments
from ctbench.vnnlib.variables import Variables

MAX_BYTES = 256 << 20  # of a file, unpacked
MAX_NUMBERS = 50_000_000  # in all boxes and rows together

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class VnnlibError(ValueError):
    """A file is not VNN-LIB 1.0 or 2.0, or not a property of bounded inputs. The message says where, and what was
    expected."""


def read_vnnlib(path: Path | str) -> Property:
    """The property of a file, which is unpacked if its name ends in .gz.

    Raises:
        FileNotFoundError: there is no such file.
        VnnlibError: the content is not a property of bounded inputs in VNN-LIB 1.0 or 2.0; the message names the line,
            if possible.
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
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    if b"\0" in content and encoding != "utf-16":
        raise VnnlibError(f"{path} is a binary file: expected VNN-LIB text, or gzip under a name that ends in .gz")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise VnnlibError(f"{path} is not text ({error}): expected VNN-LIB, or gzip under a .gz name") from None
    del content  # a large file is not kept twice
    return parse_vnnlib(text, name=str(path))


def parse_vnnlib(text: str, *, name: str = "the text") -> Property:
    """The property that a text describes. Raises VnnlibError like `read_vnnlib`; messages call the text `name`."""
    text = text.removeprefix("\ufeff")  # the byte order mark with which Windows begins files
    try:
        return _property(without_comments(text))
    except LocatedError as error:
        line = "" if error.at is None else f", line {text.count(chr(10), 0, error.at) + 1}"
        raise VnnlibError(f"{name}{line}: {error}") from None


def _property(text: str) -> Property:
    if not text.strip():
        raise LocatedError("it is empty: expected declarations and asserts")
    variables = declarations_of(text)
    parts = asserted(text, variables)
    if not variables.inputs:
        raise LocatedError("X_0 is not declared: give the inputs X_0, X_1, ... and the outputs Y_0, Y_1, ...")
    alternatives = all_of(parts, at=None)
    return Property(variables.inputs, variables.outputs, tuple(_cases(alternatives, variables)), variables.networks)


def _cases(alternatives: Sequence[Alternative], variables: Variables) -> Iterator[Case]:
    """The alternatives, sorted by their inputs. Alternatives with an empty box are dropped if there are others.

    If all boxes are empty only because bounds exclude their edges (x < 1 and x >= 1), one of them is kept as empty.
    """
    inputs, outputs = variables.inputs, variables.outputs
    if not all(alternative.rows for alternative in alternatives):
        raise LocatedError("nothing is asserted about the outputs Y, or not in every alternative of an or")
    shared: dict[tuple[object, ...], list[Alternative]] = {}
    for alternative in alternatives:
        shared.setdefault((*map(id, alternative.bounds), alternative.input_rows), []).append(alternative)
    numbers = 2 * len(shared) * inputs + sum(len(alternative.rows) for alternative in alternatives) * outputs
    if numbers > MAX_NUMBERS:
        raise LocatedError(f"boxes and rows would be {numbers} numbers: at most {MAX_NUMBERS}")
    unsafe: dict[tuple[object, ...], tuple[Ends, bool, list[Halfspaces]]] = {}
    empty: list[tuple[Ends, bool, list[Halfspaces], tuple[Row, ...]]] = []  # at most one: the first empty box
    conflict = None
    for members in shared.values():
        rows = members[0].input_rows
        ends = _ends(members[0], inputs)
        clash = ends.clash()
        if clash is None or clash[1]:
            if (missing := ends.missing()) is not None:
                named = f"{variables.name(missing[0])} has no {missing[1]} bound"
                raise LocatedError(f"{named}: give every input both, in every alternative")
            halfspaces = [_halfspaces(member.rows, outputs, inputs) for member in members]
            if clash is None:
                unsafe.setdefault((*ends.key(), rows), (ends, False, []))[2].extend(halfspaces)
            else:
                empty = empty or [(ends, True, halfspaces, rows)]
        elif conflict is None:
            i, shown = clash[0], variables.name(clash[0])
            conflict = f"the box is empty: {shown} >= {float(ends.lower[i])!r} and {shown} <= {float(ends.upper[i])!r}"
    if conflict is not None and not unsafe and not empty:
        raise LocatedError(conflict)
    for key, (ends, is_empty, halfspaces) in unsafe.items():
        yield _case(ends, is_empty, halfspaces, key[-1])  # type: ignore[arg-type]
    for entry in empty if not unsafe else []:
        yield _case(*entry)


def _case(ends: Ends, is_empty: bool, unsafe: list[Halfspaces], rows: tuple[Row, ...]) -> Case:
    lower, upper = (torch.from_numpy(corner.copy()) for corner in (ends.lower, ends.upper))
    constraints = _halfspaces(rows, len(lower), 0) if rows else None
    return Case(lower, upper, tuple(unsafe), ends.box(empty=is_empty), constraints)


ROUNDS = 10  # in which rows give bounds to inputs


def _ends(alternative: Alternative, inputs: int) -> Ends:
    """The tightest bounds of the inputs. Inputs without a bound get one from the rows over inputs, if possible.

    A row sum g_i x_i + h <= 0 bounds each of its inputs by the least values of the others:
    g_i x_i <= -h - sum over j != i of min g_j x_j.
    """
    layers = list(alternative.bounds)
    ends = Ends.of(layers, inputs)
    for _ in range(ROUNDS if alternative.input_rows else 0):
        if ends.missing() is None:
            break
        before = len(layers)
        for row in alternative.input_rows:
            layers += _implied(row, ends)
        if len(layers) == before:
            break
        ends = Ends.of(layers, inputs)
    return ends


def _implied(row: Row, ends: Ends) -> Iterator[Bounds]:
    """The bounds that a row gives to ends that have no bound."""
    least = dict[int, Fraction | None]()
    for i, weight in row.coefficients:
        bound = ends.exact_bound(2 * i + (weight < 0))
        least[i] = None if bound is None else weight * bound
    for i, weight in row.coefficients:
        end = 2 * i + (weight > 0)
        others = [value for j, value in least.items() if j != i]
        if not ends.known[end] and None not in others:
            exact = (-row.offset - sum((value for value in others if value is not None), Fraction(0))) / weight
            yield Bounds.one(end, nearest(exact, None), exact, strict=False)


def _halfspaces(rows: tuple[Row, ...], outputs: int, inputs: int) -> Halfspaces:
    """Rows over outputs; with inputs after them if a row has an input."""
    mixed = any(index >= outputs for row in rows for index, _ in row.coefficients)
    matrix = np.zeros((len(rows), outputs + inputs * mixed))
    for line, row in zip(matrix, rows, strict=True):
        for index, coefficient in row.coefficients:
            line[index] = float(coefficient)
    offsets = torch.tensor([float(row.offset) for row in rows], dtype=torch.float64)
    return Halfspaces(torch.from_numpy(matrix), offsets, torch.tensor([row.strict for row in rows]), rows)

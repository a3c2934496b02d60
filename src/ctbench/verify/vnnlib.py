"""VNN-LIB 1.0: properties of networks as text (Demarchi et al., FoMLAS 2023; https://www.vnnlib.org).

A file describes the counterexamples. The property holds where no input x and output y = f(x) satisfy all its asserts:

    (declare-const X_0 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)     ; comments end with the line
    (assert (>= X_0 -0.5)) (assert (<= X_0 0.5))
    (assert (or (and (>= Y_1 Y_0))))

`and` and `or` nest, comparisons are linear. What is read is the disjunctive normal form, sorted by input boxes:

    x, y is a counterexample  iff  some case has  lower <= x <= upper  and some (A, b) in unsafe with  A y + b <= 0

where `<` and `>` exclude the edge, of a box as of a row. Numbers are rational: 0.1 + 0.2 - 0.3 is 0. What is kept in
float64 are the nearest numbers; beside them stay the rows themselves, and two boxes of float64 numbers, one around the
file's and one inside. So a proof is about all of the file's box, and whether a float64 point is a counterexample is
decided exactly.

    property = read_vnnlib("instance.vnnlib.gz")
    write_robustness("instance.vnnlib.gz", x - eps, x + eps, y=3, classes=10)
"""

from __future__ import annotations

import gzip
import math
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain, product
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ctbench.results.jsonl import write_whole
from ctbench.specification import check_labels, margin_rows

MAX_BYTES = 64 << 20  # of a file, unpacked
MAX_DEPTH = 300  # of parentheses within one another
MAX_ALTERNATIVES = 100_000  # conjunctions of the disjunctive normal form
MAX_NUMBERS = 50_000_000  # in all boxes and rows together
MAX_DIGITS = 4000  # of a number; and what its exponent may be
MAX_BITS = 100_000  # of a product of numbers


class VnnlibError(ValueError):
    """A file is not VNN-LIB 1.0, or no property of a box: says where, and what was expected."""


class Row(NamedTuple):
    """<coefficients, y> + offset <= 0, or < 0, in rational numbers."""

    coefficients: tuple[tuple[int, Fraction], ...]  # those that are not 0, by their place
    offset: Fraction
    strict: bool = False

    def contains(self, outputs: Sequence[float | Fraction]) -> bool:
        value = sum((weight * Fraction(outputs[k]) for k, weight in self.coefficients), self.offset)
        return value < 0 or (value == 0 and not self.strict)

    @property
    def never(self) -> bool:
        """Whether it contains no outputs at all, as it does not depend on them."""
        return not self.coefficients and not self.contains(())

    def scaled(self, width: int) -> tuple[list[float], float]:
        """Coefficients [K] in float64 and an offset, for a multiple of the row; the offset is never above it.

        The coefficients are exact, if those of a multiple are: 0.1 and 0.3 are not, but 1 and 3 are.
        """
        factor, values = Fraction(1), [weight for _, weight in self.coefficients]
        if any(Fraction(float(value)) != value for value in values):
            whole = math.lcm(*(value.denominator for value in values))
            most = max(map(abs, values))
            if most * whole < 2**53:
                factor = Fraction(whole, 2 ** whole.bit_length())  # near to 1: bounds are told in this unit
            if most < Fraction(2) ** -900:  # too small for all of its digits
                most = max(most, abs(self.offset))
                factor *= Fraction(2) ** (most.denominator.bit_length() - most.numerator.bit_length())
        row = [0.0] * width
        for place, weight in self.coefficients:
            row[place] = float(weight * factor)
        return row, _below(self.offset * factor)


@dataclass(frozen=True, eq=False)
class Halfspaces:
    """All outputs y with A y + b <= 0 in every row, or < 0 where the row is strict.

    Raises:
        ValueError: there is no row, shapes do not fit, or numbers are not finite float64.
    """

    rows: Tensor  # A, [m, K]
    offsets: Tensor  # b, [m]
    strict: Tensor | None = None  # which rows exclude their edge, [m]; None for none of them
    exact: tuple[Row, ...] | None = None  # the rows that A and b are rounded from; None where they are these

    def __post_init__(self) -> None:
        if self.rows.dim() != 2 or not len(self.rows) or self.offsets.shape != self.rows.shape[:1]:
            raise ValueError(
                f"rows are {list(self.rows.shape)} and offsets {list(self.offsets.shape)}: give [m, K] and [m], m >= 1"
            )
        _check_numbers(self.rows, self.offsets)
        if self.strict is not None and (self.strict.shape != self.offsets.shape or self.strict.dtype != torch.bool):
            raise ValueError(f"strict is {self.strict.dtype} {list(self.strict.shape)}: give a bool for each row, [m]")

    @cached_property
    def comparisons(self) -> tuple[Row, ...]:
        """The rows in rational numbers."""
        if self.exact is not None:
            return self.exact
        strict = [False] * len(self.rows) if self.strict is None else self.strict.tolist()
        return tuple(
            Row(tuple((k, Fraction(value)) for k, value in enumerate(row) if value != 0), Fraction(offset), edge)
            for row, offset, edge in zip(self.rows.tolist(), self.offsets.tolist(), strict, strict=True)
        )

    @cached_property
    def never(self) -> bool:
        """Whether a row that does not depend on the outputs excludes them all."""
        return any(row.never for row in self.comparisons)

    def margins(self) -> tuple[Tensor, Tensor]:
        """Rows [m, K] and offsets [m] in float64 that are positive nowhere where these, or multiples of them, are not.

        That is so up to the rounding of coefficients without a multiple in float64.
        """
        if self.exact is None:
            return self.rows, self.offsets
        rows, offsets = zip(*(row.scaled(self.rows.shape[1]) for row in self.exact), strict=True)
        return torch.tensor(rows, dtype=torch.float64), torch.tensor(offsets, dtype=torch.float64)

    def contains(self, outputs: Tensor) -> Tensor:
        """Which outputs lie in it: [..., K] to [...], decided exactly; none that is NaN or infinite."""
        outputs = outputs.detach().to(self.rows)
        finite = torch.isfinite(outputs).all(-1)
        values, largest = outputs @ self.rows.T + self.offsets, outputs.abs() @ self.rows.abs().T + self.offsets.abs()
        # what rounding of the rows, and of sums in any order, comes to; and a term below the range of float64
        error = (outputs.shape[-1] + 4) * 2.0**-52 * largest + 1e-300 * (1 + outputs.abs().sum(-1, keepdim=True))
        inside = values < 0
        for place in (~(values.abs() > error) & finite.unsqueeze(-1)).nonzero().tolist():
            *sample, row = place
            inside[tuple(place)] = self.comparisons[row].contains(outputs[tuple(sample)].tolist())
        return inside.all(-1) & finite

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Halfspaces):
            return NotImplemented
        edges = [[row.strict for row in one.comparisons] for one in (self, other)]
        same = torch.equal(self.rows, other.rows) and torch.equal(self.offsets, other.offsets)
        return same and edges[0] == edges[1]


@dataclass(frozen=True, eq=False)
class RealBox:
    """A box whose bounds need be no float64 numbers, or do not belong to it, told by float64 numbers."""

    around: tuple[Tensor, Tensor]  # the corners of the least box around it, [n] each
    inside: tuple[Tensor, Tensor]  # the least and the greatest number in it, [n] each; where there is none, the first
    # is the greater one
    empty: bool  # whether no real number lies between some bounds


@dataclass(frozen=True, eq=False)
class Case:
    """One input box, and what must not come out of it: any of the alternatives in `unsafe`.

    The property holds for the case iff for each alternative and every x in the box some row has A y + b > 0 (or is 0,
    where it is strict).

    Raises:
        ValueError: an empty box, no alternative, or shapes and dtypes other than those below.
    """

    lower: Tensor  # [n] float64, in C order of the input's shape
    upper: Tensor  # [n] float64
    unsafe: tuple[Halfspaces, ...]
    real: RealBox | None = None  # the box that lower and upper are rounded from; None where they are its corners

    def __post_init__(self) -> None:
        if self.lower.dim() != 1 or self.lower.shape != self.upper.shape:
            raise ValueError(f"lower is {list(self.lower.shape)}, upper {list(self.upper.shape)}: both must be [n]")
        _check_numbers(self.lower, self.upper)
        empty = (self.lower > self.upper).nonzero()
        if len(empty):
            raise ValueError(f"the box is empty: lower > upper at input {int(empty[0])}")
        if not self.unsafe:
            raise ValueError("unsafe has no alternatives: a case needs at least one")

    @property
    def empty(self) -> bool:
        """Whether no input lies in the box, as `x < 1 and x >= 1` says."""
        return self.real is not None and self.real.empty

    @property
    def around(self) -> tuple[Tensor, Tensor]:
        """The corners of a box of float64 numbers that all inputs lie in, [n] each."""
        return (self.lower, self.upper) if self.real is None else self.real.around

    @property
    def rounded(self) -> bool:
        """Whether some input has no float64 number between its bounds, so that the nearest one must stand for them."""
        return self.real is not None and bool((self.real.inside[0] > self.real.inside[1]).any())

    def nearest(self, x: Tensor) -> Tensor:
        """The nearest float64 inputs of the box, [..., n] to [..., n].

        Where no float64 number lies between the bounds of an input, it is the one nearest to its lower bound.
        """
        lower, upper = (corner.to(x.device) for corner in self._inside)
        return torch.minimum(torch.maximum(x, lower), upper)

    @property
    def _inside(self) -> tuple[Tensor, Tensor]:
        if self.real is None:
            return self.lower, self.upper
        lower, upper = self.real.inside
        return torch.where(lower > upper, self.lower, lower), torch.where(lower > upper, self.lower, upper)

    def includes(self, x: Tensor, *, tolerance: float = 0.0) -> bool:
        """Whether an input [n] lies in the box, decided exactly, or not further outside than the tolerance."""
        if self.empty:
            return False
        if tolerance == 0:
            return torch.equal(self.nearest(x), x)
        return bool(((self.lower - tolerance <= x) & (x <= self.upper + tolerance)).all())

    def violated(self, outputs: Tensor) -> Tensor:
        """Which outputs are unsafe: [..., K] to [...], decided exactly; the inputs are not looked at."""
        return torch.stack([alternative.contains(outputs) for alternative in self.unsafe]).any(0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Case):
            return NotImplemented
        boxes = torch.equal(self.lower, other.lower) and torch.equal(self.upper, other.upper)
        return boxes and self.empty == other.empty and self.unsafe == other.unsafe


@dataclass(frozen=True)
class Property:
    """No input of a case's box has an unsafe output. Raises ValueError for cases of other sizes, or none."""

    inputs: int  # n
    outputs: int  # K
    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        if not self.cases:
            raise ValueError("a property needs at least one case")
        for case in self.cases:
            widths = {alternative.rows.shape[1] for alternative in case.unsafe}
            if len(case.lower) != self.inputs or widths != {self.outputs}:
                raise ValueError(
                    f"a case has {len(case.lower)} inputs and rows of {sorted(widths)} outputs; the property has "
                    f"{self.inputs} and {self.outputs}"
                )

    def is_counterexample(self, x: Tensor, y: Tensor, *, tolerance: float = 0.0) -> bool:
        """Whether the input x with the network's output y breaks the property, decided in rational numbers.

        An input that no float64 number fits, as one that must be 0.1, may be the nearest float64 number.

        Args:
            x: n numbers in any shape, read in C order.
            y: K numbers in any shape.
            tolerance: how far each input may be outside of its bounds, whose strictness then plays no part.

        Raises:
            ValueError: another count of numbers.
        """
        if (x.numel(), y.numel()) != (self.inputs, self.outputs):
            raise ValueError(
                f"x has {x.numel()} numbers and y {y.numel()}: the property has {self.inputs} inputs and "
                f"{self.outputs} outputs"
            )
        x, y = x.detach().cpu().double().flatten(), y.detach().cpu().flatten()
        return any(case.includes(x, tolerance=tolerance) and bool(case.violated(y)) for case in self.cases)


def robustness(lower: Tensor, upper: Tensor, y: int, classes: int) -> Property:
    """Class y wins everywhere in the box: unsafe is y_y - y_k <= 0, for k != y in ascending order.

    Args:
        lower: the n numbers of one input, of at most three dimensions or as a batch of one, in the space of the
            network's input; kept exactly, as float64.
        upper: the same.
        y: the class.
        classes: how many there are, two or more.

    Raises:
        ValueError: an empty box, a batch of several inputs, a y that is no class, or fewer than two classes.
    """
    if lower.dim() > 3 and len(lower) != 1:
        raise ValueError(f"lower has the shape {list(lower.shape)}, a batch of {len(lower)}: a property has one input")
    if classes < 2:
        raise ValueError(f"classes is {classes}: robustness needs two classes or more")
    label = torch.tensor([y])
    check_labels(label, classes)
    zero = torch.zeros(1, dtype=torch.float64)
    unsafe = tuple(Halfspaces(row.unsqueeze(0), zero) for row in margin_rows(label, classes, torch.float64)[0])
    lower, upper = (corner.detach().cpu().double().flatten() for corner in (lower, upper))
    return Property(len(lower), classes, (Case(lower, upper, unsafe),))


# Reading: text -> expressions -> alternatives -> cases


def read_vnnlib(path: Path | str) -> Property:
    """The property of a file, unpacked where its name ends in .gz.

    Raises:
        FileNotFoundError: there is no such file.
        VnnlibError: what it holds is no property of boxes in VNN-LIB 1.0; names the line where there is one.
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
    """The property that a text describes. `name` is what errors call it; raises VnnlibError as `read_vnnlib` does."""
    try:
        return _property(_commands(text))
    except _LocatedError as error:
        line = "" if error.at is None else f", line {text.count(chr(10), 0, error.at) + 1}"
        raise VnnlibError(f"{name}{line}: {error}") from None


class _LocatedError(Exception):
    """What is wrong, and at which character of the text; None for the text as a whole."""

    def __init__(self, message: str, at: int | None = None) -> None:
        super().__init__(message)
        self.at = at


class _Word(NamedTuple):
    text: str
    at: int


class _Form(NamedTuple):
    """What stands within a pair of parentheses."""

    parts: list[_Expression]
    at: int


_Expression: TypeAlias = _Word | _Form

TOKEN = re.compile(r";[^\r\n]*|[()]|[^\s();]+")
VARIABLE = re.compile(r"[XY]_(0|[1-9][0-9]{0,8})")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _commands(text: str) -> list[_Form]:
    """The forms of a text, without its comments."""
    commands: list[_Form] = []
    open_forms: list[_Form] = []
    for token in TOKEN.finditer(text):
        word, at = token.group(), token.start()
        if word == "(":
            if len(open_forms) == MAX_DEPTH:
                raise _LocatedError(f"parentheses are nested more than {MAX_DEPTH} deep", at)
            form = _Form([], at)
            if open_forms:
                open_forms[-1].parts.append(form)
            else:
                commands.append(form)
            open_forms.append(form)
        elif word == ")":
            if not open_forms:
                raise _LocatedError("a ')' closes nothing", at)
            open_forms.pop()
        elif word[0] != ";":
            if not open_forms:
                raise _LocatedError(f"{_quoted(word)} stands outside of all parentheses", at)
            open_forms[-1].parts.append(_Word(word, at))
    if open_forms:
        raise _LocatedError("this '(' is never closed", open_forms[0].at)
    return commands


def _property(commands: list[_Form]) -> Property:
    if not commands:
        raise _LocatedError("it is empty: expected declarations and asserts")
    declarations, asserts = [], []
    for form in commands:
        command, arguments = _application(form)
        if command == "declare-const":
            declarations.append(form)
        elif command == "assert":
            _check_count(form, len(arguments) == 1, "one formula")
            asserts.append(arguments[0])
        else:
            raise _LocatedError(f"{_quoted(command)} is not supported: expected declare-const or assert", form.at)
    declared = _declared(declarations)
    inputs, outputs = (_count(declared, letter) for letter in "XY")
    alternatives = _all_of([_alternatives(formula, declared) for formula in asserts], at=None)
    return Property(inputs, outputs, tuple(_cases(alternatives, inputs, outputs)))


def _application(expression: _Expression) -> tuple[str, list[_Expression]]:
    """What a form begins with, and the rest of it."""
    if isinstance(expression, _Word):
        raise _LocatedError(f"{_quoted(expression.text)} stands where a '(' was expected", expression.at)
    if not expression.parts or not isinstance(expression.parts[0], _Word):
        raise _LocatedError("a '(' must be followed by a command or an operator", expression.at)
    return expression.parts[0].text, expression.parts[1:]


def _declared(declarations: list[_Form]) -> set[str]:
    """The names of all variables."""
    names: set[str] = set()
    for form in declarations:
        words = [part.text for part in form.parts if isinstance(part, _Word)]
        _check_count(form, len(words) == len(form.parts) == 3, "a name and a type")
        _, name, kind = words
        if not VARIABLE.fullmatch(name):
            raise _LocatedError(f"a variable is called {_quoted(name)}: names are X_0, X_1, ... and Y_0, ...", form.at)
        if kind != "Real":
            raise _LocatedError(f"{name} is declared as {_quoted(kind)}: expected Real", form.at)
        if name in names:
            raise _LocatedError(f"{name} is declared twice", form.at)
        names.add(name)
    return names


def _count(declared: set[str], letter: str) -> int:
    """How many variables of a letter there are; they must be numbered 0, 1, 2, ..."""
    count = max(1, sum(name[0] == letter for name in declared))
    missing = next((name for name in (f"{letter}_{i}" for i in range(count)) if name not in declared), None)
    if missing is not None:
        raise _LocatedError(f"{missing} is not declared: {letter} must be numbered 0, 1, 2, ... without gaps")
    return count


class _Bound(NamedTuple):
    coordinate: int
    side: int  # 1 for an upper bound, -1 for a lower one
    nearest: float
    exact: Fraction
    strict: bool

    def tighter(self, other: _Bound) -> bool:
        """Whether it says more than another bound of the same side."""
        if self.nearest != other.nearest:  # most bounds differ there, which is quicker
            return (self.nearest < other.nearest) == (self.side > 0)
        if self.exact != other.exact:
            return (self.exact < other.exact) == (self.side > 0)
        return self.strict and not other.strict

    @property
    def around(self) -> float:
        """The float64 number nearest to it that is not inside of it."""
        beyond = (Fraction(self.nearest) - self.exact) * self.side
        return self.nearest if beyond >= 0 else _next(self.nearest, self.side)

    @property
    def inside(self) -> float:
        """The float64 number nearest to it that keeps it."""
        beyond = (Fraction(self.nearest) - self.exact) * self.side
        kept = beyond < 0 or (beyond == 0 and not self.strict)
        return self.nearest if kept else _next(self.nearest, -self.side)


class _Alternative(NamedTuple):
    """A conjunction. Bounds are in parts, which alternatives share: an `or` copies no box of thousands of bounds."""

    bounds: tuple[tuple[_Bound, ...], ...]
    rows: tuple[Row, ...]


def _alternatives(formula: _Expression, declared: set[str]) -> list[_Alternative]:
    """The disjunctive normal form of a formula."""
    operator, operands = _application(formula)
    if operator in ("and", "or"):
        _check_count(formula, bool(operands), "one formula or more")
        parts = [_alternatives(operand, declared) for operand in operands]
        return _all_of(parts, formula.at) if operator == "and" else _any_of(parts, formula.at)
    if operator in ("<=", ">=", "<", ">"):
        _check_count(formula, len(operands) == 2, "two terms")
        left, right = (_linear(operand, declared) for operand in operands)
        smaller, larger = (left, right) if operator[0] == "<" else (right, left)
        return [_nonpositive(_sum([(1, smaller), (-1, larger)]), formula.at, strict=len(operator) == 1)]
    raise _LocatedError(f"{_quoted(operator)} is not supported: expected and, or, <=, >=, < or >", formula.at)


def _any_of(parts: list[list[_Alternative]], at: int | None) -> list[_Alternative]:
    _check_alternatives(sum(map(len, parts)), at)
    return list(chain.from_iterable(parts))


def _all_of(parts: list[list[_Alternative]], at: int | None) -> list[_Alternative]:
    certain = [part[0] for part in parts if len(part) == 1]
    choices = [part for part in parts if len(part) > 1]
    _check_alternatives(math.prod(map(len, choices)), at)
    bounds = tuple(bound for alternative in certain for layer in alternative.bounds for bound in layer)
    common = _Alternative((bounds,) if bounds else (), tuple(row for one in certain for row in one.rows))
    return [
        _Alternative(tuple(chain(*(one.bounds for one in chosen))), tuple(chain(*(one.rows for one in chosen))))
        for chosen in product([common], *choices)
    ]


def _check_alternatives(count: int, at: int | None) -> None:
    if count > MAX_ALTERNATIVES:
        raise _LocatedError(
            f"the formula has {count} alternatives once its ors are multiplied out: at most {MAX_ALTERNATIVES}", at
        )


_Linear: TypeAlias = dict[str, Fraction]  # coefficients of variables; that of "" is the constant


def _linear(term: _Expression, declared: set[str]) -> _Linear:
    if isinstance(term, _Word):
        return {term.text: Fraction(1)} if term.text in declared else {"": _number(term)}
    operator, operands = _application(term)
    if operator not in ("+", "-", "*"):
        raise _LocatedError(f"{_quoted(operator)} is not supported in a term: expected +, - or *", term.at)
    _check_count(term, bool(operands), "one term or more")
    terms = [_linear(operand, declared) for operand in operands]
    if operator == "*":
        return _product(terms, term.at)
    if operator == "-":
        sign = -1 if len(terms) == 1 else 1
        return _sum([(sign, terms[0]), *((-1, other) for other in terms[1:])])
    return _sum((1, other) for other in terms)


def _number(word: _Word) -> Fraction:
    if not NUMBER.fullmatch(word.text):
        raise _LocatedError(f"{_quoted(word.text)} is neither a declared variable nor a number", word.at)
    mantissa, _, exponent = word.text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > len(f"-{MAX_DIGITS}") or abs(int(exponent or 0)) > MAX_DIGITS:
        raise _LocatedError(
            f"{_quoted(word.text)} is a number of more than {MAX_DIGITS} digits, or with such an exponent", word.at
        )
    return Fraction(word.text)


def _sum(terms: Iterable[tuple[int | Fraction, _Linear]]) -> _Linear:
    total: _Linear = {}
    for weight, term in terms:
        for name, coefficient in term.items():
            value = coefficient if weight == 1 else weight * coefficient
            total[name] = total[name] + value if name in total else value
    return total


def _product(factors: list[_Linear], at: int) -> _Linear:
    variable = [factor for factor in factors if factor.keys() != {""}]
    if len(variable) > 1:
        raise _LocatedError("a product of variables is not linear", at)
    weight = Fraction(1)
    for factor in factors:
        if factor.keys() == {""}:
            weight *= factor[""]
            if max(weight.numerator.bit_length(), weight.denominator.bit_length()) > MAX_BITS:
                raise _LocatedError(f"a product of numbers has more than {MAX_BITS} bits", at)
    return _sum([(weight, variable[0] if variable else {"": Fraction(1)})])


def _nonpositive(term: _Linear, at: int, *, strict: bool) -> _Alternative:
    """term <= 0, or < 0, as a bound of an input, or as a row over the outputs."""
    constant = term.pop("", Fraction(0))
    coefficients = {name: value for name, value in term.items() if value != 0}
    for value in (constant, *coefficients.values()):
        _nearest(value, at)
    if not any(name[0] == "X" for name in coefficients):
        return _Alternative((), (Row(tuple((int(k[2:]), v) for k, v in coefficients.items()), constant, strict),))
    if len(coefficients) > 1:
        raise _LocatedError(
            f"only box constraints on inputs are supported: {' and '.join(sorted(coefficients)[:3])} are compared", at
        )
    (name, slope), *_ = coefficients.items()
    exact = -constant / slope
    bound = _Bound(int(name[2:]), 1 if slope > 0 else -1, _nearest(exact, at), exact, strict)
    return _Alternative(((bound,),), ())


def _cases(alternatives: list[_Alternative], inputs: int, outputs: int) -> Iterator[Case]:
    """The alternatives, sorted by their boxes; those that no input satisfies are left out, if there are others.

    Where all that keeps inputs out is that a bound excludes itself, the box is kept, and is empty.
    """
    if not all(alternative.rows for alternative in alternatives):
        raise _LocatedError("nothing is asserted about the outputs Y, or not in every alternative of an or")
    shared: dict[tuple[int, ...], list[_Alternative]] = {}
    for alternative in alternatives:
        shared.setdefault(tuple(map(id, alternative.bounds)), []).append(alternative)
    numbers = 2 * len(shared) * inputs + sum(len(alternative.rows) for alternative in alternatives) * outputs
    if numbers > MAX_NUMBERS:
        raise _LocatedError(f"boxes and rows would be {numbers} numbers: at most {MAX_NUMBERS}")
    unsafe: dict[_Corners, list[Halfspaces]] = {}
    empty: list[tuple[_Corners, list[Halfspaces]]] = []  # the first box whose bounds exclude one another
    conflict = None
    for members in shared.values():
        lower, upper = _box(members[0].bounds, inputs)
        found = next(_apart(lower, upper), None)
        if found is None or found[0].exact == found[1].exact:
            _check_bounded(lower, upper)
            corners = _Corners.of(lower, upper, empty=found is not None)
            halfspaces = [_halfspaces(member.rows, outputs) for member in members]
            if found is None:
                unsafe.setdefault(corners, []).extend(halfspaces)
            else:
                empty = empty or [(corners, halfspaces)]
        elif conflict is None:
            name = f"X_{found[0].coordinate}"
            conflict = f"the box is empty: {name} >= {found[0].nearest!r} and {name} <= {found[1].nearest!r}"
    if conflict is not None and not unsafe and not empty:
        raise _LocatedError(conflict)
    for corners, halfspaces in unsafe.items() or empty:
        yield corners.case(tuple(halfspaces))


_Side: TypeAlias = list[_Bound | None]  # the tightest bound of each input, if it has one


def _box(layers: Iterable[Iterable[_Bound]], inputs: int) -> tuple[_Side, _Side]:
    """The tightest lower and upper bounds."""
    lower: _Side = [None] * inputs
    upper: _Side = [None] * inputs
    for bound in chain.from_iterable(layers):
        side = upper if bound.side > 0 else lower
        known = side[bound.coordinate]
        if known is None or bound.tighter(known):
            side[bound.coordinate] = bound
    return lower, upper


def _apart(lower: _Side, upper: _Side) -> Iterator[tuple[_Bound, _Bound]]:
    """The bounds of each input between which nothing lies; those that exclude one another first."""
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
            raise _LocatedError(
                f"X_{side.index(None)} has no {name} bound: give every input both, in every alternative"
            )


class _Corners(NamedTuple):
    """A box by its numbers, to find cases of the same box."""

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


def _next(number: float, direction: int) -> float:
    """The next float64 number."""
    return math.nextafter(number, direction * math.inf) + 0.0  # never -0.0


def _below(number: Fraction) -> float:
    """The greatest float64 number that is not above it."""
    nearest = float(number)
    return nearest if Fraction(nearest) <= number else _next(nearest, -1)


def _check_count(form: _Expression, right: bool, expected: str) -> None:
    if not right:
        assert isinstance(form, _Form)
        raise _LocatedError(f"{_quoted(_application(form)[0])} needs {expected}, not {len(form.parts) - 1}", form.at)


def _nearest(number: Fraction, at: int) -> float:
    """The nearest float64 number; the number must lie between two of them."""
    try:
        found = float(number) + 0.0  # never -0.0
    except OverflowError:
        found = math.inf
    if abs(found) >= sys.float_info.max and abs(number) > sys.float_info.max:
        raise _LocatedError("a number is too large for double precision", at)
    return found


def _check_numbers(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float64 or not bool(torch.isfinite(tensor).all()):
            raise ValueError("the numbers of a property must be finite, and in float64")


def _quoted(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:40] + "...")


# Writing


def write_robustness(path: Path | str, lower: Tensor, upper: Tensor, y: int, classes: int) -> None:
    """Write that class y wins everywhere in a box. Arguments and errors are those of `robustness`."""
    write_property(path, robustness(lower, upper, y, classes))


def write_property(path: Path | str, prop: Property) -> None:
    """Write a property such that the file is never seen half-written; packed where the name ends in .gz.

    Numbers are written in as many digits as give the same float64, and without exponents, which some readers do not
    know. What is read back is equal, if no two cases have the same box: such are read as one. It is about the numbers
    that are written, which are within half a unit in the last place of the float64 ones.
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
    """Which lower and which upper bounds do not belong to the box."""
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
    left = f"(+ {' '.join(terms)})" if len(terms) > 1 else (terms or ["0.0"])[0]
    return f"({less} {left} {_digits(-offset)})"


def _digits(number: float) -> str:
    return np.format_float_positional(number + 0.0, trim="0")

"""VNN-LIB 1.0: properties of networks as text (Demarchi et al., FoMLAS 2023; https://www.vnnlib.org).

A file describes the counterexamples. The property holds where no input x and output y = f(x) satisfy all its asserts:

    (declare-const X_0 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)     ; comments end with the line
    (assert (>= X_0 -0.5)) (assert (<= X_0 0.5))
    (assert (or (and (>= Y_1 Y_0))))

`and` and `or` nest, comparisons are linear. What is read is the disjunctive normal form, sorted by input boxes:

    x, y is a counterexample  iff  some case has  lower <= x <= upper  and some (A, b) in unsafe with  A y + b <= 0

`<` and `>` are read as `<=` and `>=`: the unsafe set grows by its edge, so what is proved holds for the file, too. A
number is the nearest float64, and so is what sums and quotients of numbers come to.

    property = read_vnnlib("instance.vnnlib.gz")
    write_robustness("instance.vnnlib.gz", x - eps, x + eps, y=3, classes=10)
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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


class VnnlibError(ValueError):
    """A file is not VNN-LIB 1.0, or no property of a box: says where, and what was expected."""


@dataclass(frozen=True, eq=False)
class Halfspaces:
    """All outputs y with A y + b <= 0 in every row. Raises ValueError unless m >= 1 and all are finite float64."""

    rows: Tensor  # A, [m, K]
    offsets: Tensor  # b, [m]

    def __post_init__(self) -> None:
        if self.rows.dim() != 2 or not len(self.rows) or self.offsets.shape != self.rows.shape[:1]:
            raise ValueError(
                f"rows are {list(self.rows.shape)} and offsets {list(self.offsets.shape)}: give [m, K] and [m], m >= 1"
            )
        _check_numbers(self.rows, self.offsets)

    def contains(self, outputs: Tensor) -> Tensor:
        """Which outputs lie in it: [..., K] to [...], in double precision; none that is NaN or infinite.

        Exact for rows that compare two outputs with each other.
        """
        outputs = outputs.detach().to(self.rows)
        values = outputs @ self.rows.T + self.offsets
        return (values <= 0).all(-1) & torch.isfinite(outputs).all(-1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Halfspaces):
            return NotImplemented
        return torch.equal(self.rows, other.rows) and torch.equal(self.offsets, other.offsets)


@dataclass(frozen=True, eq=False)
class Case:
    """One input box, and what must not come out of it: any of the alternatives in `unsafe`.

    The property holds for the case iff for each alternative and every x in the box some row has A y + b > 0.

    Raises:
        ValueError: an empty box, no alternative, or shapes and dtypes other than those below.
    """

    lower: Tensor  # [n] float64, in C order of the input's shape
    upper: Tensor  # [n] float64
    unsafe: tuple[Halfspaces, ...]

    def __post_init__(self) -> None:
        if self.lower.dim() != 1 or self.lower.shape != self.upper.shape:
            raise ValueError(f"lower is {list(self.lower.shape)}, upper {list(self.upper.shape)}: both must be [n]")
        _check_numbers(self.lower, self.upper)
        empty = (self.lower > self.upper).nonzero()
        if len(empty):
            raise ValueError(f"the box is empty: lower > upper at input {int(empty[0])}")
        if not self.unsafe:
            raise ValueError("unsafe has no alternatives: a case needs at least one")

    def violated(self, outputs: Tensor) -> Tensor:
        """Which outputs are unsafe: [..., K] to [...]; the inputs are not looked at."""
        return torch.stack([alternative.contains(outputs) for alternative in self.unsafe]).any(0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Case):
            return NotImplemented
        boxes = torch.equal(self.lower, other.lower) and torch.equal(self.upper, other.upper)
        return boxes and self.unsafe == other.unsafe


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
        """Whether the input x with the network's output y breaks the property.

        Args:
            x: n numbers in any shape, read in C order.
            y: K numbers in any shape.
            tolerance: how far each input may be outside of its bounds; 0 is exact.

        Raises:
            ValueError: another count of numbers.
        """
        if (x.numel(), y.numel()) != (self.inputs, self.outputs):
            raise ValueError(
                f"x has {x.numel()} numbers and y {y.numel()}: the property has {self.inputs} inputs and "
                f"{self.outputs} outputs"
            )
        x, y = x.detach().cpu().double().flatten(), y.detach().cpu().flatten()
        return any(
            bool(((case.lower - tolerance <= x) & (x <= case.upper + tolerance)).all()) and bool(case.violated(y))
            for case in self.cases
        )


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
    lower: float
    upper: float


class _Row(NamedTuple):
    coefficients: tuple[tuple[int, float], ...]
    offset: float


class _Alternative(NamedTuple):
    """A conjunction. Bounds are in parts, which alternatives share: an `or` copies no box of thousands of bounds."""

    bounds: tuple[tuple[_Bound, ...], ...]
    rows: tuple[_Row, ...]


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
        return [_nonpositive(_sum([(1.0, smaller), (-1.0, larger)]), formula.at)]
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


_Linear: TypeAlias = dict[str, float]  # coefficients of variables; that of "" is the constant


def _linear(term: _Expression, declared: set[str]) -> _Linear:
    if isinstance(term, _Word):
        return {term.text: 1.0} if term.text in declared else {"": _number(term)}
    operator, operands = _application(term)
    if operator not in ("+", "-", "*"):
        raise _LocatedError(f"{_quoted(operator)} is not supported in a term: expected +, - or *", term.at)
    _check_count(term, bool(operands), "one term or more")
    terms = [_linear(operand, declared) for operand in operands]
    if operator == "*":
        return _product(terms, term.at)
    if operator == "-":
        sign = -1.0 if len(terms) == 1 else 1.0
        return _sum([(sign, terms[0]), *((-1.0, other) for other in terms[1:])])
    return _sum((1.0, other) for other in terms)


def _number(word: _Word) -> float:
    if not NUMBER.fullmatch(word.text):
        raise _LocatedError(f"{_quoted(word.text)} is neither a declared variable nor a number", word.at)
    return float(word.text)


def _sum(terms: Iterable[tuple[float, _Linear]]) -> _Linear:
    total: _Linear = {}
    for weight, term in terms:
        for name, coefficient in term.items():
            total[name] = total.get(name, 0.0) + weight * coefficient
    return total


def _product(factors: list[_Linear], at: int) -> _Linear:
    variable = [factor for factor in factors if factor.keys() != {""}]
    if len(variable) > 1:
        raise _LocatedError("a product of variables is not linear", at)
    weight = math.prod(factor[""] for factor in factors if factor.keys() == {""})
    return _sum([(weight, variable[0] if variable else {"": 1.0})])


def _nonpositive(term: _Linear, at: int) -> _Alternative:
    """term <= 0 as a bound of an input, or as a row over the outputs."""
    constant = term.pop("", 0.0)
    coefficients = {name: value for name, value in term.items() if value != 0}
    _check_finite((constant, *coefficients.values()), at)
    if not any(name[0] == "X" for name in coefficients):
        return _Alternative((), (_Row(tuple((int(k[2:]), v) for k, v in coefficients.items()), constant),))
    if len(coefficients) > 1:
        raise _LocatedError(
            f"only box constraints on inputs are supported: {' and '.join(sorted(coefficients)[:3])} are compared", at
        )
    (name, slope), *_ = coefficients.items()
    bound = -constant / slope + 0.0  # never -0.0
    _check_finite((bound,), at)
    interval = (-math.inf, bound) if slope > 0 else (bound, math.inf)
    return _Alternative(((_Bound(int(name[2:]), *interval),),), ())


def _cases(alternatives: list[_Alternative], inputs: int, outputs: int) -> Iterator[Case]:
    """The alternatives, sorted by their boxes; those that no input satisfies are left out, if there are others."""
    if not all(alternative.rows for alternative in alternatives):
        raise _LocatedError("nothing is asserted about the outputs Y, or not in every alternative of an or")
    shared: dict[tuple[int, ...], list[_Alternative]] = {}
    for alternative in alternatives:
        shared.setdefault(tuple(map(id, alternative.bounds)), []).append(alternative)
    numbers = 2 * len(shared) * inputs + sum(len(alternative.rows) for alternative in alternatives) * outputs
    if numbers > MAX_NUMBERS:
        raise _LocatedError(f"boxes and rows would be {numbers} numbers: at most {MAX_NUMBERS}")
    unsafe: dict[tuple[tuple[float, ...], ...], list[Halfspaces]] = {}
    empty = None
    for members in shared.values():
        lower, upper = _box(members[0].bounds, inputs)
        conflict = next((i for i in range(inputs) if lower[i] > upper[i]), None)
        if conflict is None:
            _check_bounded(lower, upper)
            unsafe.setdefault((lower, upper), []).extend(_halfspaces(member.rows, outputs) for member in members)
        elif empty is None:
            empty = f"the box is empty: X_{conflict} >= {lower[conflict]!r} and X_{conflict} <= {upper[conflict]!r}"
    if empty is not None and not unsafe:
        raise _LocatedError(empty)
    for box, halfspaces in unsafe.items():
        corners = [torch.tensor(corner, dtype=torch.float64) for corner in box]
        yield Case(corners[0], corners[1], tuple(halfspaces))


def _box(layers: Iterable[Iterable[_Bound]], inputs: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The tightest lower and upper bounds."""
    lower, upper = [-math.inf] * inputs, [math.inf] * inputs
    for bound in chain.from_iterable(layers):
        lower[bound.coordinate] = max(lower[bound.coordinate], bound.lower)
        upper[bound.coordinate] = min(upper[bound.coordinate], bound.upper)
    return tuple(lower), tuple(upper)


def _check_bounded(lower: Sequence[float], upper: Sequence[float]) -> None:
    for side, corner in (("lower", lower), ("upper", upper)):
        missing = next((i for i, bound in enumerate(corner) if math.isinf(bound)), None)
        if missing is not None:
            raise _LocatedError(f"X_{missing} has no {side} bound: give every input both, in every alternative")


def _halfspaces(rows: Sequence[_Row], outputs: int) -> Halfspaces:
    matrix = np.zeros((len(rows), outputs))
    for line, row in zip(matrix, rows, strict=True):
        for index, coefficient in row.coefficients:
            line[index] = coefficient
    return Halfspaces(torch.from_numpy(matrix), torch.tensor([row.offset for row in rows], dtype=torch.float64))


def _check_count(form: _Expression, right: bool, expected: str) -> None:
    if not right:
        assert isinstance(form, _Form)
        raise _LocatedError(f"{_quoted(_application(form)[0])} needs {expected}, not {len(form.parts) - 1}", form.at)


def _check_finite(values: Iterable[float], at: int) -> None:
    if not all(map(math.isfinite, values)):
        raise _LocatedError("a number is too large for double precision", at)


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
    know. What is read back is equal, if no two cases have the same box: such are read as one.
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
    rows = zip(alternative.rows.tolist(), alternative.offsets.tolist(), strict=True)
    return f"(and {' '.join(_comparison(row, offset) for row, offset in rows)})"


def _bounds(case: Case) -> Iterator[str]:
    for i, (lower, upper) in enumerate(zip(case.lower.tolist(), case.upper.tolist(), strict=True)):
        yield f"(>= X_{i} {_digits(lower)})"
        yield f"(<= X_{i} {_digits(upper)})"


def _comparison(row: list[float], offset: float) -> str:
    """<row, y> + offset <= 0."""
    coefficients = {f"Y_{k}": value for k, value in enumerate(row) if value != 0}
    if offset == 0 and sorted(coefficients.values()) == [-1.0, 1.0]:
        smaller, larger = sorted(coefficients, key=coefficients.__getitem__, reverse=True)
        return f"(>= {larger} {smaller})"
    terms = [name if value == 1 else f"(* {_digits(value)} {name})" for name, value in coefficients.items()]
    left = f"(+ {' '.join(terms)})" if len(terms) > 1 else (terms or ["0.0"])[0]
    return f"(<= {left} {_digits(-offset)})"


def _digits(number: float) -> str:
    return np.format_float_positional(number + 0.0, trim="0")

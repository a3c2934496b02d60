"""Formulas in disjunctive normal form: alternatives of bounds of inputs and rows over outputs, in rational numbers."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain, product
from typing import NamedTuple, TypeAlias

from ctbench.vnnlib.property import Row, next_double
from ctbench.vnnlib.syntax import Expression, LocatedError, Word, application, check_count, quoted

MAX_ALTERNATIVES = 100_000  # conjunctions of the disjunctive normal form
MAX_DIGITS = 4000  # of a number; also the largest exponent
MAX_BITS = 100_000  # of a product of numbers

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Bound(NamedTuple):
    coordinate: int
    side: int  # 1 for an upper bound, -1 for a lower one
    nearest: float
    exact: Fraction
    strict: bool

    def tighter(self, other: Bound) -> bool:
        """Whether it is tighter than another bound of the same side."""
        if self.nearest != other.nearest:  # most bounds differ here, and floats are fast to compare
            return (self.nearest < other.nearest) == (self.side > 0)
        if self.exact != other.exact:
            return (self.exact < other.exact) == (self.side > 0)
        return self.strict and not other.strict

    @property
    def around(self) -> float:
        """The nearest float64 number on the bound or outside of it."""
        beyond = (Fraction(self.nearest) - self.exact) * self.side
        return self.nearest if beyond >= 0 else next_double(self.nearest, self.side)

    @property
    def inside(self) -> float:
        """The nearest float64 number that satisfies the bound."""
        beyond = (Fraction(self.nearest) - self.exact) * self.side
        satisfied = beyond < 0 or (beyond == 0 and not self.strict)
        return self.nearest if satisfied else next_double(self.nearest, -self.side)


class Alternative(NamedTuple):
    """A conjunction. Alternatives share tuples of bounds, so that an `or` copies no box of thousands of bounds."""

    bounds: tuple[tuple[Bound, ...], ...]
    rows: tuple[Row, ...]


def alternatives_of(formula: Expression, declared: set[str]) -> list[Alternative]:
    """The disjunctive normal form of a formula."""
    operator, operands = application(formula)
    if operator in ("and", "or"):
        check_count(formula, bool(operands), "one formula or more")
        parts = [alternatives_of(operand, declared) for operand in operands]
        return all_of(parts, formula.at) if operator == "and" else _any_of(parts, formula.at)
    if operator in ("<=", ">=", "<", ">"):
        check_count(formula, len(operands) == 2, "two terms")
        left, right = (_linear(operand, declared) for operand in operands)
        smaller, larger = (left, right) if operator[0] == "<" else (right, left)
        return [_nonpositive(_sum([(1, smaller), (-1, larger)]), formula.at, strict=len(operator) == 1)]
    raise LocatedError(f"{quoted(operator)} is not supported: expected and, or, <=, >=, < or >", formula.at)


def _any_of(parts: list[list[Alternative]], at: int | None) -> list[Alternative]:
    _check_alternatives(sum(map(len, parts)), at)
    return list(chain.from_iterable(parts))


def all_of(parts: list[list[Alternative]], at: int | None) -> list[Alternative]:
    certain = [part[0] for part in parts if len(part) == 1]
    choices = [part for part in parts if len(part) > 1]
    _check_alternatives(math.prod(map(len, choices)), at)
    bounds = tuple(bound for alternative in certain for layer in alternative.bounds for bound in layer)
    common = Alternative((bounds,) if bounds else (), tuple(row for one in certain for row in one.rows))
    return [
        Alternative(tuple(chain(*(one.bounds for one in chosen))), tuple(chain(*(one.rows for one in chosen))))
        for chosen in product([common], *choices)
    ]


def _check_alternatives(count: int, at: int | None) -> None:
    if count > MAX_ALTERNATIVES:
        raise LocatedError(
            f"the formula has {count} alternatives once its ors are multiplied out: at most {MAX_ALTERNATIVES}", at
        )


_Linear: TypeAlias = dict[str, Fraction]  # the coefficients by variable; the constant is under ""


def _linear(term: Expression, declared: set[str]) -> _Linear:
    if isinstance(term, Word):
        return {term.text: Fraction(1)} if term.text in declared else {"": _number(term)}
    operator, operands = application(term)
    if operator not in ("+", "-", "*"):
        raise LocatedError(f"{quoted(operator)} is not supported in a term: expected +, - or *", term.at)
    check_count(term, bool(operands), "one term or more")
    terms = [_linear(operand, declared) for operand in operands]
    if operator == "*":
        return _product(terms, term.at)
    if operator == "-":
        sign = -1 if len(terms) == 1 else 1
        return _sum([(sign, terms[0]), *((-1, other) for other in terms[1:])])
    return _sum((1, other) for other in terms)


def _number(word: Word) -> Fraction:
    if not NUMBER.fullmatch(word.text):
        raise LocatedError(f"{quoted(word.text)} is neither a declared variable nor a number", word.at)
    mantissa, _, exponent = word.text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > len(f"-{MAX_DIGITS}") or abs(int(exponent or 0)) > MAX_DIGITS:
        raise LocatedError(
            f"{quoted(word.text)} has more than {MAX_DIGITS} digits, or an exponent beyond {MAX_DIGITS}", word.at
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
        raise LocatedError("a product of variables is not linear", at)
    weight = Fraction(1)
    for factor in factors:
        if factor.keys() == {""}:
            weight *= factor[""]
            if max(weight.numerator.bit_length(), weight.denominator.bit_length()) > MAX_BITS:
                raise LocatedError(f"a product of numbers has more than {MAX_BITS} bits", at)
    return _sum([(weight, variable[0] if variable else {"": Fraction(1)})])


def _nonpositive(term: _Linear, at: int, *, strict: bool) -> Alternative:
    """term <= 0, or < 0, as a bound of an input, or as a row over the outputs."""
    constant = term.pop("", Fraction(0))
    coefficients = {name: value for name, value in term.items() if value != 0}
    for value in (constant, *coefficients.values()):
        _nearest(value, at)
    if not any(name[0] == "X" for name in coefficients):
        return Alternative((), (Row(tuple((int(k[2:]), v) for k, v in coefficients.items()), constant, strict),))
    if len(coefficients) > 1:
        raise LocatedError(
            f"only box constraints on inputs are supported: {' and '.join(sorted(coefficients)[:3])} are compared", at
        )
    (name, slope), *_ = coefficients.items()
    exact = -constant / slope
    bound = Bound(int(name[2:]), 1 if slope > 0 else -1, _nearest(exact, at), exact, strict)
    return Alternative(((bound,),), ())


def _nearest(number: Fraction, at: int) -> float:
    """The nearest float64 number. Raises LocatedError if the number is outside of the range of float64."""
    try:
        nearest = float(number) + 0.0  # never -0.0
    except OverflowError:
        nearest = math.inf
    if abs(nearest) >= sys.float_info.max and abs(number) > sys.float_info.max:
        raise LocatedError("a number is too large for double precision", at)
    return nearest

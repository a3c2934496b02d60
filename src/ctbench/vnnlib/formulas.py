"""Comparisons in rational numbers: as bounds of inputs, as rows over inputs, or as rows over outputs.

    term       constants, variables, (+ ...), (- ...), (* ...) and (/ ...) by constants
    formula    (<= ...), (>= ...), (< ...), (> ...), (= ...) or (== ...) of two terms or more, each compared with the
               next one; (!= a b) or (distinct a b); (and ...), (or ...)

A row over outputs may also have inputs: the outputs are 0, ..., K - 1 there, and the inputs follow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import chain, pairwise, product
from typing import NamedTuple, TypeAlias

from ctbench.vnnlib.bounds import Bounds
from ctbench.vnnlib.halfspaces import Row
from ctbench.vnnlib.numbers import check_size, nearest, number
from ctbench.vnnlib.syntax import Expression, Form, LocatedError, Word, application, check_count, quoted
from ctbench.vnnlib.variables import Variables

MAX_ALTERNATIVES = 100_000  # conjunctions of the disjunctive normal form

ORDERS = ("<=", ">=", "<", ">")
EQUALITIES = ("=", "==")
DIFFERENCES = ("!=", "distinct")
COMPARISONS = (*ORDERS, *EQUALITIES, *DIFFERENCES)
_CONSTANT = -1  # the key of the constant of a term


class Alternative(NamedTuple):
    """A conjunction. Alternatives share bounds, so that an `or` copies no box of thousands of bounds."""

    bounds: tuple[Bounds, ...]
    rows: tuple[Row, ...]  # over outputs, and inputs after them
    input_rows: tuple[Row, ...] = ()  # over inputs alone


def any_of(parts: Sequence[list[Alternative]], at: int | None) -> list[Alternative]:
    _check_alternatives(sum(map(len, parts)), at)
    return list(chain.from_iterable(parts))


def all_of(parts: Sequence[list[Alternative]], at: int | None) -> list[Alternative]:
    certain = [part[0] for part in parts if len(part) == 1]
    choices = [part for part in parts if len(part) > 1]
    _check_alternatives(math.prod(map(len, choices)), at)
    common = _merged(certain)
    return [_merged(chosen) for chosen in product([common], *choices)] if choices else [common]


def _merged(alternatives: Sequence[Alternative]) -> Alternative:
    bounds, rows, input_rows = (
        tuple(chain.from_iterable(getattr(one, name) for one in alternatives)) for name in Alternative._fields
    )
    return Alternative(bounds, rows, input_rows)


def _check_alternatives(count: int, at: int | None) -> None:
    if count > MAX_ALTERNATIVES:
        raise LocatedError(
            f"the formula has {count} alternatives once its ors are multiplied out: at most {MAX_ALTERNATIVES}", at
        )


def compared(form: Form, variables: Variables) -> list[Alternative]:
    """The meaning of a comparison."""
    operator, operands = application(form)
    terms = [_linear(operand, variables) for operand in _indexed(operands, variables)]
    if operator in DIFFERENCES:
        check_count(form, len(terms) == 2, "two terms")
        return any_of([[_ordered(one, form.at, variables, strict=True)] for one in (terms, terms[::-1])], form.at)
    check_count(form, len(terms) >= 2, "two terms or more")
    strict, pairs = len(operator) == 1 and operator != "=", list(pairwise(terms))
    if operator[0] == ">":
        pairs = [(right, left) for left, right in pairs]
    if operator in EQUALITIES:
        pairs = [order for left, right in pairs for order in ((left, right), (right, left))]
    return all_of([[_ordered(pair, form.at, variables, strict=strict)] for pair in pairs], form.at)


def _indexed(operands: list[Expression], variables: Variables) -> list[Expression]:
    """The operands, with indices after a space joined with the name of their tensor."""
    if not variables.tensors:
        return operands
    joined = list[Expression]()
    for operand in operands:
        last = joined[-1] if joined else None
        if isinstance(operand, Word) and operand.text[0] == "[" and isinstance(last, Word) and "[" not in last.text:
            joined[-1] = Word(last.text + operand.text, last.at)
        else:
            joined.append(operand)
    return joined


_Linear: TypeAlias = dict[int, Fraction]  # the coefficients by variable, and the constant


def _linear(term: Expression, variables: Variables) -> _Linear:
    if isinstance(term, Word):
        try:
            variable = variables.find(term.text)
        except LocatedError as error:
            raise LocatedError(str(error), term.at) from None
        return {_CONSTANT: number(term)} if variable is None else {variable: Fraction(1)}
    operator, operands = application(term)
    if operator not in ("+", "-", "*", "/"):
        raise LocatedError(f"{quoted(operator)} is not supported in a term: expected +, -, * or /", term.at)
    check_count(term, bool(operands), "one term or more")
    terms = [_linear(operand, variables) for operand in _indexed(operands, variables)]
    if operator == "*":
        return _product(terms, term.at)
    if operator == "/":
        return _quotient(terms, term)
    if operator == "-":
        sign = -1 if len(terms) == 1 else 1
        return _sum([(sign, terms[0]), *((-1, other) for other in terms[1:])])
    return _sum((1, other) for other in terms)


def _sum(terms: Iterable[tuple[int | Fraction, _Linear]]) -> _Linear:
    total: _Linear = {}
    for weight, term in terms:
        for name, coefficient in term.items():
            value = coefficient if weight == 1 else weight * coefficient
            total[name] = total[name] + value if name in total else value
    return total


def _is_constant(term: _Linear) -> bool:
    return term.keys() == {_CONSTANT}


def _product(factors: list[_Linear], at: int) -> _Linear:
    variable = [factor for factor in factors if not _is_constant(factor)]
    if len(variable) > 1:
        raise LocatedError("a product of variables is not linear", at)
    weight = Fraction(1)
    for factor in factors:
        if _is_constant(factor):
            weight *= factor[_CONSTANT]
            check_size(weight, at, "product")
    return _sum([(weight, variable[0] if variable else {_CONSTANT: Fraction(1)})])


def _quotient(terms: list[_Linear], form: Form) -> _Linear:
    check_count(form, len(terms) >= 2, "two terms or more")
    first, *others = terms
    weight = Fraction(1)
    for other in others:
        if not _is_constant(other):
            raise LocatedError("a quotient by a variable is not linear", form.at)
        if other[_CONSTANT] == 0:
            raise LocatedError("a quotient by 0 is not a number", form.at)
        weight /= other[_CONSTANT]
        check_size(weight, form.at, "quotient")
    return _sum([(weight, first)])


def _ordered(pair: Sequence[_Linear], at: int, variables: Variables, *, strict: bool) -> Alternative:
    """first <= second, or first < second."""
    first, second = pair
    return _nonpositive(_sum([(1, first), (-1, second)]), at, variables, strict=strict)


def _nonpositive(term: _Linear, at: int, variables: Variables, *, strict: bool) -> Alternative:
    """term <= 0, or < 0, as a bound of an input, or as a row."""
    constant = term.pop(_CONSTANT, Fraction(0))
    coefficients = {variable: value for variable, value in term.items() if value != 0}
    for value in (constant, *coefficients.values()):
        nearest(value, at)
    inputs = [variable for variable in coefficients if variable < variables.inputs]
    if len(inputs) == len(coefficients) == 1:
        (variable, slope), *_ = coefficients.items()
        exact = -constant / slope
        bound = Bounds.one(2 * variable + (slope > 0), nearest(exact, at), exact, strict=strict)
        return Alternative((bound,), ())
    if inputs and len(inputs) == len(coefficients):
        return Alternative((), (), (Row(tuple(coefficients.items()), constant, strict),))
    columns = ((variables.column(variable), value) for variable, value in coefficients.items())
    return Alternative((), (Row(tuple(columns), constant, strict),))

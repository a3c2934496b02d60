"""The asserts of a text, read from its beginning to its end.

The tree of an assert is never made as a whole: a file may have millions of comparisons. A run of comparisons of
variables with numbers, which is what large files consist of, is read at once.
"""

from __future__ import annotations

import re
from fractions import Fraction

from ctbench.vnnlib.bounds import joined
from ctbench.vnnlib.formulas import COMPARISONS, Alternative, all_of, any_of, compared
from ctbench.vnnlib.halfspaces import Row
from ctbench.vnnlib.numbers import SHORT, short
from ctbench.vnnlib.syntax import (
    MAX_DEPTH,
    SPACE,
    TOKEN,
    Form,
    LocatedError,
    application,
    check_count,
    head_of,
    next_command,
    quoted,
    read_form,
)
from ctbench.vnnlib.variables import CONSTANTS, DECLARATIONS, Variables

_OPERATOR, _NAME = r"[<>]=?", r"[A-Za-z][A-Za-z0-9_]*(?:\[[0-9,]*\])?"
COMPARISON = re.compile(rf"\(\s*({_OPERATOR})\s+({_NAME})\s+({SHORT})\s*\)")
# runs are possessive (++): what was read is not looked at again. They are cut, so that lists of groups stay small.
_ONE = rf"\s*\(\s*{_OPERATOR}\s+{_NAME}\s+{SHORT}\s*\)"
RUN = re.compile(rf"(?:{_ONE}){{1,4000}}+")
ASSERTED_RUN = re.compile(rf"(?:\s*\(\s*assert{_ONE}\s*\)){{1,4000}}+")
_DECLARATION = re.compile(rf"\(\s*(?:{'|'.join(DECLARATIONS)})(?=[\s()])")


def declarations_of(text: str) -> Variables:
    """The variables of a text without comments; declarations may stand anywhere."""
    forms, end = list[Form](), 0
    for found in _DECLARATION.finditer(text):
        if found.start() >= end:
            form, end = read_form(text, found.start())
            forms.append(form)
    return Variables.of(forms)


def asserted(text: str, variables: Variables) -> list[list[Alternative]]:
    """The disjunctive normal form of each assert, or of a run of asserts."""
    parts, at = list[list[Alternative]](), next_command(text, 0)
    if at is None:
        raise LocatedError("it is empty: expected declarations and asserts")
    while at is not None:
        run = ASSERTED_RUN.match(text, at)
        alternative = None if run is None else _run(text, run, variables)
        if run is not None and alternative is not None:
            parts.append([alternative])
            end = run.end()
        else:
            part, end = _command(text, at, variables)
            parts += [] if part is None else [part]
        at = next_command(text, end)
    return parts


def _command(text: str, at: int, variables: Variables) -> tuple[list[Alternative] | None, int]:
    """What a command asserts, and the position after it; None for a declaration."""
    command, place = head_of(text, at)
    if command == "assert":
        found = SPACE.match(text, place)
        assert found is not None, "it also matches no space"
        if text[found.end() : found.end() + 1] != ")":
            alternatives, place = _formula(text, found.end(), 2, variables, at)
            if (found := SPACE.match(text, place)) and text[found.end() : found.end() + 1] == ")":
                return alternatives, found.end() + 1
    form, end = read_form(text, at)
    command, arguments = application(form)
    if command == "assert":
        check_count(form, len(arguments) == 1, "one formula")
    if command not in DECLARATIONS:
        expected = f"{', '.join(CONSTANTS)}, declare-network or assert"
        raise LocatedError(f"{quoted(command)} is not supported: expected {expected}", form.at)
    return None, end


def _formula(text: str, at: int, depth: int, variables: Variables, start: int) -> tuple[list[Alternative], int]:
    """The disjunctive normal form of the formula at a position, and the position after it.

    The formula lies `depth` parentheses deep, in the command that begins at `start`.
    """
    if text[at : at + 1] != "(":
        token = TOKEN.match(text, at)
        if token is None:
            raise LocatedError("this '(' has no ')'", start)
        raise LocatedError(f"{quoted(token[0])} is in the place of an expected '('", at)
    if depth > MAX_DEPTH:
        raise LocatedError(f"parentheses are nested more than {MAX_DEPTH} deep", at)
    operator, place = head_of(text, at)
    if operator not in ("and", "or"):
        form, end = read_form(text, at, depth)
        operator = application(form)[0]
        if operator not in COMPARISONS:
            expected = f"and, or, {', '.join(COMPARISONS[:-1])} or {COMPARISONS[-1]}"
            raise LocatedError(f"{quoted(operator)} is not supported: expected {expected}", at)
        return compared(form, variables), end
    parts = list[list[Alternative]]()
    while True:
        run = RUN.match(text, place) if operator == "and" else None
        alternative = None if run is None else _run(text, run, variables)
        if run is not None and alternative is not None:
            parts.append([alternative])
            place = run.end()
            continue
        found = SPACE.match(text, place)
        assert found is not None, "it also matches no space"
        if text[found.end() : found.end() + 1] == ")":
            break
        part, place = _formula(text, found.end(), depth + 1, variables, start)
        parts.append(part)
    if not parts:
        form, _ = read_form(text, at, depth)
        check_count(form, False, "one formula or more")
    return all_of(parts, at) if operator == "and" else any_of(parts, at), found.end() + 1


def _run(text: str, run: re.Match[str], variables: Variables) -> Alternative | None:
    """A run of comparisons of variables with numbers; None if a name is not that of a variable."""
    comparisons = COMPARISON.findall(text, run.start(), run.end())
    names = {name for _, name, _ in comparisons}
    try:
        found = {name: variables.find(name) for name in names}
    except LocatedError:  # of indices out of range; the error needs the place of the comparison
        return None
    places = {name: place for name, place in found.items() if place is not None}
    if len(places) < len(names):
        return None
    bounds = [one for one in comparisons if places[one[1]] < variables.inputs]
    rows = tuple(
        _row(comparison, places[name] - variables.inputs, Fraction(number))
        for comparison, name, number in comparisons
        if places[name] >= variables.inputs
    )
    if not bounds:
        return Alternative((), rows)
    ends = [2 * places[name] + (comparison[0] == "<") for comparison, name, _ in bounds]
    return Alternative(joined(bounds, [short(number) for _, _, number in bounds], ends).layers(), rows)


def _row(comparison: str, output: int, number: Fraction) -> Row:
    """y <= number, or another comparison with a number."""
    side = 1 if comparison[0] == "<" else -1
    return Row(((output, Fraction(side)),), -side * number, len(comparison) == 1)

"""The text of a VNN-LIB file as nested forms: words and parentheses, without comments."""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

MAX_DEPTH = 300  # of parentheses within one another

TOKEN = re.compile(r";[^\r\n]*|[()]|[^\s();]+")


class LocatedError(Exception):
    """A fault in the text. `at` is the position of the character, or None if the fault is in the text as a whole."""

    def __init__(self, message: str, at: int | None = None) -> None:
        super().__init__(message)
        self.at = at


class Word(NamedTuple):
    text: str
    at: int


class Form(NamedTuple):
    """The content of a pair of parentheses."""

    parts: list[Expression]
    at: int


Expression: TypeAlias = Word | Form


def commands_of(text: str) -> list[Form]:
    """The forms of a text, without its comments."""
    commands: list[Form] = []
    open_forms: list[Form] = []
    for token in TOKEN.finditer(text):
        word, at = token.group(), token.start()
        if word == "(":
            if len(open_forms) == MAX_DEPTH:
                raise LocatedError(f"parentheses are nested more than {MAX_DEPTH} deep", at)
            form = Form([], at)
            if open_forms:
                open_forms[-1].parts.append(form)
            else:
                commands.append(form)
            open_forms.append(form)
        elif word == ")":
            if not open_forms:
                raise LocatedError("there is a ')' without a '('", at)
            open_forms.pop()
        elif word[0] != ";":
            if not open_forms:
                raise LocatedError(f"{quoted(word)} is outside of all parentheses", at)
            open_forms[-1].parts.append(Word(word, at))
    if open_forms:
        raise LocatedError("this '(' has no ')'", open_forms[0].at)
    return commands


def application(expression: Expression) -> tuple[str, list[Expression]]:
    """The first word of a form, and its other parts."""
    if isinstance(expression, Word):
        raise LocatedError(f"{quoted(expression.text)} is in the place of an expected '('", expression.at)
    if not expression.parts or not isinstance(expression.parts[0], Word):
        raise LocatedError("a '(' must be followed by a command or an operator", expression.at)
    return expression.parts[0].text, expression.parts[1:]


def check_count(form: Expression, right: bool, expected: str) -> None:
    """Raise LocatedError unless the number of parts of a form is right."""
    if not right:
        assert isinstance(form, Form)
        raise LocatedError(f"{quoted(application(form)[0])} needs {expected}, not {len(form.parts) - 1}", form.at)


def quoted(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:40] + "...")

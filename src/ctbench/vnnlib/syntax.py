"""The text of a VNN-LIB file as nested forms: words and parentheses, without comments."""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

MAX_DEPTH = 300  # of parentheses within one another

TOKEN = re.compile(r'[()]|"[^"]*"|\[[^\[\]()]*\]|[^\s()\[\]"]+|\S')
_COMMENT = re.compile(r'"[^"\r\n]*"|;[^\r\n]*')
_HEAD = re.compile(r"\s*\(\s*([^\s()\[\]\"]+)")
SPACE = re.compile(r"\s*")


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


def without_comments(text: str) -> str:
    """The text with spaces in the place of comments, so that all positions stay the same."""
    if ";" not in text:
        return text
    return _COMMENT.sub(lambda found: found[0] if found[0][0] == '"' else " " * len(found[0]), text)


def read_form(text: str, at: int, depth: int = 1) -> tuple[Form, int]:
    """The form that begins at a position with '(', and the position after it. It lies `depth` parentheses deep.

    The indices of a tensor, e.g. [0,1], belong to the word before them if no space separates them.
    """
    open_forms = list[Form]()
    for token in TOKEN.finditer(text, at):
        word, place = token.group(), token.start()
        if word == "(":
            if len(open_forms) + depth > MAX_DEPTH:
                raise LocatedError(f"parentheses are nested more than {MAX_DEPTH} deep", place)
            form = Form([], place)
            if open_forms:
                open_forms[-1].parts.append(form)
            open_forms.append(form)
        elif word == ")":
            form = open_forms.pop()
            if not open_forms:
                return form, token.end()
        else:
            parts = open_forms[-1].parts
            last = parts[-1] if parts else None
            if word[0] == "[" and isinstance(last, Word) and last.at + len(last.text) == place:
                parts[-1] = Word(last.text + word, last.at)
            else:
                parts.append(Word(word, place))
    raise LocatedError("this '(' has no ')'", at)


def next_command(text: str, at: int) -> int | None:
    """The position of the next '(' outside of all parentheses; None at the end of the text."""
    place = SPACE.match(text, at).end()  # type: ignore[union-attr]
    if place == len(text):
        return None
    if text[place] != "(":
        token = TOKEN.match(text, place)
        assert token is not None, "there is a character that is not a space"
        if token[0] == ")":
            raise LocatedError("there is a ')' without a '('", place)
        raise LocatedError(f"{quoted(token[0])} is outside of all parentheses", place)
    return place


def head_of(text: str, at: int) -> tuple[str, int]:
    """The first word of the form at a position, "" if there is no word, and the position after it."""
    found = _HEAD.match(text, at)
    return ("", at) if found is None else (found[1], found.end())


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

"""The numbers of a VNN-LIB file: decimals, exactly, and the float64 numbers next to them."""

from __future__ import annotations

import math
import re
import sys
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from ctbench.vnnlib.syntax import LocatedError, Word, quoted

MAX_DIGITS = 4000  # of a number; also the largest exponent
MAX_BITS = 100_000  # of a product or a quotient of numbers

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
# a number of few digits, which has a float64 number next to it
SHORT = r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?"


def number(word: Word) -> Fraction:
    if not NUMBER.fullmatch(word.text):
        raise LocatedError(f"{quoted(word.text)} is neither a declared variable nor a number", word.at)
    mantissa, _, exponent = word.text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > len(f"-{MAX_DIGITS}") or abs(int(exponent or 0)) > MAX_DIGITS:
        raise LocatedError(
            f"{quoted(word.text)} has more than {MAX_DIGITS} digits, or an exponent beyond {MAX_DIGITS}", word.at
        )
    return Fraction(word.text)


def check_size(value: Fraction, at: int, what: str) -> None:
    """Raise LocatedError if a computed number has too many bits."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise LocatedError(f"a {what} of numbers has more than {MAX_BITS} bits", at)


def nearest(value: Fraction, at: int | None) -> float:
    """The nearest float64 number. Raises LocatedError if the number is outside of the range of float64."""
    try:
        close = float(value) + 0.0  # never -0.0
    except OverflowError:
        close = math.inf
    if abs(close) >= sys.float_info.max and abs(value) > sys.float_info.max:
        raise LocatedError("a number is too large for double precision", at)
    return close


@lru_cache(maxsize=1 << 16)
def short(text: str) -> tuple[float, int]:
    """The float64 number nearest to a SHORT number, and the sign of the number minus it."""
    exact, close = Decimal(text), float(text) + 0.0
    return close, (exact > close) - (exact < close)  # Python compares both exactly

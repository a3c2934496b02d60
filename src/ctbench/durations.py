"""Seconds as texts: of files and of options."""

from __future__ import annotations

import math


def seconds(text: str) -> float:
    """Read a time limit.

    Raises:
        ValueError: the text is not a positive, finite number.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{text!r} is not a number of seconds > 0, e.g. 60")
    return number

"""Radii as text."""

from __future__ import annotations


def decimals(value: float, digits: int = 6) -> str:
    """A number with a few digits, or as a fraction of 255 if it is one that its decimals do not show, such as 2/255."""
    pixels = round(255 * value) if abs(value) < 1 else 0
    if pixels > 0 and value == pixels / 255 and value != round(value, 4):
        return f"{pixels}/255"
    return f"{value:.{digits}g}"

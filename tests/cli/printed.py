"""What commands print, as numbers."""

import re


def shares(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"(natural|adversarial|certified) ([\d.]+) %", text)}

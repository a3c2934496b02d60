"""The digest of test images, by which a pack says what its records are about."""

from __future__ import annotations

import hashlib
from typing import Any

from ctbench.datasets import Data, Examples

BLOCK = 1000  # images at a time


def about_data(title: str, data: Data) -> dict[str, Any]:
    """What a pack says about a data set: its title, the number, shape and classes of the test images, their SHA-256."""
    return {
        "title": title,
        "samples": len(data.test),
        "shape": list(data.input_shape),
        "classes": data.classes,
        "sha256": digest(data.test),
    }


def digest(examples: Examples) -> str:
    """The SHA-256 of the inputs, in single precision and in [0, 1], and of the labels."""
    total = hashlib.sha256()
    for start in range(0, len(examples), BLOCK):
        x, y = examples[start : start + BLOCK]
        total.update(x.cpu().contiguous().numpy().tobytes())
        total.update(y.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()

"""Texts of properties for several tests, and short functions to read them."""

import gzip

import torch
from torch import Tensor

from ctbench.vnnlib import parse_vnnlib

DECLARED = "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
BOX = "(assert (>= X_0 -1))\n(assert (<= X_0 1.0))\n"
UNSAFE = "(assert (<= Y_0 Y_1))\n"  # on line 6


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)  # without the time, so that every process collects the same tests


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def read_rows(formula: str) -> list[tuple[list[list[float]], list[float]]]:
    """The alternatives over Y_0, Y_1 of an assert, as A and b."""
    (case,) = parse_vnnlib(f"{DECLARED}{BOX}(assert {formula})").cases
    return [(alternative.rows.tolist(), alternative.offsets.tolist()) for alternative in case.unsafe]


def read_box(asserts: str) -> tuple[float, float]:
    (case,) = parse_vnnlib(f"{DECLARED}{UNSAFE}{asserts}").cases
    return case.lower.item(), case.upper.item()

"""Nodes with constants at random, a network made of them, and how outputs are compared."""

from pathlib import Path

import numpy as np
import torch

rng = np.random.default_rng(0)


def arr(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return np.abs(arr(*shape)) + 0.5


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def scalar(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float32)


def singles(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def one(kind: str, *inputs, **attributes) -> tuple:
    """A node; the input is "x" if no input is named."""
    return kind, inputs if any(isinstance(name, str) for name in inputs) else ("x", *inputs), attributes


STATISTICS = (positive(3), arr(3), arr(3), positive(3))
IMAGE, SIGNAL, VECTOR = (1, 3, 7, 6), (1, 3, 9), (1, 4)


def small(write) -> Path:
    """A network of a convolution, a batch norm and a dense layer, for inputs (3, 7, 6)."""
    return write(
        one("Sub", arr(1, 3, 1, 1)),
        one("Conv", "1", arr(4, 3, 3, 3), arr(4), strides=[2, 2]),
        one("BatchNormalization", "2", positive(4), arr(4), arr(4), positive(4), momentum=0.75),
        one("Relu", "3"),
        one("Flatten", "4"),
        one("Gemm", "5", arr(5, 24), arr(5), transB=1),
        shape=IMAGE,
    )


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    scale = float(expected.abs().max().clamp(min=1e-3))
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * scale)

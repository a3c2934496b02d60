"""Shared by tests of several parts: a training run of a few hundredths of a second, and real data if available."""

import gc
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import forked

from ctbench.datasets import Digits
from ctbench.methods.ibp import IBP
from ctbench.networks import CNN3
from ctbench.regions import Linf
from ctbench.training import Adam, Recipe, SmoothRamp

torch.set_num_threads(1)  # the networks of tests are so small that threads only wait for one another


def pytest_collection_finish() -> None:
    """Take what was collected, thousands of tests, out of each later round of garbage collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


# Workers cost an import of torch each if they are spawned; the tests of spawned workers take the fixture `spawned`.
multiprocessing.get_context = forked.context  # type: ignore[assignment]


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of this test are spawned, as for users, and not forked."""
    monkeypatch.setattr(multiprocessing, "get_context", forked.get_context)


MNIST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "train-images-idx3-ubyte", "train-labels-idx1-ubyte")


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Recipe]:
    """IBP on digits in three epochs of six steps, with fields replaced."""

    def make(**changes: Any) -> Recipe:
        fields: dict[str, Any] = {
            "name": "tiny",
            "dataset": Digits(),
            "network": CNN3(width=2),
            "threat": Linf(eps=0.05),
            "method": IBP(),
            "ramp": SmoothRamp(start=0.0, end=2.0),
            "initialization": "shi",
            "shi": 0.5,
            "optimizer": Adam(lr=0.01),
            "epochs": 3,
            "batch_size": 256,
        }
        if "epochs" in changes:
            fields["ramp"] = SmoothRamp(start=0.0, end=min(2.0, changes["epochs"]))
        return Recipe(**(fields | changes))

    return make


@pytest.fixture
def real_mnist() -> Path:
    """The folder of CTBENCH_DATA, if it has the real MNIST."""
    root = os.environ.get("CTBENCH_DATA")
    if not root:
        pytest.skip("CTBENCH_DATA is not set: no real MNIST")
    places = (Path(root), Path(root) / "mnist")
    if not all(any((place / f"{n}{end}").exists() for place in places for end in ("", ".gz")) for n in MNIST_FILES):
        pytest.skip(f"{root} has no MNIST")
    return Path(root)


@pytest.fixture
def kw_mnist(real_mnist: Path) -> Path:
    """The published weights of Wong & Kolter's network."""
    path = real_mnist.parent / "pretrained" / "kw_mnist.safetensors"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    return path

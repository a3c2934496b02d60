"""Shared by tests of experiments: a trial of a few hundredths of a second."""

from collections.abc import Callable
from typing import Any

import pytest

from ctbench.datasets import Spheres
from ctbench.experiments import Measures, Trial
from ctbench.methods.standard import Standard
from ctbench.networks import MLP
from ctbench.regions import RandomSegments
from ctbench.training import SGD, ConstantRamp, Recipe


@pytest.fixture(scope="session")
def trial() -> Callable[..., Trial]:
    """Standard training on spheres in 3 dimensions, judged on segments, with fields of trial and recipe replaced."""

    def make(*, series: str = "ST", x: float = 1.0, measures: Measures | None = None, **changes: Any) -> Trial:
        fields: dict[str, Any] = {
            "name": "small",
            "dataset": Spheres(dimension=3, samples=20, test_samples=30, inner_radius=1.0, margin=2.0),
            "network": MLP(hidden=(6,)),
            "threat": RandomSegments(eps=0.5, count=2),
            "method": Standard(),
            "ramp": ConstantRamp(),
            "optimizer": SGD(lr=0.1),
            "epochs": 3,
            "batch_size": 20,
        }
        return Trial(
            series=series, x=x, candidate=0.1, recipe=Recipe(**(fields | changes)), measures=measures or Measures()
        )

    return make

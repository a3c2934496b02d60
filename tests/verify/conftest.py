"""What several tests of the verifier share."""

import sys
from dataclasses import replace

import pytest

from ctbench.networks import MLP
from ctbench.training import train


@pytest.fixture(scope="module")
def digits(tiny, tmp_path_factory):
    """A network that is certified on some digits, falsified on others, wrong on others."""
    recipe = tiny(network=MLP(hidden=(20, 20)), epochs=4, batch_size=64, optimizer=replace(tiny().optimizer, lr=0.005))
    run = train(recipe, out=tmp_path_factory.mktemp("digits") / "run", quiet=True)
    x, y = recipe.dataset.load().test[:]
    return run.model, x[:150], y[:150]


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A clock that only the test moves."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(sys.modules["ctbench.verify.job"], "CHUNK", 16)

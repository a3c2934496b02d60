"""Fixtures for training."""

import pytest
from tests.training_runs import Watched


@pytest.fixture(autouse=True)
def _no_calls_yet():
    Watched.calls.clear()

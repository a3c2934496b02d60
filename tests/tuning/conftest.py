"""Studies of a training of three epochs on digits, in this process, compared by intervals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctbench.results import Study, StudyFolder
from ctbench.tuning import Plan, Space, tune

FAST = {"bound": "interval", "trial_stages": "interval", "stages": "interval", "samples": 9}
SPACE = ("optimizer.lr=0.001:0.02:log", "robust_weight=0.5,1.0")


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "study")


@pytest.fixture
def plan(tiny, folder) -> Callable[..., Plan]:
    """A plan, with fields replaced."""

    def make(space: tuple[str, ...] = SPACE, **changes: Any) -> Plan:
        return Plan(
            **({"recipe": tiny(), "space": Space.of(space), "folder": folder, "prune_after": 1} | FAST | changes)
        )

    return make


@pytest.fixture
def tuned(tiny, folder) -> Callable[..., Study]:
    """A finished study, with arguments replaced."""

    def call(space: tuple[str, ...] = SPACE, **changes: Any) -> Study:
        arguments = {"recipe": tiny(), "space": space, "out": folder.path, "trials": 3, "prune_after": 1} | FAST
        return tune(**(arguments | changes))

    return call

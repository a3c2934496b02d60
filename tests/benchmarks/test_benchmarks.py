"""The benchmarks start; their times are not tested."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests import forked

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_there_are_benchmarks():
    assert "training_step" in NAMES


@pytest.mark.timeout(120)
def test_every_benchmark_can_be_imported_and_run_by_name():
    check = "import importlib, sys; assert all(callable(importlib.import_module(n).main) for n in sys.argv[1:])"
    done = python("-c", check, *(f"benchmarks.{name}" for name in NAMES))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.timeout(120)
def test_an_unknown_benchmark_lists_those_there_are():
    done = forked.run("benchmarks", "nonsense", cwd=ROOT)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"no benchmark is called nonsense; there are {', '.join(NAMES)}\n"

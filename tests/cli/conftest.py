"""What tests of commands share: an empty folder to work in, a trained run, and how to run a command."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pooch
import pytest
from tests.cli.killable import Forking

from ctbench.cli import main
from ctbench.networks import MLP
from ctbench.training import train


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    """Nothing is downloaded, and nothing is written outside the test's folder."""

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no network in tests")

    monkeypatch.setattr(pooch, "retrieve", offline)
    monkeypatch.delenv("CTBENCH_MIRROR", raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory) -> Path:
    """A run folder; copy it before writing to it."""
    recipe = tiny(network=MLP(hidden=(20,)), epochs=4, batch_size=64, name="tiny")
    return train(recipe, out=tmp_path_factory.mktemp("cli") / "run", quiet=True).folder.path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run folder of the test's own."""
    copy = tmp_path / "run"
    copy.mkdir()
    for path in trained.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


@pytest.fixture
def succeeds(capsys) -> Callable[..., str]:
    """Run a command that must work; returns what it prints."""

    def call(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return call


@pytest.fixture
def fails(capsys) -> Callable[..., str]:
    """Run a command that must fail, with status 2 and one line on standard error, which it returns."""

    def call(*arguments: object) -> str:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = error.code
        said = capsys.readouterr()
        assert status == 2
        assert said.out == ""
        assert said.err.endswith("\n")
        assert said.err.count("\n") == 1, said.err
        assert re.match(r"ctbench[\w ]*: error: ", said.err), said.err
        return said.err

    return call


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Forking]:
    """Commands in forked processes, which are killed at the end of the test."""
    started = Forking(tmp_path / "log.txt")
    yield started
    started.close()

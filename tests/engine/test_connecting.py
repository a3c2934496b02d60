"""Connecting to a Ray Client server that is slow to start its process for a driver."""

import socket
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from ctbench.engine.on_ray import connected

PLACE = "127.0.0.1"


@pytest.fixture
def address() -> Iterator[str]:
    """An address where something listens."""
    with socket.create_server((PLACE, 0)) as server:
        yield f"ray://{PLACE}:{server.getsockname()[1]}"


def failing(monkeypatch: pytest.MonkeyPatch, times: int, message: str) -> list[str]:
    """Put a package in the place of Ray whose first connections fail; returns the addresses that it was given."""
    calls = list[str]()

    def init(address: str, **_: object) -> None:
        calls.append(address)
        if len(calls) <= times:
            raise ConnectionAbortedError(message)

    ray = ModuleType("ray")
    ray.is_initialized, ray.init = lambda: False, init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    return calls


def test_a_slow_server_is_asked_again(monkeypatch, address):
    calls = failing(monkeypatch, 2, "Initialization failure from server:\nit took too long\nand so on")
    assert connected(address) is sys.modules["ray"]
    assert calls == [address] * 3


def test_a_server_that_stays_slow_is_an_error_with_its_reason(monkeypatch, address):
    calls = failing(monkeypatch, 9, "Initialization failure from server:\nit took too long\nand so on")
    with pytest.raises(ConnectionError, match=r"\(Initialization failure from server: it took too long\)"):
        connected(address)
    assert len(calls) == 3


def test_another_error_is_raised_at_once(monkeypatch, address):
    calls = failing(monkeypatch, 1, "another version")
    with pytest.raises(ConnectionError, match="another version"):
        connected(address)
    assert len(calls) == 1

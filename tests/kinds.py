"""Members of a kind without those that other tests define."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T", bound=type)


def ours(types: Mapping[str, T]) -> dict[str, T]:
    return {name: kind for name, kind in types.items() if kind.__module__.startswith("ctbench.")}

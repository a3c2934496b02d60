"""The table of the ONNX operators that can be read."""

from __future__ import annotations

from collections.abc import Callable

from ctbench.onnx.building import Array, Operator, TracedValue

Result = TracedValue | list[TracedValue] | Array
Reader = Callable[[Operator], Result]
OPERATORS: dict[str, Reader] = {}


def reads(*kinds: str) -> Callable[[Reader], Reader]:
    """Register the decorated function for operators of these kinds."""

    def register(function: Reader) -> Reader:
        OPERATORS.update(dict.fromkeys(kinds, function))
        return function

    return register

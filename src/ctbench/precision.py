"""The precision in which products of float32 are computed.

TF32 keeps 10 bits of the mantissa of each factor. GPUs may use it for products of matrices and for convolutions, and
cuDNN does so by default. Bounds that are rounded in this way are not bounds of the network. So bounds, attacks and
certification run in full float32, and restore the user's own switches afterwards:

    with products("float32"):
        lower, upper = crown(...)

    @full_float32                   # the same around a function, or around each step of a generator
    def certify(...): ...

torch has old switches (`torch.backends.cudnn.allow_tf32`, `torch.set_float32_matmul_precision`) and, since 2.9, a tree
of new ones (`fp32_precision`). If a program has used both, the old ones cannot be read: they then stay as they are. All
threads of a process share the switches.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
T = TypeVar("T")

_GROUPS = ("", "cudnn")  # members that say "none" follow their group; that of mkldnn is "", in torch 2.13
_MEMBERS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


@contextmanager
def products(precision: Literal["float32", "tf32"]) -> Iterator[None]:
    """A context in which products of float32 are computed in full precision, or in TF32 if the device has it."""
    old, new = _old_switches(), _new_switches()
    try:
        if old is not None:
            _set_old(precision == "tf32", "high" if precision == "tf32" else "highest")
        _set_new(dict.fromkeys(new, "ieee" if precision == "float32" else "tf32"))
        yield
    finally:
        if old is not None:
            _set_old(*old)
        _set_new(new)


def full_float32(function: Callable[P, T]) -> Callable[P, T]:
    """The function with all its products in full float32. Of a generator, this holds within its steps, not between."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def steps(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
            with products("float32"):
                generator = function(*args, **kwargs)
            try:
                while True:
                    with products("float32"):
                        try:
                            value = next(generator)
                        except StopIteration:
                            return
                    yield value
            finally:
                generator.close()

        return cast("Callable[P, T]", steps)

    @functools.wraps(function)
    def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        with products("float32"):
            return function(*args, **kwargs)

    return whole


def _old_switches() -> tuple[bool, str] | None:
    """TF32 in convolutions, and the precision of products of matrices; None if torch refuses to tell."""
    try:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # the new switches were also used
        return None


def _set_old(convolutions: bool, matrices: str) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(matrices)


def _new_switches() -> dict[str, str]:
    """The value of each new switch itself, groups first. Sets the groups to "none"."""
    values = dict[str, str]()
    for name in (*_GROUPS, *_MEMBERS):
        place = _place(name)
        if hasattr(place, "fp32_precision"):
            values[name] = place.fp32_precision
            if name in _GROUPS:
                place.fp32_precision = "none"
    return values


def _set_new(switches: dict[str, str]) -> None:
    for name, value in switches.items():
        _place(name).fp32_precision = value


def _place(name: str) -> Any:
    return functools.reduce(getattr, name.split(".") if name else [], torch.backends)

"""The precision in which products of float32 are computed.

TF32 keeps 10 bits of each factor's mantissa. GPUs may take it for products of matrices and for convolutions, and cuDNN
does so by default. A bound that is rounded like that is no bound of the network, so whatever bounds, attacks and
certifies runs in full float32, and sets the user's own switches back:

    with products("float32"):
        lower, upper = crown(...)

    @full_float32                   # the same around a function, or around each step of a generator
    def certify(...): ...

torch has old switches (`torch.backends.cudnn.allow_tf32`, `torch.set_float32_matmul_precision`) and, from 2.9 on, new
ones (`fp32_precision`, a tree of them). Who has mixed both cannot read the old ones, which are then left alone. The
switches are those of the whole process, whatever its threads do.
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

_GROUPS = ("", "cudnn")  # what their members follow where these say "none"; that of mkldnn is "" again, in torch 2.13
_MEMBERS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


@contextmanager
def products(precision: Literal["float32", "tf32"]) -> Iterator[None]:
    """Compute products of float32 in full precision, or in TF32 where the device has it; not so afterwards."""
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
    """A function with all its products in full float32; a generator's own, and not what is done between its steps."""
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
    """TF32 in convolutions, and the precision of products of matrices; None where torch does not say them."""
    try:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # the new ones were used, too
        return None


def _set_old(convolutions: bool, matrices: str) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(matrices)


def _new_switches() -> dict[str, str]:
    """What each of the new switches says itself, groups first. The groups say "none" afterwards."""
    found = dict[str, str]()
    for name in (*_GROUPS, *_MEMBERS):
        place = _place(name)
        if hasattr(place, "fp32_precision"):
            found[name] = place.fp32_precision
            if name in _GROUPS:
                place.fp32_precision = "none"
    return found


def _set_new(switches: dict[str, str]) -> None:
    for name, value in switches.items():
        _place(name).fp32_precision = value


def _place(name: str) -> Any:
    return functools.reduce(getattr, name.split(".") if name else [], torch.backends)

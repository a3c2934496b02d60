"""Classes, functions and networks that an option names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from ctbench.cli.options import imported
from ctbench.datasets import Data
from ctbench.members import required_fields
from ctbench.networks import Architecture, architectures
from ctbench.training import codec

T = TypeVar("T")

RETURNED: Mapping[type, tuple[str, str]] = {
    nn.Module: ("network", "torch.nn.Module"),
    Data: ("data", "ctbench.datasets.Data"),
}  # what functions of the user return, and where its class is


def called(text: str, kind: type[T]) -> T:
    """What a Python function of the user returns, which takes no arguments: MODULE:FUNCTION or FILE.py:FUNCTION.

    Raises:
        ValueError: there is no such function, it raises, or returns something else.
    """
    module, _, function = text.rpartition(":")
    what, place = RETURNED[kind]
    if not module:
        raise ValueError(f"{text!r} names no function for the {what}: write MODULE:FUNCTION or FILE.py:FUNCTION")
    try:
        result = getattr(imported(module), function)()
    except Exception as error:  # the user's function may raise any error
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{text} made no {what} ({reason}): name a function without parameters") from error
    if not isinstance(result, kind):
        raise ValueError(f"{text} returned a {type(result).__name__}: it must return a {place}")
    return result


def by_name(option: str, name: str, types: Mapping[str, type[T]], **fields: Any) -> T:
    """The value of a class that an option names, with its defaults.

    Raises:
        ValueError: there is no such class, or it has other fields without a default.
    """
    if name not in types:
        raise ValueError(f"{option} is {name!r}: it must be one of {', '.join(types)} (--import MODULE adds your own)")
    missing = [field for field in required_fields(types[name]) if field not in fields]
    if missing:
        raise ValueError(f"{option} is {name!r}, which has no default for {', '.join(missing)}: add one, or use Python")
    return types[name](**fields)


def architecture(text: str) -> Architecture:
    """An architecture by its name and fields, e.g. "cnn7" or "cnn7,width=32,batch_norm=false".

    Raises:
        ValueError: there is no such architecture, or it has no such field or value.
    """
    name, *changes = text.split(",")
    return codec.with_changes(by_name("--network", name, architectures()), changes)

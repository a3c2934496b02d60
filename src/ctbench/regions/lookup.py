"""Threat models by name: `threat("l2", 0.5)` is `L2(eps=0.5)`."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterator
from typing import Any

from ctbench.regions.base import Threat

NORMS = {math.inf: "linf", 2: "l2", 1: "l1"}


def threats() -> dict[str, type[Threat]]:
    """Every threat model by name: those of this package, and other subclasses of `Threat` that are defined."""
    return {kind.name: kind for kind in sorted(_concrete(Threat.__subclasses__()), key=lambda kind: kind.name)}


def threat(norm: str | float, eps: float, **fields: Any) -> Threat:
    """The threat model of a norm.

    Args:
        norm: a name, one of `threats()`, or the order of the norm: math.inf, 2 or 1.
        eps: the radius in pixel space.
        fields: other fields of the threat model, e.g. clip=(0, 1), the default of the norms.

    Raises:
        ValueError: there is no such threat model, or it rejects the values.
    """
    kinds = threats()
    kind = kinds.get(norm if isinstance(norm, str) else NORMS.get(norm, ""))
    if kind is None:
        raise ValueError(f"norm is {norm!r}: it must be one of {', '.join(kinds)}, or the number math.inf, 2 or 1")
    missing = [f.name for f in dataclasses.fields(kind) if _needed(f) and f.name not in ("eps", *fields)]
    if missing:
        raise ValueError(
            f"the threat model {kind.name!r} needs {', '.join(missing)}: make it with {kind.__name__}(...)"
        )
    return kind(eps=eps, **fields)


def given_threat(
    explicit: Threat | None, eps: float | None, norm: str | float, clip: tuple[float, float] | None
) -> Threat:
    """The threat model `explicit`, or else the threat model of a radius, a norm and a data range.

    Raises:
        ValueError: both a threat model and a radius are given, or neither.
    """
    if (explicit is None) == (eps is None):
        raise ValueError(f"eps is {eps} and threat {explicit}: give a radius (and a norm), or a threat model")
    if explicit is not None:
        return explicit
    assert eps is not None, "either a threat model or a radius is given"
    return threat(norm, eps, clip=clip)


def _needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _concrete(kinds: list[type[Threat]]) -> Iterator[type[Threat]]:
    for kind in kinds:
        if not inspect.isabstract(kind):
            yield kind
        yield from _concrete(kind.__subclasses__())

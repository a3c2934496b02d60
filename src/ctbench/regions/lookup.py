"""Threat models by name: `threat("l2", 0.5)` is `L2(eps=0.5)`."""

from __future__ import annotations

import math
from typing import Any

from ctbench.members import members, required_fields
from ctbench.regions.base import Threat

NORMS = {math.inf: "linf", 2: "l2", 1: "l1"}


def threats() -> dict[str, type[Threat]]:
    """Return all threat models by name: those of this package, and all other subclasses of `Threat` defined so far."""
    return members(Threat)


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
    missing = [name for name in required_fields(kind) if name not in ("eps", *fields)]
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

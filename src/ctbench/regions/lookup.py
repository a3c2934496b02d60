"""Threat models by name: `threat("l2", 0.5)` is `L2(0.5)`."""

from __future__ import annotations

import math
from typing import Any

from ctbench.members import members, required_fields
from ctbench.regions.base import Threat
from ctbench.regions.box import Linf, Radii

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


def threat_or_linf(explicit: Threat | None, eps: Radii | None) -> Threat:
    """The threat model `explicit`, or `Linf(eps)`, which a radius alone stands for.

    Raises:
        ValueError: both a threat model and a radius are given, or neither.
    """
    if (explicit is None) == (eps is None):
        both = "neither a threat model nor eps" if eps is None else f"the threat model {explicit} and eps {eps}"
        raise ValueError(f"given is {both}: give a threat model, e.g. L2(0.5), or eps=0.1, which stands for Linf(0.1)")
    if explicit is None:
        assert eps is not None, "either a threat model or a radius is given"
        return Linf(eps)
    if not isinstance(explicit, Threat):
        raise ValueError(f"the threat model is {explicit!r}: give one such as Linf(8 / 255), or the radius as eps=...")
    return explicit

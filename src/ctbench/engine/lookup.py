"""Engines by their short names, which commands take: local, local:4, ray, ray://HOST:PORT."""

from __future__ import annotations

import re

from ctbench.engine.base import Engine
from ctbench.engine.local import Local
from ctbench.engine.on_ray import CLIENT, Ray

FORMS = "local, local:N with N processes, ray, or ray://HOST:PORT"


def engine(name: str, *, device: str = "cpu") -> Engine:
    """The engine of a short name.

    Args:
        name: local (all cores, or with device="cuda" all accelerators), local:N (N processes), ray (the Ray cluster of
            this machine, or a new one), or ray://HOST:PORT (any Ray cluster).
        device: the device of networks in the workers.

    Raises:
        ValueError: there is no such engine.
    """
    if match := re.fullmatch(r"local(?::([1-9]\d*))?", name):
        return Local(workers=int(match[1]) if match[1] else None, device=device)
    if name == "ray":
        return Ray(device=device)
    if re.fullmatch(rf"{CLIENT}[^/:]+:\d+", name):
        return Ray(address=name, device=device)
    raise ValueError(f"there is no engine {name!r}: give {FORMS}")

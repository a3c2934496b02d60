"""What the name and the settings of a file of records state, compared with the records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from ctbench.packs.claims import ClaimError
from ctbench.regions import Threat
from ctbench.regions.lookup import threats
from ctbench.results import SampleRecord

# the name of the records of a norm and a radius, as `region_name` gives it, also with more after a dash
NAMED = re.compile(r"(?P<norm>[a-z0-9]+)-(?P<eps>[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?)(-.*)?")


def check_name(name: str, threat: Threat) -> None:
    """Raise ClaimError if the name of a file of records states another norm or radius than that of its records."""
    named = NAMED.fullmatch(name)
    if not named or named["norm"] not in threats() or not isinstance(threat.eps, Real):
        return
    rounded = float(f"{threat.eps:.10g}")  # as names are
    if named["norm"] != threat.name or float(named["eps"]) not in (threat.eps, rounded):
        raise ClaimError(f"its settings say {threat.name} eps {threat.eps!r}, its name says otherwise")


def samples_of(records: Sequence[SampleRecord], settings: Mapping[str, Any]) -> range:
    """The samples that records are about, which must be exactly those that their settings state.

    Raises:
        ClaimError: there are no records, a sample has none or was cut off by the end of its job, or there are more.
    """
    indices = {record.index for record in records if record.finished}
    if not indices:
        raise ClaimError("it has no records")
    ends = settings.get("samples")
    wanted = range(*ends) if ends else range(min(indices), max(indices) + 1)
    if missing := sorted(set(wanted) - indices):
        raise ClaimError(
            f"it lacks {len(missing)} of {len(wanted)} samples, e.g. sample {missing[0]}: if its job was interrupted, "
            f"finish it with --resume"
        )
    if more := sorted({record.index for record in records} - set(wanted)):
        raise ClaimError(f"it has sample {more[0]}, and its settings say samples {wanted[0]} to {wanted[-1]}")
    return wanted

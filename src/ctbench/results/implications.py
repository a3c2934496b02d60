"""What verdicts at some radii say about other radii, where the regions are nested.

certified at r      then certified at each smaller radius: its region is a part of that of r
falsified at r      then falsified at each larger radius: its region contains the counterexample
misclassified       at each radius, because the regions contain the input
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctbench.results.certification import SampleRecord
from ctbench.results.verdicts import Verdict

Records = Mapping[int, SampleRecord]  # by the index of the sample
NESTED = ("Linf", "L2", "L1")  # the threat models whose regions are nested, by the beginning of their descriptions
SAME = ("network_digest", "precision", "rounding", "replayed", "norm")  # settings, besides the threat model


class ContradictionError(ValueError):
    """Two verdicts cannot both be true."""


def relation(settings: Mapping[str, Any]) -> tuple[object, ...] | None:
    """What the settings of two certifications have in common if verdicts of one can imply verdicts of the other.

    It is all that decides what a verdict means, except the radius and the effort. The samples must also be the same,
    by their digests. None if the settings do not say enough, or the regions are not known to be nested.
    """
    threat, eps = str(settings.get("threat")), settings.get("eps")
    if not isinstance(eps, int | float) or not threat.startswith(tuple(f"{name}(" for name in NESTED)):
        return None
    shape, radii = re.subn(rf"\beps={re.escape(repr(eps))}(?=[,)])", "eps", threat)
    same = [settings.get(name) for name in SAME]
    return None if radii != 1 or None in same else (shape, *same)


def implied(at: float, records: Mapping[float, Records]) -> dict[int, SampleRecord]:
    """The records that those at other radii imply at the radius `at`, by the index of the sample.

    Args:
        at: the radius.
        records: by radius, of one network and of nested regions around the same inputs. Those at `at` itself count only
            for contradictions.

    Raises:
        ContradictionError: a sample is certified at a radius, and falsified or misclassified at a smaller one.
    """
    check(records)
    implications: dict[int, SampleRecord] = {}
    for eps in sorted(records, key=lambda radius: abs(radius - at)):  # the nearest radius first
        for index, record in records[eps].items():
            if eps != at and index not in implications and _says(record, eps, at):
                implications[index] = record.implied(eps)
    return implications


def _says(record: SampleRecord, eps: float, at: float) -> bool:
    """Whether a record at the radius eps decides the sample at another radius."""
    match record.verdict:
        case Verdict.CERTIFIED:
            return at <= eps
        case Verdict.FALSIFIED:
            return at >= eps
        case Verdict.MISCLASSIFIED:
            return True
    return False


def check(records: Mapping[float, Records]) -> None:
    """Raise ContradictionError if a sample is certified at a radius, and falsified there or at a smaller one."""
    certified = dict(_largest(records))
    for eps in sorted(records):
        for index, record in records[eps].items():
            wrong = record.verdict in (Verdict.FALSIFIED, Verdict.MISCLASSIFIED)
            if wrong and certified.get(index, -1.0) >= (eps if record.verdict is Verdict.FALSIFIED else 0.0):
                raise ContradictionError(
                    f"sample {index} is certified at eps {certified[index]!r}, but {record.verdict} at eps {eps!r}: "
                    f"one of the two is wrong; keep both files of records, and report this as an error of ctbench"
                )


def _largest(records: Mapping[float, Records]) -> Iterator[tuple[int, float]]:
    """The samples that are certified, with the radii, ascending."""
    for eps in sorted(records):
        yield from ((index, eps) for index, record in records[eps].items() if record.verdict is Verdict.CERTIFIED)


def by_halves(radii: Sequence[float]) -> list[float]:
    """Ascending radii in the order of a search by halves: the middle one, then the middles of both halves, and so on.

    A sample whose verdicts are certain at each radius is tried at 1 + log2(radii) of them, rounded down, at most.
    """
    parts, order = [list(radii)], list[float]()
    while parts:
        middles = [len(part) // 2 for part in parts]
        order += [part[middle] for part, middle in zip(parts, middles, strict=True)]
        halves = [half for part, mid in zip(parts, middles, strict=True) for half in (part[:mid], part[mid + 1 :])]
        parts = [half for half in halves if half]
    return order

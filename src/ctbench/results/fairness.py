"""The accuracy discrepancy of plain lists: `ctbench.analyses.fairness` gives the formula and its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean


def discrepancy(errors: Sequence[bool], labels: Sequence[int]) -> float:
    """(max_k R^k - R) / (1 - R), with R the share of errors, and R^k that in class k; 1 if all samples are wrong."""
    error = fmean(errors)
    if error == 1:
        return 1.0
    by_class: dict[int, list[bool]] = {}
    for wrong, label in zip(errors, labels, strict=True):
        by_class.setdefault(label, []).append(wrong)
    return (max(map(fmean, by_class.values())) - error) / (1 - error)


def summary(labels: Sequence[int], errors: Mapping[str, Sequence[bool]]) -> str:
    """A line with the discrepancy in several kinds of accuracy; `errors` are by kind, as for `discrepancy`."""
    kinds = (f"{name} {discrepancy(wrong, labels):.3f}" for name, wrong in errors.items())
    return f"accuracy discrepancy (0: all classes alike): {', '.join(kinds)}"

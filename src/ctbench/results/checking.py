"""The rules for the fields of records, of samples and of instances. Every reader of records applies them.

A record that was edited by hand, or damaged by a full disk, is rejected: no command continues from it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ctbench.results.verdicts import Open, Verdict

CHECKSUM = "checksum"
CLEAN = "clean"  # the title of the first stage, the prediction at the clean input
Kind = tuple[str, Callable[[Any], bool]]


def checksum(record: Mapping[str, Any]) -> str:
    """The digest of all other fields of a record. It detects accidental edits, not forgeries."""
    content = {name: value for name, value in record.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def check(record: Mapping[str, Any]) -> None:
    """Raise ValueError if the record of a sample, as read from JSON, is invalid; the message lists all faults.

    A record written before a field existed may lack this field.
    """
    wrong = [*_wrong_kinds(record, SAMPLE)] or [*_contradictions(record)]
    if not wrong and record.get(CHECKSUM, checksum(record)) != checksum(record):
        wrong = [f"its checksum is {record[CHECKSUM]!r}, the other fields have {checksum(record)!r}: it was edited"]
    if wrong:
        raise ValueError(f"not the record of a certified sample ({'; '.join(wrong)}): take it out, and certify again")


def check_instance(record: Mapping[str, Any]) -> None:
    """Raise ValueError if the record of a VNN-LIB instance is invalid; the message lists all faults."""
    wrong = [f"it lacks {name!r}" for name in NEEDED if name not in record] or [*_wrong_kinds(record, INSTANCE)]
    if not wrong:
        verdict, bound = record["verdict"], record["bound"]
        if verdict == "unsat" and not (bound > 0 if bound is not None else record["stage"] == ""):
            wrong.append(f"its bound is {bound!r}, but unsat needs a bound > 0")
        if verdict == "sat" and bound is not None and bound > 0:
            wrong.append(f"its bound is {bound!r}, but sat needs null or a bound <= 0")
    if wrong:
        raise ValueError(f"not the record of an instance ({'; '.join(wrong)}): take the line out, and decide it again")


def _wrong_kinds(record: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Iterator[str]:
    """Messages about fields with an invalid value."""
    for name, (expected, holds) in kinds.items():
        if name in record and not holds(record[name]):
            yield f"its {name} is {record[name]!r}, expected {expected}"


def _contradictions(record: Mapping[str, Any]) -> Iterator[str]:
    """Messages about fields that contradict each other."""
    verdict, bound, stage = Verdict(record["verdict"]), record["bound"], record["stage"]
    label, prediction = record["label"], record["prediction"]

    def unless(holds: bool, name: str, needed: str) -> Iterator[str]:
        if not holds:
            yield f"its {name} is {record[name]!r}, but {verdict} needs {needed}"

    match verdict:
        case Verdict.CERTIFIED:
            yield from unless(bound is not None and bound > 0, "bound", "a bound > 0")
            yield from unless(prediction == label, "prediction", f"the label, {label}")
            yield from unless(stage != CLEAN, "stage", "a stage that bounds margins")
        case Verdict.FALSIFIED:
            yield from unless(bound is None or bound <= 0, "bound", "null or a bound <= 0")
            yield from unless(prediction == label, "prediction", f"the label, {label}")
            yield from unless(stage != CLEAN, "stage", "a stage that finds counterexamples")
        case Verdict.MISCLASSIFIED:
            yield from unless(bound is None or bound <= 0, "bound", "null or a bound <= 0")
            yield from unless(prediction not in (label, -1), "prediction", f"a class other than the label, {label}")
            yield from unless(stage == CLEAN, "stage", repr(CLEAN))
        case Verdict.UNKNOWN:
            right = prediction in (label, -1) or stage == CLEAN
            yield from unless(right, "prediction", f"the label, {label}, or -1 where there is no prediction")
    if verdict is not Verdict.UNKNOWN:
        yield from unless(not record.get("reason"), "reason", "no reason")
        yield from unless(not record.get("late"), "late", "false")
        yield from unless(record.get("open") is None, "open", "null")
    else:
        if "open" not in record and "failed" in record and (record["failed"] or record.get("late")):
            yield from unless(bool(record.get("reason")), "reason", "one, because a stage failed or was late")
        if "open" in record:
            yield from unless(record["open"] is not None, "open", "a reason")
            needs_words = record["open"] not in (None, Open.UNDECIDED)
            yield from unless(bool(record.get("reason")) or not needs_words, "reason", "one in words")
            is_error = record["open"] in (Open.ERROR, Open.JOB_OVER) or not record.get("failed")
            yield from unless(is_error, "open", repr(Open.ERROR.value))
    spent = record.get("stage_seconds")
    if spent and not math.isclose(sum(spent.values()), record["seconds"], rel_tol=1e-6, abs_tol=1e-6):
        yield f"its stage_seconds sum to {sum(spent.values())!r}, its seconds are {record['seconds']!r}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(least: int) -> Kind:
    return (
        f"a whole number >= {least}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
    )


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) and text for text in value.values())


def _times(value: Any) -> bool:
    return isinstance(value, dict) and all(_number(seconds) and seconds >= 0 for seconds in value.values())


def _one_of(words: Sequence[str]) -> Kind:
    return ", ".join(words), lambda value: value in list(words)


TEXT: Kind = ("a text", lambda value: isinstance(value, str))
TITLE: Kind = ("a text, not empty", lambda value: isinstance(value, str) and bool(value))
BOUND: Kind = ("a finite number or null", lambda value: value is None or _number(value))
SECONDS: Kind = ("a number of seconds >= 0", lambda value: _number(value) and value >= 0)
FAILED: Kind = ("a message by stage", _texts)
SAMPLE: Mapping[str, Kind] = {
    "verdict": _one_of([*Verdict]),
    "index": _whole(0),
    "label": _whole(0),
    "prediction": _whole(-1),
    "stage": TITLE,
    "bound": BOUND,
    "seconds": SECONDS,
    "stage_seconds": ("seconds >= 0 by stage", _times),
    "digest": TEXT,
    "reason": TEXT,
    "failed": FAILED,
    "late": ("true or false", lambda value: isinstance(value, bool)),  # of earlier records
    "open": (f"{', '.join(Open)} or null", lambda value: value is None or value in list(Open)),
}
NEEDED = ("name", "verdict", "stage", "bound", "seconds")
INSTANCE: Mapping[str, Kind] = {
    "name": TITLE,
    "verdict": _one_of(["unsat", "sat", "unknown", "timeout", "error"]),
    "stage": TEXT,
    "bound": BOUND,
    "seconds": SECONDS,
    "solve_seconds": SECONDS,
    "reason": TEXT,
    "failed": FAILED,
}

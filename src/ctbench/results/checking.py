"""The rules for the fields of records and of settings. Every reader of such files applies them.

A file that was edited by hand, or damaged by a full disk, is rejected: no command continues from it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ctbench.results.verdicts import Open, Verdict

CHECKSUM = "checksum"
EARLIER = "earlier"  # of settings: the stages and time limits of earlier attempts
CLEAN = "clean"  # the title of the first stage, the prediction at the clean input
Kind = tuple[str, Callable[[Any], bool]]


def checksum(record: Mapping[str, Any]) -> str:
    """The digest of all other fields of a record or of settings. It detects accidental edits, not forgeries."""
    return hashlib.sha256(json.dumps(unsealed(record), sort_keys=True).encode()).hexdigest()[:16]


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields and their checksum, by which a reader detects edits."""
    return {**content, CHECKSUM: checksum(content)}


def unsealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without the checksum."""
    return {name: value for name, value in record.items() if name != CHECKSUM}


def check(record: Mapping[str, Any]) -> None:
    """Raise ValueError if the fields of the record of a sample, as read from JSON, are invalid.

    The message lists all faults. A record written before a field existed may lack this field.
    """
    refuse(*([*_wrong_kinds(record, SAMPLE)] or [*_contradictions(record)]))


def check_seal(record: Mapping[str, Any]) -> None:
    """Raise ValueError if the record of a sample, as read from a file, does not match its checksum.

    Records without the fields `failed`, `late` and `open` were written before there were checksums: they need none.
    """
    if CHECKSUM in record:
        refuse(*_wrong_checksum(record))
    elif named := [name for name in ("failed", "late", "open") if name in record]:
        refuse(f"it lacks {CHECKSUM!r}, which each record with {named[0]!r} has: it was edited")


def refuse(*faults: str) -> None:
    """Raise ValueError if the record of a sample has faults."""
    if faults:
        raise ValueError(
            f"not the record of a certified sample ({'; '.join(faults)}): "
            f"remove this line, and certify the sample again with --resume"
        )


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ValueError if the settings of a certification, as read from JSON, are invalid.

    The message lists all faults. Settings without a checksum were written before there was one: their radius is
    compared with their threat model.
    """
    faults = ["it lacks 'eps'"] if "eps" not in settings else [*_wrong_kinds(settings, SETTINGS)]
    if not faults:
        faults += _wrong_checksum(settings) if CHECKSUM in settings else _wrong_radius(settings)
    if faults:
        raise ValueError(
            f"not the settings of a certification ({'; '.join(faults)}): "
            f"restore the file, or certify again to another place with --out"
        )


def _wrong_radius(settings: Mapping[str, Any]) -> Iterator[str]:
    """A message if the threat model is described with another radius."""
    radii = re.findall(r"\beps=(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", settings.get("threat", ""))
    if radii and _number(settings["eps"]) and settings["eps"] not in map(float, radii):
        yield f"its eps is {settings['eps']!r}, but its threat is {settings['threat']}: it was edited"


def _wrong_checksum(record: Mapping[str, Any]) -> Iterator[str]:
    """A message if the other fields have another checksum."""
    if record[CHECKSUM] != checksum(record):
        yield f"its checksum is {record[CHECKSUM]!r}, the other fields have {checksum(record)!r}: it was edited"


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
        raise ValueError(
            f"not the record of an instance ({'; '.join(wrong)}): "
            f"remove this line, and decide the instance again with --resume"
        )


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
    if record.get("decided_at") is not None:
        yield from unless(verdict is not Verdict.UNKNOWN, "decided_at", "null")
    elsewhere = [record.get(name) for name in ("decided_at", "decided_seconds")]
    if (elsewhere[0] is None) != (elsewhere[1] is None):
        yield f"its decided_at is {elsewhere[0]!r} and its decided_seconds {elsewhere[1]!r}, expected both or neither"
    spent = record.get("stage_seconds")
    if spent and not math.isclose(sum(spent.values()), record["seconds"], rel_tol=1e-6, abs_tol=1e-6):
        yield f"its stage_seconds sum to {sum(spent.values())!r}, its seconds are {record['seconds']!r}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _radius(value: Any) -> bool:
    """Whether it is a radius, or nested lists with a radius for each feature."""
    if isinstance(value, list):
        return bool(value) and all(map(_radius, value))
    return _number(value) and value >= 0


def _whole(least: int) -> Kind:
    return (
        f"a whole number >= {least}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
    )


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) and text for text in value.values())


def _times(value: Any) -> bool:
    return isinstance(value, dict) and all(_number(seconds) and seconds >= 0 for seconds in value.values())


def _range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_whole(0)[1](end) for end in value)


def _attempts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and {*one} == {"stages", "timeout"} for one in value)


def _one_of(words: Sequence[str]) -> Kind:
    known = [*words]  # not a set: a value that was read may be a list, which has no hash
    return ", ".join(words), lambda value: value in known


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
    "attempt": _whole(0),
    "decided_at": ("a radius or null", lambda value: value is None or (_number(value) and value >= 0)),
    "decided_seconds": ("seconds >= 0 or null", lambda value: value is None or (_number(value) and value >= 0)),
}
SETTINGS: Mapping[str, Kind] = {
    "eps": ("a finite number >= 0, or lists of such numbers", _radius),
    **dict.fromkeys(("norm", "threat", "dataset", "network", "network_digest", "selected_on"), TITLE),
    "samples": ("the range [start, stop] of samples", _range),
    EARLIER: ("a list of stages and time limits", _attempts),
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

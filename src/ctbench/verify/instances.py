"""Lists of VNN-LIB instances in the format of VNN-COMP: networks, properties and seconds, decided one after another.

    instances = read_instances(Path("instances.csv"), timeout=60.0)
    records = decide_instances(instances, Path("runs/mine"), resume=True)

Each instance has a line in `results.jsonl` and a text file with the verdict and a counterexample, in the same folder.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from torch import nn

from ctbench.durations import seconds
from ctbench.files import write_whole
from ctbench.onnx import can_replay, load_onnx, replay
from ctbench.results import Open, jsonl, locks
from ctbench.results.checking import check_instance
from ctbench.results.jsonl import Record
from ctbench.time_budget import now
from ctbench.verify.cascade import Replay
from ctbench.verify.input_split import InputSplit
from ctbench.verify.joint import joint, joint_replay
from ctbench.verify.properties import PropertyResult, verify_property
from ctbench.verify.stages import Falsify, Stage
from ctbench.vnnlib import Property, read_vnnlib

RECORDS = "results.jsonl"  # the name of the file of records
COLUMNS = ("onnx", "vnnlib", "timeout_s")
KNOWN = ("sat", "unsat", "unknown", "")
WORDS = {"holds": "unsat", "violated": "sat", "unknown": "unknown"}

Loaded: TypeAlias = tuple[nn.Module, Replay | None]


@dataclass(frozen=True)
class Instance:
    """A line of the list."""

    onnx: str  # the name in the list
    vnnlib: str
    timeout: float
    known: str  # the known verdict, or "" if the list has no verdict
    folder: Path  # the folder of the list; names are relative to it
    label: str = ""  # its name in the list, if another instance has the same file names

    @property
    def name(self) -> str:
        """The name of its result file."""
        return self.label or "_".join(_stem(path) for path in (self.onnx, self.vnnlib))

    @property
    def network_path(self) -> Path:
        """The existing file, with or without .gz."""
        return _existing(self.folder / self.onnx)

    @property
    def property_path(self) -> Path:
        """The existing file, with or without .gz."""
        return _existing(self.folder / self.vnnlib)

    def about(self) -> Record:
        """Everything that the result depends on; a missing file has no digest."""
        return {
            "onnx": self.onnx,
            "vnnlib": self.vnnlib,
            "onnx_sha256": _digest(self.network_path),
            "vnnlib_sha256": _digest(self.property_path),
            "timeout_s": self.timeout,
        }


def _stem(path: str) -> str:
    return Path(path.removesuffix(".gz")).stem


def _existing(path: Path) -> Path:
    """The file, with or without .gz."""
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"{path.name}.gz")
    return other if other.is_file() and not path.is_file() else path


def _labelled(instances: Sequence[Instance]) -> list[Instance]:
    """The instances, with labels where file names repeat: with their folders, and numbers for the same files."""
    same = Counter(instance.name for instance in instances)
    names, result = Counter[str](), list[Instance]()
    for instance in instances:
        if same[instance.name] > 1:
            folders = (Path(path).parent.parts for path in (instance.onnx, instance.vnnlib))
            parts = (*next(folders), _stem(instance.onnx), *next(folders), _stem(instance.vnnlib))
            label = "_".join(part for part in parts if part not in ("..", "/"))
            names[label] += 1
            instance = replace(instance, label=label if names[label] == 1 else f"{label}_{names[label]}")
        result.append(instance)
    return result


def read_instances(path: Path, *, timeout: float = math.inf) -> list[Instance]:
    """The instances of a list, with at most `timeout` seconds each. Paths are relative to the list.

    File names may repeat in different folders, and lines may repeat: the names of such instances have the folders, and
    a number. They depend on the whole list, so any part of it can be resumed.

    Raises:
        ValueError: the list is empty or has other columns; the message names the line.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader if any(line)]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a list of comma-separated values ({error})") from None
    headed = bool(lines) and lines[0][1][0].lower() == "onnx"
    columns = lines.pop(0)[1] if headed else list(COLUMNS)
    missing = set(COLUMNS) - set(columns)
    if missing or not lines:
        what = f"has no column {', '.join(sorted(missing))}" if missing else "has no instances"
        raise ValueError(f"{path} {what}: expected lines of a network, a property and a number of seconds")
    instances = []
    for number, cells in lines:
        try:
            if len(cells) != len(columns):
                raise ValueError(f"there are {len(cells)} values; a first line may name other columns")
            fields = dict(zip(columns, cells, strict=True))
            limit = min(seconds(fields["timeout_s"]), timeout)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: expected {', '.join(columns)} ({error})") from None
        verdict = fields.get("known_verdict", "")
        if verdict not in KNOWN:
            raise ValueError(
                f"{path}, line {number}: known_verdict is {verdict!r}, expected sat, unsat, unknown or nothing"
            )
        instances.append(Instance(fields["onnx"], fields["vnnlib"], limit, verdict, path.parent))
    return _labelled(instances)


def decide_instances(
    instances: Sequence[Instance],
    folder: Path,
    *,
    resume: bool = False,
    on_record: Callable[[int, Record], None] | None = None,
) -> list[Record]:
    """Decide instances one after another, and write each result as soon as it is known.

    Args:
        instances: of one list or several; their names must differ.
        folder: where to write the records and the text files.
        resume: keep the existing records except errors, and decide only the other instances.
        on_record: called with the place of an instance, counted from 0, and its new record.

    Returns:
        The records of all instances, in order.

    Raises:
        ValueError: the folder has records and `resume` is off; or they belong to other files or another timeout; or
            one of them contradicts itself; or two instances have the same name; or another process writes there.
    """
    twice = [name for name, count in Counter(instance.name for instance in instances).items() if count > 1]
    if twice:
        raise ValueError(f"two instances are called {twice[0]}: decide them one by one, with --instances and --out")
    path = folder / RECORDS
    with locks.alone(path.with_suffix(".lock"), path):
        return _decided(instances, path, start_records(path, instances, resume=resume), on_record)


def _decided(
    instances: Sequence[Instance],
    path: Path,
    records: dict[str, Record],
    on_record: Callable[[int, Record], None] | None,
) -> list[Record]:
    """The records, and those of the other instances, which are decided and appended to the file."""
    load = lru_cache(maxsize=1)(_load)  # instances of one network usually follow one another
    for place, instance in enumerate(instances):
        if instance.name not in records:
            record, text = decide(instance, load)
            write_whole(path.with_name(f"{instance.name}.txt"), text.encode())
            jsonl.append(path, [record])
            records[instance.name] = record
            if on_record is not None:
                on_record(place, record)
    return [records[instance.name] for instance in instances]


def start_records(path: Path, instances: Sequence[Instance], *, resume: bool) -> dict[str, Record]:
    """Prepare the file for new records; returns the existing records except errors, by the names of instances.

    Raises:
        ValueError: there are records and `resume` is off; or they belong to other files or another timeout; or one of
            them contradicts itself.
    """
    if not path.exists():
        return {}
    if not resume:
        raise ValueError(f"{path} exists already: resume it (--resume), or choose another place (--out)")
    done: dict[str, Record] = {}
    for number, record in enumerate(jsonl.read(path), start=1):
        with jsonl.named(f"{path}, line {number}"):
            check_instance(record)
            if record["name"] in done:
                raise ValueError(f"{record['name']} already has a result, in another line: take one of them out")
            if record["verdict"] != "error":
                _check_text(path.with_name(f"{record['name']}.txt"), record)
                done[record["name"]] = record
    for instance in instances:
        now = instance.about()
        before = done.get(instance.name, now)
        different = [f"{key} was {before.get(key)!r}, now {now[key]!r}" for key in now if before.get(key) != now[key]]
        if different:
            raise ValueError(
                f"{path} has a result of another {instance.name} ({'; '.join(different)}): choose another place"
            )
    jsonl.rewrite(path, done.values())
    return done


def _check_text(path: Path, record: Record) -> None:
    """Raise ValueError if the result file of an instance does not agree with its record."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.partition("\n")[0] != record["verdict"] or (record["verdict"] == "sat") != ("(X_0 " in text):
        needed = "the verdict, and a counterexample" if record["verdict"] == "sat" else "only the verdict"
        raise ValueError(
            f"the verdict of {record['name']} is {record['verdict']}, but {path} does not hold {needed}: take the line "
            f"out, and decide it again"
        )


def decide(instance: Instance, load: Callable[..., Loaded]) -> tuple[Record, str]:
    """The record of an instance, and the text of its result file."""
    about = instance.about()
    begin = now()
    try:
        result = _result(instance, load, begin)
        verdict = WORDS[result.verdict]
        if result.open is Open.TIME:
            verdict = "timeout"
    except Exception as error:  # after any error of one instance, the others are still decided
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        verdict, result = "error", PropertyResult(verdict="unknown", stage="", bound=None, seconds=0.0, reason=reason)
    record = {
        "name": instance.name,
        **about,
        "verdict": verdict,
        "known_verdict": instance.known,
        "stage": result.stage,
        "bound": result.bound,
        "seconds": now() - begin,
        "solve_seconds": result.seconds,
        "reason": result.reason,
        "failed": dict(result.failed),
    }
    return record, f"{verdict}\n{_assignment(result)}"


def _result(instance: Instance, load: Callable[..., Loaded], begin: float) -> PropertyResult:
    """The answer about an instance. Reading its files counts toward its time, which began at a moment."""
    prop = read_vnnlib(instance.property_path)
    model, runtime = _networks(instance, prop, load)
    left = instance.timeout - (now() - begin)
    if left <= 0:
        reason = f"{instance.timeout:g} seconds were not enough: reading the files took {now() - begin:.1f}"
        return PropertyResult(verdict="unknown", stage="", bound=None, seconds=0.0, reason=reason, open=Open.TIME)
    result = verify_property(model, prop, timeout=left, replay=runtime)
    left = instance.timeout - (now() - begin)
    if result.verdict != "unknown" or result.open is Open.TIME or left <= 0:
        return result
    if prop.inputs <= InputSplit.inputs:  # the search over boxes has ended
        return result if result.failed else replace(result, reason=f"{result.reason}; {_why(result.bound)}")
    last = verify_property(model, prop, timeout=left, replay=runtime, stages=LAST, seed=1)
    bounds = [bound for bound in (result.bound, last.bound) if bound is not None]
    both = replace(
        last,
        bound=max(bounds, default=None),
        failed={**result.failed, **last.failed},
        seconds=result.seconds + last.seconds,
    )
    if both.verdict == "violated":
        return replace(both, bound=None if both.bound is None or both.bound > 0 else both.bound)
    if both.verdict == "holds" or last.open is Open.TIME:
        return both
    if result.failed:
        return replace(both, open=Open.ERROR, reason=result.reason)
    return both if last.failed else replace(both, reason=f"{last.reason}; {_why(both.bound)}")


# what is tried in the time that other stages leave: more attacks, and boxes of many inputs until the end
LAST: tuple[Stage, ...] = (Falsify(rounds=10), InputSplit(inputs=10**6, max_subproblems=10**9, share=1.0))


def _why(bound: float | None) -> str:
    """Why more time would not help."""
    if bound is None:
        return "no stage has a bound of the least margin: the region may be too large for numbers"
    return f"the least margin is above {bound:.3g}, and the search over boxes has ended: the margin may be 0"


def _networks(instance: Instance, prop: Property, load: Callable[..., Loaded]) -> Loaded:
    """The network of an instance, or one network at several places of a property."""
    declared = prop.networks
    own = [network.name for network in declared if network.equal_to is None]
    if len(own) > 1:
        raise ValueError(
            f"the property declares the networks {', '.join(own)}, and the list gives one: use "
            f"ctbench.verify_property({{name: network, ...}}, property)"
        )
    names: list[tuple[str, ...] | None] = [None, None]
    if declared:
        sides = [[tensor.onnx_name for tensor in side] for side in (declared[0].inputs, declared[0].outputs)]
        names = [tuple(name for name in side if name is not None) if None not in side else None for side in sides]
    network, runtime = load(instance.network_path, *names)
    if len(declared) < 2:
        return network, runtime
    sizes = [sum(tensor.size for tensor in one.inputs) for one in declared]
    return joint({own[0]: network}, declared), runtime and joint_replay([runtime] * len(sizes), sizes)


def _load(path: Path, inputs: tuple[str, ...] | None = None, outputs: tuple[str, ...] | None = None) -> Loaded:
    """A network, and the same network in ONNX Runtime if it is installed."""
    network = load_onnx(path, inputs=inputs, outputs=outputs)
    return network, replay(path, inputs=inputs, outputs=outputs) if can_replay() else None


def _assignment(result: PropertyResult) -> str:
    """A counterexample in the format of VNN-COMP: ((X_0 0.5)\n (X_1 0.0)\n (Y_0 1.25))."""
    if result.counterexample is None:
        return ""
    pairs = [
        f"({letter}_{index} {_digits(number)})"
        for letter, values in zip("XY", result.counterexample, strict=True)
        for index, number in enumerate(values.flatten().tolist())
    ]
    return "(" + "\n ".join(pairs) + ")\n"


def _digits(number: float) -> str:
    """All digits of a number. A rounded 0.3 is above the nearest float64 number, so it may be outside a bound."""
    return np.format_float_positional(number, unique=False, precision=1100, trim="0")


def _digest(path: Path) -> str | None:
    """The SHA-256 of a file, if there is one."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None

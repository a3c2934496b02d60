"""`ctbench vnncomp`: decide a list of VNN-LIB properties of ONNX networks, in the format of VNN-COMP."""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from rich.console import Console
from rich.table import Table

from ctbench.cli import failures
from ctbench.cli.options import Commands, seconds, wide_console
from ctbench.onnx import OnnxNetwork, can_replay, load_onnx, replay
from ctbench.results import Open, jsonl
from ctbench.results.checking import check_instance
from ctbench.results.failures import by_stage
from ctbench.results.jsonl import Record, write_whole
from ctbench.verify import DEFAULT_STAGES, PropertyResult, read_vnnlib, verify_property
from ctbench.verify.cascade import Replay

COLUMNS = ("onnx", "vnnlib", "timeout_s")
VERDICTS = ("unsat", "sat", "unknown", "timeout", "error")
FAILED = "unknown (error)"  # the column of unknown instances with a failed stage; "unknown" does not count them
KNOWN = ("sat", "unsat", "unknown", "")
WORDS = {"holds": "unsat", "violated": "sat", "unknown": "unknown"}

Loaded: TypeAlias = tuple[OnnxNetwork, Replay | None]


def add_to(commands: Commands) -> None:
    command = commands.add_parser("vnncomp", help="decide VNN-LIB properties of ONNX networks")
    command.add_argument(
        "list_path",
        type=Path,
        metavar="INSTANCES.csv",
        help="each line has a network, a property and its seconds; or columns onnx, vnnlib, timeout_s, known_verdict",
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="the results (default: runs/vnncomp/NAME OF THE LIST)")
    command.add_argument("--timeout", type=seconds, default=math.inf, metavar="S", help="at most for each instance")
    command.add_argument(
        "--instances", type=places, default=slice(None), metavar="A:B", help="only instances A to B - 1, counted from 0"
    )
    command.add_argument("--resume", action="store_true", help="keep the existing results, decide the other instances")
    failures.add_strict(command)
    command.add_argument("--quiet", action="store_true", help="show no progress")
    command.set_defaults(run=run)


def places(text: str) -> slice:
    """The slice A:B; A and B are optional."""
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range: write A:B, e.g. 0:10 for the first ten")
    return slice(*(int(end) if end else None for end in match.groups()))


@dataclass(frozen=True)
class Instance:
    """A line of the list."""

    onnx: str  # the name in the list
    vnnlib: str
    timeout: float
    known: str  # the known verdict, or "" if the list has none
    folder: Path  # the folder of the list; names are relative to it

    @property
    def name(self) -> str:
        """The name of its result file."""
        return f"{Path(self.onnx).stem}_{Path(self.vnnlib.removesuffix('.gz')).stem}"

    @property
    def network_path(self) -> Path:
        return self.folder / self.onnx

    @property
    def property_path(self) -> Path:
        """The existing file, with or without .gz."""
        path = self.folder / self.vnnlib
        other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"{path.name}.gz")
        return other if other.is_file() and not path.is_file() else path

    def about(self) -> Record:
        """Everything that the result depends on; a missing file has no digest."""
        return {
            "onnx": self.onnx,
            "vnnlib": self.vnnlib,
            "onnx_sha256": _digest(self.network_path),
            "vnnlib_sha256": _digest(self.property_path),
            "timeout_s": self.timeout,
        }


def read_instances(path: Path, *, timeout: float = math.inf) -> list[Instance]:
    """The instances of a list, with at most `timeout` seconds each. Paths are relative to the list.

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
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"{path}, line {number}: expected {', '.join(columns)} ({error})") from None
        known = fields.get("known_verdict", "")
        if known not in KNOWN:
            raise ValueError(
                f"{path}, line {number}: known_verdict is {known!r}, expected sat, unsat, unknown or nothing"
            )
        instances.append(Instance(fields["onnx"], fields["vnnlib"], limit, known, path.parent))
    return instances


def run(args: argparse.Namespace) -> None:
    every = read_instances(args.list_path, timeout=args.timeout)
    instances = every[args.instances]
    if not instances:
        raise ValueError(f"{args.list_path} has {len(every)} instances, but the chosen range is empty")
    out = args.out or Path("runs/vnncomp") / args.list_path.stem
    records = out / "results.jsonl"
    done = start(records, instances, resume=args.resume)
    load = lru_cache(maxsize=1)(_load)  # instances of one network usually follow one another
    if not can_replay():
        print("no onnxruntime: counterexamples are not replayed there (pip install 'ctbench[replay]')", file=sys.stderr)
    console = Console(stderr=True, quiet=args.quiet)
    for number, instance in enumerate(instances, start=1):
        if instance.name not in done:
            with failures.without_warning():
                record, text = decide(instance, load)
            write_whole(out / f"{instance.name}.txt", text.encode())
            jsonl.append(records, [record])
            done[instance.name] = record
            message = f"{record['verdict']} {record['stage']} {record['seconds']:.1f} s"
            console.print(f"{number}/{len(instances)} {instance.name}: {message}", highlight=False, soft_wrap=True)
    chosen = [done[instance.name] for instance in instances]
    failed = {"": by_stage(record.get("failed", {}) for record in chosen)}
    try:
        show(instances, chosen)
    except ValueError:
        failures.tell(failed, strict=False)
        raise
    print(records)
    failures.tell(failed, strict=args.strict)


def start(path: Path, instances: Sequence[Instance], *, resume: bool) -> dict[str, Record]:
    """Prepare the file for new records; returns the existing records except errors, by the names of instances.

    Raises:
        ValueError: there are records and `resume` is off; or they belong to other files or another timeout; or one of
            them contradicts itself; or two instances have the same name.
    """
    twice = [name for name, count in Counter(instance.name for instance in instances).items() if count > 1]
    if twice:
        raise ValueError(f"two instances are called {twice[0]}: decide them one by one, with --instances and --out")
    path.parent.mkdir(parents=True, exist_ok=True)
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


def decide(instance: Instance, load: Callable[[Path], Loaded]) -> tuple[Record, str]:
    """The record of an instance, and the text of its result file."""
    about = instance.about()
    begin = time.perf_counter()
    try:
        network, runtime = load(instance.network_path)
        prop = read_vnnlib(instance.property_path)
        result = verify_property(network, prop, timeout=instance.timeout, replay=runtime)
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
        "seconds": time.perf_counter() - begin,
        "solve_seconds": result.seconds,
        "reason": result.reason,
        "failed": dict(result.failed),
    }
    return record, f"{verdict}\n{_assignment(result)}"


def _load(path: Path) -> Loaded:
    """A network, and the same network in ONNX Runtime if it is installed."""
    return load_onnx(path), replay(path) if can_replay() else None


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


def show(instances: Sequence[Instance], records: Sequence[Record]) -> None:
    """Print the verdicts, stage by stage.

    Raises:
        ValueError: a verdict contradicts the known verdict, or an instance has an error.
    """
    table = Table("stage", *VERDICTS, FAILED, "seconds")
    for stage in dict.fromkeys([*(stage.title for stage in DEFAULT_STAGES), *(record["stage"] for record in records)]):
        decided = [record for record in records if record["stage"] == stage]
        if decided:
            table.add_row(stage or "-", *_counts(decided))
    table.add_row("[bold]all", *(f"[bold]{count}" for count in _counts(records)))
    wide_console().print(table)
    expected = {one.name: one.known for one in instances if one.known in ("sat", "unsat")}
    verdicts = {record["name"]: record["verdict"] for record in records if record["name"] in expected}
    wrong = [name for name in expected if {expected[name], verdicts[name]} == {"sat", "unsat"}]
    if expected:
        right = sum(expected[name] == verdicts[name] for name in expected)
        print(f"{right} of {len(expected)} known verdicts found, {len(wrong)} contradicted")
    if wrong:
        listed = ", ".join(f"{name} is {expected[name]} but was found {verdicts[name]}" for name in wrong)
        raise ValueError(f"verdicts contradict the known verdicts: {listed}")
    failed = [record for record in records if record["verdict"] == "error"]
    if failed:
        example = f"e.g. {failed[0]['name']}: {failed[0]['reason']}"
        raise ValueError(f"{len(failed)} of {len(records)} instances could not be read or decided, {example}")


def _failed(record: Record) -> bool:
    """Whether an instance is unknown, and a stage failed."""
    return record["verdict"] == "unknown" and bool(record.get("failed"))


def _counts(records: Sequence[Record]) -> list[str]:
    """The number of records with each verdict, and their total seconds."""
    verdicts = Counter(FAILED if _failed(record) else record["verdict"] for record in records)
    return [
        *(str(verdicts[verdict]) for verdict in (*VERDICTS, FAILED)),
        f"{sum(record['seconds'] for record in records):.1f}",
    ]

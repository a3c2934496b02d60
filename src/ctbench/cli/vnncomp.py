"""`ctbench vnncomp`: decide a list of VNN-LIB properties of ONNX networks, in the format of VNN-COMP."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ctbench.cli import failures
from ctbench.cli.options import wide_console
from ctbench.onnx import can_replay
from ctbench.report import Grid
from ctbench.results.failures import by_stage
from ctbench.results.jsonl import Record
from ctbench.verify import DEFAULT_STAGES
from ctbench.verify.instances import RECORDS, Instance, decide_instances, read_instances

VERDICTS = ("unsat", "sat", "unknown", "timeout", "error")
FAILED = "unknown (error)"  # the column of unknown instances with a failed stage; "unknown" does not count them


def run(args: argparse.Namespace) -> None:
    every = read_instances(args.list_path, timeout=args.timeout)
    instances = every[args.instances]
    if not instances:
        raise ValueError(f"{args.list_path} has {len(every)} instances, but the chosen range is empty")
    out = args.out or Path("runs/vnncomp") / args.list_path.stem
    if not can_replay():
        print("no onnxruntime: counterexamples are not replayed there (pip install onnxruntime)", file=sys.stderr)
    console = Console(stderr=True, quiet=args.quiet)

    def print_progress(place: int, record: Record) -> None:
        message = f"{record['verdict']} {record['stage']} {record['seconds']:.1f} s"
        line = f"{place + 1}/{len(instances)} {record['name']}: {message}"
        console.print(line, highlight=False, soft_wrap=True)

    with failures.without_warning():
        records = decide_instances(instances, out, resume=args.resume, on_record=print_progress)
    failed = {"": by_stage(record.get("failed", {}) for record in records)}
    try:
        show(instances, records)
    except ValueError:
        failures.tell(failed, strict=False)
        raise
    print(out / RECORDS)
    failures.tell(failed, strict=args.strict)


def show(instances: Sequence[Instance], records: Sequence[Record]) -> None:
    """Print the verdicts, stage by stage.

    Raises:
        ValueError: a verdict contradicts the known verdict, or an instance has an error.
    """
    stages = [stage.title for stage in DEFAULT_STAGES] + [record["stage"] for record in records]
    rows = [
        [stage or "-", *_counts(decided)]
        for stage in dict.fromkeys(stages)
        if (decided := [record for record in records if record["stage"] == stage])
    ]
    headings = ("stage", *VERDICTS, FAILED, "seconds")
    wide_console().print(Grid(headings=headings, rows=[*rows, ["all", *_counts(records)]], total=True))
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

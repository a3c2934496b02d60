"""The arguments of `ctbench vnncomp`."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

from ctbench.cli.options import Commands, add_strict, seconds


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
    add_strict(command)
    command.add_argument("--quiet", action="store_true", help="show no progress")


def places(text: str) -> slice:
    """The slice A:B; A and B are optional."""
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range: write A:B, e.g. 0:10 for the first ten")
    return slice(*(int(end) if end else None for end in match.groups()))

"""The arguments of `ctbench certify`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.arguments import subject
from ctbench.cli.options import (
    Commands,
    add_attack_strength,
    add_data,
    add_engine,
    add_stages,
    add_strict,
    add_timeout,
    positive,
    radii,
    seconds,
)


def add_to(commands: Commands) -> None:
    command = commands.add_parser("certify", help="certify test images of a run, of weights or of an ONNX file")
    subject.add_network_to(command)
    command.add_argument(
        "--eps",
        type=radii,
        metavar="EPS[,EPS...]",
        help="the radius, e.g. 0.1 or 8/255, in [0, 1] pixel space (default: the recipe's); or several, e.g. "
        "0.02,0.05,0.1: what is decided at one radius is not computed again where it follows",
    )
    subject.add_kind_to(command)
    add_stages(command)
    add_attack_strength(command)
    add_timeout(command)
    command.add_argument(
        "--total", type=seconds, metavar="S", help="seconds for all samples together (default: no limit)"
    )
    command.add_argument(
        "--workers", type=positive, metavar="N", help="short for --on local:N; 1 is this process alone"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="the records (default: in the run folder)")
    command.add_argument(
        "--resume",
        action="store_true",
        help="keep the existing records, certify the other samples; with more --stages or a longer --timeout also try "
        "again those that are unknown",
    )
    command.add_argument(
        "--counterexamples", action="store_true", help="also write the counterexamples, in a folder next to the records"
    )
    command.add_argument("--export", type=Path, metavar="DIR", help="write open samples as VNN-LIB for other verifiers")
    add_strict(command)
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_data(command)
    add_engine(command)

"""The arguments of `ctbench agree`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.options import Commands, radius


def add_to(commands: Commands) -> None:
    command = commands.add_parser("agree", help="count the samples that several certifications certify")
    command.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run folders, or files of records (certified/NAME.jsonl)"
    )
    command.add_argument(
        "--eps", type=radius, help="the radius, e.g. 0.1 or 8/255 (default: that of a run's only certification)"
    )
    command.add_argument(
        "--difficulty", type=Path, metavar="FILE", help="write how many certify each sample, as .csv or .json"
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print Markdown tables")
    form.add_argument("--csv", action="store_true", help="print CSV")

"""`ctbench compare`: a table of several runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ctbench import report
from ctbench.cli import failures
from ctbench.cli.options import Commands, wide_console
from ctbench.results import Failure


def add_to(commands: Commands) -> None:
    command = commands.add_parser("compare", help="show a table of several runs")
    command.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders")
    command.add_argument("--markdown", action="store_true", help="print a Markdown table")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    failures.tell(show(args.runs, as_markdown=args.markdown), strict=False)


def show(folders: list[Path], *, as_markdown: bool = False) -> dict[str, list[Failure]]:
    """Print the table of some run folders; returns the failed stages of each run."""
    rows = report.rows(folders)
    if as_markdown:
        print(report.markdown(rows))
    else:
        wide_console().print(report.table(rows))
    failed: dict[str, list[Failure]] = {}
    for row in rows:
        failed.setdefault(row.run, []).extend(row.failures)
    return failed

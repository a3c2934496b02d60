"""`ctbench compare`: runs side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from ctbench import report
from ctbench.cli.options import Commands, wide_console


def add_to(commands: Commands) -> None:
    command = commands.add_parser("compare", help="show runs side by side")
    command.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders")
    command.add_argument("--markdown", action="store_true", help="print a table for a document")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    show(args.runs, as_markdown=args.markdown)


def show(folders: list[Path], *, as_markdown: bool = False) -> None:
    """Print the table of some run folders."""
    found = report.rows(folders)
    if as_markdown:
        print(report.markdown(found))
        return
    wide_console().print(report.table(found))

"""`ctbench compare`: a table of several runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ctbench import report, zoo
from ctbench.cli import failures
from ctbench.cli.options import check_place, wide_console
from ctbench.results import Failure


def run(args: argparse.Namespace) -> None:
    runs = [zoo.working_copy(run) for run in args.runs]
    if args.plot:
        plot(runs, args.plot, args.figure)
    failed = show(runs, as_markdown=args.markdown)
    if args.plot:
        print(args.figure)
    failures.tell(failed, strict=False)


def plot(folders: list[Path], axes: str, path: Path) -> None:
    """Draw the runs, and the published results of their settings, into a file.

    Raises:
        ValueError: `axes` are not two accuracies, no run has been certified, or matplotlib is not installed.
    """
    x, comma, y = axes.partition(",")
    if not comma:
        raise ValueError(f"--plot is {axes!r}: give two accuracies, e.g. natural,certified")
    check_place(path)
    report.draw_scatter(report.scatter_marks(report.rows(folders), x, y), x, y, path)


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

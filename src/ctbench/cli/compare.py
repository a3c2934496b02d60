"""`ctbench compare`: a table of several runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ctbench import report, zoo
from ctbench.cli import failures
from ctbench.cli.options import check_figure, wide_console
from ctbench.report.drawings import rows_csv
from ctbench.report.groups import NOTE
from ctbench.results import Failure

FORMS: dict[str, tuple[Callable[[list[report.Row]], str], Callable[[list[report.Group]], str]]] = {
    "markdown": (report.markdown, report.groups_markdown),
    "latex": (report.latex, report.groups_latex),
    "csv": (report.csv_lines, report.groups_csv),
}


def run(args: argparse.Namespace) -> None:
    check_options(args)
    args.figure = args.figure or Path("compare.png")
    axes = args.plot or args.pareto
    if axes:
        x, y = two(axes, "--plot" if args.plot else "--pareto")
        check_figure("--figure", args.figure)
    rows = report.rows([zoo.working_copy(run) for run in args.runs])
    groups = report.grouped(rows, args.group_by, args.over or ["seed"]) if args.group_by else []
    marks = []
    if axes:
        marks = report.group_marks(groups, x, y) if groups else report.scatter_marks(rows, x, y)
    if groups:
        show_groups(groups, [row.run for row in rows if row.certification is None], form=form(args))
    else:
        show_rows(rows, form=form(args))
    if args.pareto:
        marks = show_front(marks, x, y, args)
    if axes:
        report.draw_scatter(marks, x, y, args.figure, front=bool(args.pareto))
        print(args.figure)
    failures.tell(failed_stages(rows), strict=False)


def check_options(args: argparse.Namespace) -> None:
    """Raise ValueError if options do not go together."""
    if args.plot and args.pareto:
        raise ValueError("--plot and --pareto both draw one accuracy over another: give one of them")
    if args.figure and not (args.plot or args.pareto):
        raise ValueError("--figure is where a picture goes: say what it shows by --plot X,Y or --pareto X,Y")
    if args.over and not args.group_by:
        raise ValueError("--over says what runs of a group differ in: give --group-by as well, e.g. --group-by method")
    if args.reference and not args.pareto:
        raise ValueError("--reference is the reference point of a hypervolume: give --pareto as well")
    if args.reference and not all(0 <= value < 100 for value in args.reference):
        raise ValueError(f"--reference is {args.reference}: give two percents in [0, 100), e.g. 90,0")


def two(axes: str, option: str) -> tuple[str, str]:
    """The two accuracies of a picture. Raises ValueError if there are not two."""
    x, comma, y = axes.partition(",")
    if not comma or x == y:
        raise ValueError(f"{option} is {axes!r}: give two different accuracies, e.g. natural,certified")
    return x, y


def form(args: argparse.Namespace) -> str:
    """The form of tables: one of FORMS, or "" for a terminal."""
    return next((name for name in FORMS if getattr(args, name)), "")


def show_groups(groups: list[report.Group], left_out: list[str], *, form: str) -> None:
    """Print the means of groups; names the runs that were never certified."""
    if form:
        print(FORMS[form][1](groups).rstrip("\n"))
    else:
        wide_console().print(report.groups_table(groups))
        print(NOTE)
    if left_out:
        print(f"not certified, so left out: {', '.join(left_out)}", file=sys.stderr)


def show_front(marks: list[report.Mark], x: str, y: str, args: argparse.Namespace) -> list[report.Mark]:
    """Print which runs are on the front, and the hypervolumes; write a CSV file.

    Returns:
        The marks, with the names of those that dominate them.
    """
    reference = args.reference or (0.0, 0.0)
    found = report.fronts(marks, reference)
    wide_console().print(report.front_table(found, x, y))
    for front in found:
        point = f"{x} {reference[0]:g} %, {y} {reference[1]:g} %"
        print(f"{front.setting}: hypervolume {front.share:.4f} of the area above {point}")
    table = args.figure.with_suffix(".csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(rows_csv(report.front_rows(found, x, y)), encoding="utf-8")
    print(table)
    return [mark for front in found for mark in front.marks]


def show(folders: list[Path], *, form: str = "") -> dict[str, list[Failure]]:
    """Print the table of some run folders; returns the failed stages of each run."""
    rows = report.rows(folders)
    show_rows(rows, form=form)
    return failed_stages(rows)


def show_rows(rows: list[report.Row], *, form: str) -> None:
    """Print a row for each certification, in one of FORMS, or for a terminal."""
    if form:
        print(FORMS[form][0](rows).rstrip("\n"))
    else:
        wide_console().print(report.table(rows))


def failed_stages(rows: list[report.Row]) -> dict[str, list[Failure]]:
    """The failed stages of each run, by its name."""
    failed: dict[str, list[Failure]] = {}
    for row in rows:
        failed.setdefault(row.run, []).extend(row.failures)
    return failed

"""`ctbench corruptions`: the accuracy of runs on corrupted test images, over their clean accuracy."""

from __future__ import annotations

import argparse

from rich.console import Console

from ctbench import report
from ctbench.analyses.corrupted_tests import CorruptedTests
from ctbench.cli.options import check_figure, wide_console
from ctbench.corruptions import SEVERITIES
from ctbench.results.runs import names_of
from ctbench.training import load_run


def run(args: argparse.Namespace) -> None:
    asked = CorruptedTests(
        source=args.source,
        kinds=tuple(args.kinds.split(",")) if args.kinds else (),
        severities=_severities(args.severities),
        seed=args.seed,
    )
    if args.figure:
        check_figure("--figure", args.figure)
    console = Console(stderr=True, quiet=args.quiet or not Console(stderr=True).is_terminal)
    networks = {}
    with console.status("corruptions") as status:
        for path, name in zip(args.runs, names_of(args.runs), strict=True):
            status.update(f"corruptions: {path}")
            networks[name] = asked(load_run(path), root=args.data, samples=args.samples, device=args.device)
    rows = report.ratio_rows(networks, by_severity=args.by_severity)
    if args.csv:
        print(report.ratio_csv(rows), end="")
    elif args.markdown:
        print(report.ratio_markdown(rows))
    else:
        wide_console().print(report.ratio_table(rows))
    if args.figure:
        report.draw_heat_map(rows, f"accuracy on corrupted images over clean accuracy ({args.source})", args.figure)
        if not args.csv and not args.markdown:
            print(args.figure)


def _severities(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(",") if part.isdecimal())
    if len(numbers) != len(text.split(",")) or not set(numbers) <= set(SEVERITIES):
        raise ValueError(f"--severities is {text!r}: give whole numbers from 1 to 5, separated by commas")
    return tuple(sorted(set(numbers)))

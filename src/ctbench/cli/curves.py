"""`ctbench curves`: certified and adversarial accuracy over the radius, or over the seconds of a sample."""

from __future__ import annotations

import argparse

from ctbench import zoo
from ctbench.cli.options import check_figure
from ctbench.report.curves import OVER_RADII, OVER_SECONDS, radius_rows, time_rows
from ctbench.report.drawings import rows_csv


def run(args: argparse.Namespace) -> None:
    folders = [zoo.working_copy(run) for run in args.runs]
    if args.over == "eps" and args.eps is not None:
        raise ValueError("--eps chooses the radius of curves over seconds: add --over seconds, or leave it out")
    check_figure("--figure", args.figure)
    over_radii = args.over == "eps"
    rows = radius_rows(folders) if over_radii else time_rows(folders, args.eps)
    title = f"accuracy (%) over {'the radius' if over_radii else 'the seconds of a sample'}"
    (OVER_RADII if over_radii else OVER_SECONDS).draw(rows, title, args.figure)
    table = args.figure.with_suffix(".csv")
    table.write_text(rows_csv(rows), encoding="utf-8")
    print(args.figure)
    print(table)

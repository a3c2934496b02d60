"""The arguments of `ctbench compare`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.options import Commands, names, percents


def add_to(commands: Commands) -> None:
    command = commands.add_parser("compare", help="show a table of several runs")
    command.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    form.add_argument("--latex", action="store_true", help="print a LaTeX table, for the package booktabs")
    form.add_argument("--csv", action="store_true", help="print CSV")
    command.add_argument(
        "--group-by",
        type=names,
        metavar="FIELD[,FIELD...]",
        help="show means, standard deviations and 95%% intervals of runs that agree in these fields, e.g. method or "
        "method,method.alpha",
    )
    command.add_argument(
        "--over",
        type=names,
        metavar="FIELD[,FIELD...]",
        help="with --group-by: the fields in which runs of a group differ (default: seed)",
    )
    command.add_argument(
        "--pareto",
        metavar="X,Y",
        help="also show which runs no other run beats in two accuracies, e.g. natural,certified, and the hypervolume; "
        "draw them like --plot, and write a .csv file next to the picture",
    )
    command.add_argument(
        "--reference", type=percents, metavar="X,Y", help="the reference point of --pareto, in percent (default: 0,0)"
    )
    command.add_argument(
        "--plot",
        metavar="X,Y",
        help="also draw one accuracy over another, e.g. natural,certified (or adversarial), with published results",
    )
    command.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="where --plot or --pareto draws, .png or .svg (default: compare.png)",
    )

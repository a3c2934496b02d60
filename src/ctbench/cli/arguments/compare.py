"""The arguments of `ctbench compare`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.options import Commands


def add_to(commands: Commands) -> None:
    command = commands.add_parser("compare", help="show a table of several runs")
    command.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders")
    command.add_argument("--markdown", action="store_true", help="print a Markdown table")
    command.add_argument(
        "--plot",
        metavar="X,Y",
        help="also draw one accuracy over another, e.g. natural,certified (or adversarial), with published results",
    )
    command.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        default=Path("compare.png"),
        help="where --plot draws, .png or .svg (default: %(default)s)",
    )

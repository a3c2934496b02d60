"""The arguments of `ctbench curves`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.options import Commands, radius


def add_to(commands: Commands) -> None:
    command = commands.add_parser("curves", help="draw accuracies of runs over the radius, or over seconds")
    command.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders")
    command.add_argument(
        "--over",
        choices=("eps", "seconds"),
        default="eps",
        help="eps (the default): over the radii of certify and radius; seconds: if each sample had only this long",
    )
    command.add_argument("--eps", type=radius, help="with --over seconds: only certifications at this radius")
    command.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        default=Path("curves.png"),
        help="the picture, .png or .svg; its numbers go to a .csv file next to it (default: %(default)s)",
    )

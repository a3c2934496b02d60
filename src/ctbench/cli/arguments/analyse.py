"""The arguments of `ctbench analyse`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.arguments import subject
from ctbench.cli.options import Commands, add_data, add_engine, radius

DEFAULT = "fragmentation,utilisation,states,tightness"


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "analyse", help="measure what training made of networks, e.g. how many neurons switch"
    )
    command.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, or other networks with --dataset (as for certify)"
    )
    command.add_argument(
        "--what",
        default=DEFAULT,
        metavar="NAME,...",
        help="analyses, separated by commas (ctbench list analyses; default: %(default)s)",
    )
    command.add_argument(
        "--eps", type=radii, metavar="E,...", help="radii, e.g. 0.1,0.3 or 8/255 (default: that of each recipe)"
    )
    subject.add_kind_to(command)
    command.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="NAME.FIELD=VALUE",
        help="an option of an analysis, e.g. fragmentation.draws=100 or own-accuracy.method=taps",
    )
    command.add_argument("--seed", type=int, default=0, help="of random draws (default: 0)")
    command.add_argument("--out", type=Path, metavar="DIR", help="the folder of the records (default: the run folders)")
    command.add_argument("--csv", type=Path, metavar="FILE", help="also write all numbers, those of layers included")
    command.add_argument(
        "--plot", type=Path, metavar="FILE", help="also draw figures, PNG or SVG, each with a CSV file next to it"
    )
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_data(command)
    add_engine(command)


def radii(text: str) -> list[float]:
    """One or more radii."""
    return [radius(part) for part in text.split(",")]

"""The arguments of `ctbench corruptions`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.options import Commands, add_data, add_device, positive

OURS = "ours"


def add_to(commands: Commands) -> None:
    command = commands.add_parser("corruptions", help="test runs on corrupted images (fog, noise, blur etc.)")
    command.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders")
    command.add_argument(
        "--source",
        default=OURS,
        help="ours: 15 corruptions of the run's test images, with the names of MNIST-C (the default); or the published "
        "images mnist-c, cifar10-c or tinyimagenet-c",
    )
    command.add_argument(
        "--kinds", metavar="A,B,...", help="corruptions, separated by commas (default: all; ctbench list corruptions)"
    )
    command.add_argument(
        "--severities", metavar="A,B,...", default="1,2,3,4,5", help="from 1 (weak) to 5 (default: %(default)s)"
    )
    command.add_argument("--samples", type=positive, metavar="N", help="the first N images of each test set")
    command.add_argument("--seed", type=int, default=0, help="of our corruptions (default: 0)")
    command.add_argument("--by-severity", action="store_true", help="also show each severity")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    form.add_argument("--csv", action="store_true", help="print CSV")
    command.add_argument("--figure", type=Path, metavar="FILE", help="also draw a heat map, .png or .svg")
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_data(command)
    add_device(command)

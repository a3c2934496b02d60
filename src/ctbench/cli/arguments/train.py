"""The arguments of `ctbench train`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.options import Commands, add_changes, add_data, add_device, add_own


def add_to(commands: Commands) -> None:
    command = commands.add_parser("train", help="train a network by a recipe")
    add_changes(command)
    command.add_argument("--out", type=Path, metavar="DIR", help="the run folder (default: runs/NAME-HASH)")
    command.add_argument("--resume", action="store_true", help="continue the run in the folder")
    command.add_argument("--compile", dest="compiled", action="store_true", help="compile the method, if possible")
    command.add_argument("--deterministic", action="store_true", help="use only deterministic algorithms of torch")
    command.add_argument("--tensorboard", action="store_true", help="also write the metrics for TensorBoard")
    command.add_argument("--dry-run", action="store_true", help="show the recipe and the run folder; train nothing")
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_own(command)
    add_data(command)
    add_device(command)

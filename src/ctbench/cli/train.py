"""`ctbench train`: from a recipe to a run folder. Under torchrun all processes train one network together."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import nn

from ctbench.cli.options import Commands, add_data, add_device, add_own, called
from ctbench.datasets import Data
from ctbench.recipes import recipe
from ctbench.training import Recipe, train
from ctbench.training.processes import joined


def add_to(commands: Commands) -> None:
    command = commands.add_parser("train", help="train a network by a recipe")
    command.add_argument("recipe", metavar="RECIPE", help="a recipe's name (ctbench list recipes) or a recipe.json")
    command.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change a field of the recipe, e.g. epochs=5, optimizer.lr=0.001 or method=ibp; may be repeated",
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="the run folder (default: runs/NAME-HASH)")
    command.add_argument("--resume", action="store_true", help="continue the run in the folder")
    command.add_argument("--compile", dest="compiled", action="store_true", help="compile the method, if possible")
    command.add_argument("--deterministic", action="store_true", help="use only deterministic algorithms of torch")
    command.add_argument("--tensorboard", action="store_true", help="also write the metrics for TensorBoard")
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_own(command)
    add_data(command)
    add_device(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    start = Recipe.read(Path(args.recipe)) if args.recipe.endswith(".json") else recipe(args.recipe)
    with joined(args.device) as processes:
        trained = train(
            start.with_changes(args.changes),
            out=args.out,
            resume=args.resume,
            model=called(args.model, nn.Module) if args.model else None,
            data=called(args.data_from, Data) if args.data_from else args.data,
            device=args.device,
            quiet=args.quiet,
            compiled=args.compiled,
            deterministic=args.deterministic,
            tensorboard=args.tensorboard,
            processes=processes,
        )
    if processes.first:
        print(trained.folder.path)

"""`ctbench train`: from a recipe to a run folder. Under torchrun all processes train one network together."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection

from torch import nn

from ctbench.cli import show
from ctbench.cli.options import changes, check_out_folder
from ctbench.cli.own import called
from ctbench.datasets import Data
from ctbench.training import Recipe, train
from ctbench.training.processes import joined
from ctbench.training.runs import default_folder


def run(args: argparse.Namespace) -> None:
    start = show.start(args.recipe)
    recipe = start.with_changes(changes(args))
    if args.dry_run:
        show.show(recipe, changes(args))
        print(f"would be trained in {args.out or default_folder(recipe)}")
        return
    if args.out:
        check_out_folder(args.out)
    if not args.quiet:
        _tell_stretched(start, recipe, changes(args))
    with joined(args.device) as processes:
        trained = train(
            recipe,
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


def _tell_stretched(start: Recipe, recipe: Recipe, changes: Collection[str]) -> None:
    """Say on standard error which times another number of epochs has stretched."""
    paths = {change.partition("=")[0] for change in changes}
    before, after = ({path: value for path, value, *_ in show.rows(each)} for each in (start, recipe))
    moved = [path for path in start.differences(recipe) if path not in paths and path in before and path in after]
    if "epochs" in paths and moved:
        stretched = "; ".join(f"{path} {before[path]} -> {after[path]}" for path in ("epochs", *moved))
        print(f"stretched with the epochs: {stretched}", file=sys.stderr)

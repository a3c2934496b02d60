"""`ctbench demo`: standard, PGD and IBP training on real handwritten digits, certified and compared."""

from __future__ import annotations

import argparse

from rich.console import Console

from ctbench.cli import failures
from ctbench.cli.compare import show
from ctbench.recipes import recipe
from ctbench.results.decimals import decimals
from ctbench.training import train
from ctbench.verify import FAST_STAGES, certify

RECIPES = ("digits_standard", "digits_pgd", "digits_ibp")


def run(args: argparse.Namespace) -> None:
    console = Console(stderr=True)
    folders = []
    for name in RECIPES:
        console.print(f"[bold]{name}[/bold]: training")
        trained = train(recipe(name), out=args.out / name, resume=True, quiet=not console.is_terminal)
        x, y = trained.recipe.dataset.load().test[:]
        threat = trained.recipe.threat
        console.print(f"[bold]{name}[/bold]: certifying {len(x)} test images at eps {decimals(threat.eps)}")
        with failures.without_warning():
            certify(trained, x, y, stages=FAST_STAGES)
        folders.append(trained.folder.path)
    failures.tell(show(folders), strict=args.strict)

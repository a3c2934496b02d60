"""`ctbench demo`: standard, PGD and IBP training on real handwritten digits, certified, compared and shown as pages."""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from ctbench.cli import failures, report
from ctbench.cli.compare import show
from ctbench.cli.same_runs import Named
from ctbench.recipes import recipe
from ctbench.results import RunFolder
from ctbench.results.decimals import decimals
from ctbench.training import train
from ctbench.verify import FAST_STAGES, certify
from ctbench.verify.trained import records_of

TITLE = "Three networks on handwritten digits"
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
            records = replace(records_of(trained, threat), counterexamples=True)
            certify(trained, x, y, stages=FAST_STAGES, records=records)
        folders.append(trained.folder.path)
    failed = show(folders)
    show_report(folders, args.out.with_name(f"{args.out.name}-report"))
    failures.tell(failed, strict=args.strict)


def show_report(folders: list[Path], out: Path) -> None:
    """Write pages about the runs, and print how to look at them; or how to get what they need."""
    if find_spec("jinja2") is None:
        print("pip install jinja2 to also see these runs as pages: ctbench report RUN...")
        return
    index = report.write([Named(folder=RunFolder(path), path=path) for path in folders], out, title=TITLE)
    print(f"pages about these runs: open {index} in a browser")

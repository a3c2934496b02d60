"""`ctbench reproduce`: run a paper's experiment, and draw its figure beside the numbers behind it."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ctbench import report
from ctbench.cli.options import Commands, positive
from ctbench.experiments import PAPERS, TINY, Figure, Scale, figures, run


def add_to(commands: Commands) -> None:
    command = commands.add_parser("reproduce", help="run a paper's experiment and draw its figure")
    command.add_argument("paper", choices=sorted(PAPERS), metavar="PAPER", help=f"one of {', '.join(sorted(PAPERS))}")
    command.add_argument("figures", nargs="*", metavar="FIGURE", help="their numbers, as 3a; none shows what there are")
    command.add_argument("--scale", choices=["tiny", "paper"], default="tiny", help="tiny: seconds, to see it work")
    command.add_argument("--seeds", type=positive, metavar="N", help="how many (default: 2, or the paper's)")
    command.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, metavar="N", help="processes")
    command.add_argument("--total", type=float, default=math.inf, metavar="S", help="seconds after which none is begun")
    command.add_argument("--out", type=Path, default=Path("runs/reproduce"), metavar="DIR", help="records and figures")
    command.add_argument("--quiet", action="store_true", help="show no progress")
    command.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> None:
    known = figures(args.paper)
    if not args.figures:
        for figure in known.values():
            print(f"{figure.number:14} {figure.claim}")
        return
    unknown = [number for number in args.figures if number not in known]
    if unknown:
        raise ValueError(f"{args.paper} has no figure {unknown[0]!r}; there are {', '.join(known)}")
    if not args.total > 0:
        raise ValueError(f"total is {args.total}: give a number of seconds > 0")
    folder = args.out / args.paper / args.scale
    for number in args.figures:
        reproduce(known[number], folder, args)


def reproduce(figure: Figure, folder: Path, args: argparse.Namespace) -> None:
    """Run what is missing of a figure's experiment, and draw it."""
    scale = TINY if args.scale == "tiny" else Scale(seeds=figure.experiment.seeds)
    scale = Scale(**{**vars(scale), "seeds": args.seeds or scale.seeds})
    trials = figure.experiment.trials(scale)
    with _progress(figure, quiet=args.quiet) as progress:
        task = progress.add_task(f"figure {figure.number}", total=len(trials))
        records = run(
            trials,
            folder / f"{figure.experiment.name}.jsonl",
            jobs=args.jobs,
            total=args.total,
            watch=lambda done, _: progress.update(task, completed=done),
        )
    seeds = _whole_seeds(records, len(trials) // scale.seeds)
    if len(seeds) < scale.seeds:
        print(f"{len(records)} of {len(trials)} trials are done: the figure shows {len(seeds)} of {scale.seeds} seeds")
    found = report.points([record for record in records if record["seed"] in seeds], figure.plot)
    path = folder / f"{figure.number}.png"
    report.draw(found, figure.plot, path)
    path.with_suffix(".csv").write_text(report.as_csv(found, figure.plot), encoding="utf-8")
    print(path)


def _whole_seeds(records: list[dict[str, object]], trials: int) -> set[object]:
    """The seeds of which every trial is done."""
    counts: dict[object, int] = {}
    for record in records:
        counts[record["seed"]] = counts.get(record["seed"], 0) + 1
    return {seed for seed, count in counts.items() if count == trials}


def _progress(figure: Figure, *, quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=quiet)

"""`ctbench reproduce`: run the experiment of a paper, draw its figure, and write the numbers next to it."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ctbench import report
from ctbench.cli.engines import engine
from ctbench.experiments import (
    NETWORK_SCALES,
    PAPERS,
    TINY,
    ExperimentScale,
    Figure,
    NetworkFigure,
    Networks,
    Trial,
    figures,
)
from ctbench.experiments import run as run_trials
from ctbench.experiments.networks import NotInTimeError
from ctbench.progress import progress_bars
from ctbench.report import Plot
from ctbench.results.jsonl import Record


def run(args: argparse.Namespace) -> None:
    if args.paper not in PAPERS:
        raise ValueError(f"there is no paper {args.paper!r}: name one of {', '.join(sorted(PAPERS))}")
    available = figures(args.paper)
    unknown = [number for number in args.figures if number not in available]
    if unknown:
        raise ValueError(f"{args.paper} has no figure {unknown[0]!r}; there are {', '.join(available)}")
    if not args.figures:
        for figure in available.values():
            print(f"{figure.number:14} {figure.claim}")
    deadline = time.perf_counter() + args.total
    for number in args.figures:
        figure = available[number]
        if isinstance(figure, NetworkFigure):
            _of_networks(figure, args, deadline)
        else:
            reproduce(figure, args, total=deadline - time.perf_counter())


def _of_networks(figure: NetworkFigure, args: argparse.Namespace, deadline: float) -> None:
    """Train and measure the networks of a figure as far as they are missing, and draw it."""
    scale = NETWORK_SCALES[args.scale]
    with progress_bars(quiet=args.quiet) as bars:
        task = bars.add_task(figure.number, total=None, text="")
        networks = Networks(
            scale=replace(scale, seeds=args.seeds) if args.seeds else scale,
            folder=args.out / "networks" / args.scale,
            data=args.data,
            device=args.device,
            engine=engine(args.on, args.device),
            deadline=deadline,
            tell=lambda text: bars.update(task, text=text),
        )
        try:
            places, finding = figure.reproduce(networks, args.out / args.paper / args.scale)
        except NotInTimeError as error:
            raise ValueError(f"{figure.number} cannot be shown yet, {error}: run the same command again") from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; records are kept, and the same command continues") from None
    print(f"{figure.number}: {finding}")
    for path in places:
        print(path)


def reproduce(figure: Figure, args: argparse.Namespace, *, total: float) -> None:
    """Run the missing trials of a figure's experiment, and draw it."""
    if args.scale not in ("tiny", "paper"):
        raise ValueError(
            f"--scale is {args.scale}, which figure {figure.number} of synthetic data does not have: give tiny or paper"
        )
    scale, plot = ExperimentScale(seeds=args.seeds or figure.experiment.seeds), figure.plot
    if args.scale == "tiny":
        scale = replace(TINY, seeds=args.seeds or TINY.seeds)
        plot = replace(plot, title=f"{plot.title}, at a tiny scale")
    folder, trials = args.out / args.paper / args.scale, figure.experiment.trials(scale)
    records = _run(figure, trials, folder, args, total)
    each = len(trials) // scale.seeds
    seeds = [seed for seed, count in Counter(record["seed"] for record in records).items() if count == each]
    done = f"figure {figure.number}: {len(records)} of {len(trials)} trials are done"
    if not seeds:
        raise ValueError(f"{done}, but no seed has all {each}, so nothing can be drawn: run the same command again")
    if len(seeds) < scale.seeds:
        print(f"{done}: it shows {len(seeds)} of {scale.seeds} seeds")
    _draw([record for record in records if record["seed"] in seeds], plot, folder / f"{figure.number}.png")


def _run(figure: Figure, trials: list[Trial], folder: Path, args: argparse.Namespace, total: float) -> list[Record]:
    """The records of the trials that fit into the time."""
    with progress_bars(quiet=args.quiet) as bars:
        task = bars.add_task(f"figure {figure.number}", text="")
        try:
            return run_trials(
                trials,
                folder / f"{figure.experiment.name}.jsonl",
                engine=engine(args.on, workers=args.jobs or (None if args.on else os.cpu_count())),
                total=total,
                watch=lambda done, count: bars.update(task, completed=done, total=count),
            )
        except KeyboardInterrupt:
            message = "interrupted; finished trials are kept, and the same command continues"
            raise KeyboardInterrupt(message) from None


def _draw(records: list[Record], plot: Plot, path: Path) -> None:
    points = report.points(records, plot)
    path.with_suffix(".csv").write_text(report.as_csv(points, plot), encoding="utf-8")
    report.draw(points, plot, path)
    print(path)

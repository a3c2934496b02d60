"""`ctbench tune`: choose values of a recipe's fields by images that are held out, and test the choice once."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from rich.table import Table

from ctbench.cli import show
from ctbench.cli.engines import check_paths, engine
from ctbench.cli.options import changes, wide_console
from ctbench.cli.overview import Overview, Step
from ctbench.results import Study, StudyFolder
from ctbench.tuning import Begun, Outcome, tune, writing

PASSED_ON = (  # options that are arguments of `ctbench.tune`
    "trials",
    "total",
    "objective",
    "protocol",
    "validation",
    "pruner",
    "prune_after",
    "bound",
    "trial_stages",
    "stages",
    "timeout",
    "samples",
    "seeds",
    "hindsight",
    "device",
    "data",
    "out",
)


def run(args: argparse.Namespace) -> None:
    recipe = show.start(args.recipe).with_changes(changes(args))
    place = engine(args.on, args.device, apart=True)
    check_paths(place, recipe.dataset, args.data)
    overview = Overview.of(args.trials + args.seeds, quiet=args.quiet)
    with overview.shown(), _continued():
        study = tune(
            recipe,
            args.space,
            seed=args.search_seed,
            engine=place,
            watch=Watched(overview),
            **{name: getattr(args, name) for name in PASSED_ON},
        )
    tell(study)


@contextmanager
def _continued() -> Iterator[None]:
    """A context in which an interruption says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command continues the study") from None


class Watched:
    """Shows what happens to the runs of a study."""

    def __init__(self, overview: Overview) -> None:
        self.overview = overview

    def __call__(self, name: str, message: Begun | Outcome) -> None:
        if isinstance(message, Begun):
            unit = "epoch" if message.step == "train" else "sample"
            step = Step(name, message.step, unit, message.records, message.total)
            self.overview.begin(step, unfinished=message.unfinished)
        else:
            self.overview.end(name, message.error, result=ending(message))


def ending(outcome: Outcome) -> str:
    """How a run ended without an error, in words."""
    if outcome.certified_accuracy is None:
        return f"pruned after epoch {outcome.pruned_at}"
    return f"certified {100 * outcome.certified_accuracy:.2f} %"


def tell(study: Study) -> None:
    """Print what was chosen and why, the results on the test set, and where to read more."""
    folder = StudyFolder(study.path)
    print(study.content["why"])
    table = Table(box=None, pad_edge=False)
    for heading in ("final run", "trial", "seed", "samples", "natural %", "adversarial %", "certified %"):
        table.add_column(heading, justify="left" if heading == "final run" else "right", no_wrap=True)
    for result in study.results:
        accuracies = [result.get(f"{kind}_accuracy") for kind in ("natural", "adversarial", "certified")]
        cells = ["" if accuracy is None else f"{100 * accuracy:.2f}" for accuracy in accuracies]
        samples = str(result.get("samples", result.get("error", "")))
        table.add_row(result["folder"], str(result["trial"]), str(result["seed"]), samples, *cells)
    wide_console().print(table)
    if study.content["compared_on"] == "test":
        print("trials were compared on the test images (--protocol ctbench-test-data): these accuracies are optimistic")
    if study.hindsight is not None and len(study.chosen) == 1:
        print(writing.in_hindsight(study))
    print(folder.text)

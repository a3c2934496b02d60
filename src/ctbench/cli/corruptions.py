"""`ctbench corruptions`: the accuracy of runs on corrupted test images, over their clean accuracy."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from ctbench import report
from ctbench.analyses.generalisation import CorruptedSet, accuracies, our_sets, published_sets
from ctbench.cli.arguments.corruptions import OURS
from ctbench.cli.options import check_place, wide_console
from ctbench.corruptions import SEVERITIES
from ctbench.datasets import Augmentation, Images
from ctbench.results import Generalisation, append_corruptions, jsonl, read_corruptions
from ctbench.training import load_run


def run(args: argparse.Namespace) -> None:
    severities = _severities(args.severities)
    if args.figure:
        check_place(args.figure)
    console = Console(stderr=True, quiet=args.quiet or not Console(stderr=True).is_terminal)
    networks = {}
    with console.status("corruptions") as status:
        for path in args.runs:
            status.update(f"corruptions: {path}")
            networks[str(path) if path.name in networks else path.name] = measure(path, args, severities)
    rows = report.ratio_rows(networks, by_severity=args.by_severity)
    if args.csv:
        print(report.ratio_csv(rows), end="")
    elif args.markdown:
        print(report.ratio_markdown(rows))
    else:
        wide_console().print(report.ratio_table(rows))
    if args.figure:
        report.draw_heat_map(rows, f"accuracy on corrupted images over clean accuracy ({args.source})", args.figure)
        if not args.csv and not args.markdown:
            print(args.figure)


def _severities(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(",") if part.isdecimal())
    if len(numbers) != len(text.split(",")) or not set(numbers) <= set(SEVERITIES):
        raise ValueError(f"--severities is {text!r}: give whole numbers from 1 to 5, separated by commas")
    return tuple(sorted(set(numbers)))


def measure(path: Path, args: argparse.Namespace, severities: tuple[int, ...]) -> Generalisation:
    """The accuracies of a run; test sets with records in its folder are not computed again.

    Raises:
        ValueError: records in the folder have other settings, e.g. are those of other weights.
    """
    loaded = load_run(path)
    clean = loaded.recipe.dataset.load(args.data).test
    if not isinstance(clean, Images):
        raise ValueError(f"{path} was trained on {loaded.recipe.dataset.name}, which holds no images: name another run")
    clean = clean.subset(slice(args.samples))
    sets = list(_sets(clean, loaded.recipe.dataset.augmentation, args, severities))
    records = loaded.folder.corrupted(args.source if args.samples is None else f"{args.source}-{args.samples}")
    settings = {
        "dataset": loaded.recipe.dataset.title,
        "source": args.source,
        "seed": args.seed if args.source == OURS else None,
        "samples": args.samples,
        "weights": hashlib.sha256(loaded.folder.weights.read_bytes()).hexdigest(),
    }
    _start(records, settings)
    done = read_corruptions(records)
    for record in accuracies(loaded.model.to(args.device), clean, sets, done=done.keys()):
        append_corruptions(records, [record])
        done[record.key] = record
    wanted = [("clean", None), *(one.key for one in sets)]
    return Generalisation(tuple(done[key] for key in wanted))


def _sets(
    clean: Images, augmentation: Augmentation, args: argparse.Namespace, severities: tuple[int, ...]
) -> Iterator[CorruptedSet]:
    names = args.kinds.split(",") if args.kinds else ()
    if args.source == OURS:
        return our_sets(clean, names, severities, seed=args.seed)
    return published_sets(
        args.source, names, severities, root=args.data, augmentation=augmentation, samples=args.samples
    )


def _start(records: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or compare them with those that are there."""
    place = records.with_suffix(".json")
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        jsonl.write_json(place, settings)
    elif (before := jsonl.read_json(place)) != settings:
        different = ", ".join(name for name in settings if before.get(name) != settings[name])
        raise ValueError(f"{records} has records under other settings ({different}): move it away, and {place.name}")
    # a record truncated by a kill must not be joined with the next record
    jsonl.rewrite(records, jsonl.read(records))

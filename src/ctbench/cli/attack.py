"""`ctbench attack`: what attacks leave of a network's accuracy on test images."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ctbench.attacks import Evaluation, adversarial_accuracy
from ctbench.attacks.evaluation import DEFAULT
from ctbench.cli import subjects
from ctbench.cli.options import Commands, add_data, add_device, wide_console
from ctbench.results import jsonl


def add_to(commands: Commands) -> None:
    command = commands.add_parser("attack", help="attack test images: of a run, of weights, of an ONNX file")
    subjects.add_to(command)
    command.add_argument(
        "--attacks",
        default=",".join(DEFAULT),
        metavar="A,B,...",
        help="one after the other: pgd, apgd-ce, apgd-dlr, apgd-t, line-search (along segments), autoattack, "
        "autoattack-plus (default: %(default)s)",
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="the records (default: in the run folder)")
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_data(command)
    add_device(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    subject = subjects.subject(args)
    samples = subject.samples(args.samples)
    attacks = args.attacks.split(",")
    name = f"{subject.norm}-{subject.eps:.10g}-{'+'.join(attacks)}.jsonl"
    records = args.out or subject.folder.path / "attacked" / name
    if records.exists():
        raise ValueError(f"{records} exists already: choose another place with --out")
    x, y = subject.images[samples.start : samples.stop]
    console = Console(stderr=True, quiet=args.quiet or not Console(stderr=True).is_terminal)
    try:
        with console.status("attack") as status:
            found = adversarial_accuracy(
                subject.model.to(args.device),
                x,
                y,
                eps=subject.eps,
                norm=subject.norm,
                attacks=attacks,
                replay=subject.replay,
                watch=lambda attack, standing: status.update(f"{attack}: {standing} of {len(x)} samples stand"),
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; no records are written before all attacks have ended") from None
    records.parent.mkdir(parents=True, exist_ok=True)
    jsonl.rewrite(records, to_records(found, samples))
    show(found, subject.norm, subject.eps)
    print(records)


def to_records(found: Evaluation, samples: range) -> list[jsonl.Record]:
    """A record a sample: its index in the data set, its label, the clean prediction, and the attack that turned it."""
    columns = zip(samples, found.labels, found.predictions, found.turned_by, strict=True)
    return [dict(zip(("index", "label", "prediction", "attack"), column, strict=True)) for column in columns]


def show(found: Evaluation, norm: str, eps: float) -> None:
    """Print what each attack did, and the accuracies."""
    table = Table("attack", "tried", "turned", "adversarial %", "seconds")
    for done, accuracy in zip(found.rounds, found.accuracies.values(), strict=True):
        table.add_row(
            done.attack, str(done.tried), str(len(done.turned)), f"{100 * accuracy:.2f}", f"{done.seconds:.1f}"
        )
    console = wide_console()
    console.print(table)
    console.print(
        f"{len(found.labels)} samples, {norm} eps {eps:g}: natural {100 * found.natural_accuracy:.2f} %, adversarial "
        f"{100 * found.adversarial_accuracy:.2f} %, {found.seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )

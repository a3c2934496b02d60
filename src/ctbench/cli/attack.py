"""`ctbench attack`: the accuracy of a network under attacks on test images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from ctbench.attacks import Evaluation, adversarial_accuracy
from ctbench.cli import subjects
from ctbench.cli.options import attack_strength, check_place, strength, wide_console
from ctbench.cli.subjects import Subject
from ctbench.graph import Precisions
from ctbench.report import Grid
from ctbench.results import CertificationFiles, Verdict, fairness, jsonl, locks
from ctbench.results.decimals import decimals
from ctbench.verify.job import ROUNDING, Samples


def run(args: argparse.Namespace) -> None:
    subject = subjects.subject(args)
    attacks = args.attacks.split(",")
    title = "-".join(filter(None, ["+".join(attacks), strength(args)]))
    records = args.out or subject.folder.attacked(subject.name, title)
    _check_free(records)
    check_place(records)
    with locks.alone(records.with_suffix(".lock"), records):
        _check_free(records)  # another process may have attacked in the meantime
        _attack(args, subject, attacks, records)


def _check_free(records: Path) -> None:
    if records.exists():
        raise ValueError(f"{records} exists already: choose another place with --out")


def _attack(args: argparse.Namespace, subject: Subject, attacks: list[str], records: Path) -> None:
    samples = subject.samples(args.samples)
    x, y = subject.images[samples.start : samples.stop]
    settings = {
        "network_digest": Precisions.of(subject.model, x[:1]).proof.digest(),
        "dataset": subject.dataset,
        "threat": repr(subject.threat),
        "attacks": attacks,
        **attack_strength(args),
        **subject.selection,
    }
    proved = _proved(CertificationFiles(args.certified), settings, Samples(samples, x, y)) if args.certified else []
    console = Console(stderr=True, quiet=args.quiet or not Console(stderr=True).is_terminal)
    try:
        with console.status("attack") as status:
            evaluation = adversarial_accuracy(
                subject.model.to(args.device),
                x,
                y,
                subject.threat,
                attacks=attacks,
                steps=args.attack_steps,
                restarts=args.attack_restarts,
                proved=proved,
                replay=subject.replay,
                on_batch=lambda attack, standing: status.update(f"{attack}: {standing} of {len(x)} samples stand"),
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; records are only written when all attacks have finished") from None
    jsonl.write_json(records.with_suffix(".json"), settings)
    jsonl.rewrite(records, evaluation.records(samples))
    show(evaluation, subject.threat.name, subject.threat.eps)
    if proved:
        print(f"{len(proved)} certified samples were not attacked")
    print(records)


def _proved(files: CertificationFiles, settings: dict[str, Any], samples: Samples) -> list[int]:
    """The positions of the samples that a certification of the same network and regions proves.

    Raises:
        ValueError: the certification has another network or region, or its bounds were not rounded outward.
    """
    if not files.records.is_file():
        raise FileNotFoundError(f"there is no file {files.records}: check the path")
    recorded, expected = files.read_settings(), {**settings, "rounding": ROUNDING}
    different = [name for name in ("network_digest", "threat", "rounding") if recorded.get(name) != expected[name]]
    if different:
        raise ValueError(
            f"{files.records} proves nothing about this attack ({', '.join(different)} differ): certify this network"
        )
    records = [record for record in files.open() if record.index in samples.indices]
    for record in records:
        samples.recognize(record)
    certified = {record.index for record in records if record.verdict is Verdict.CERTIFIED}
    return [place for place, index in enumerate(samples.indices) if index in certified]


def show(evaluation: Evaluation, norm: str, eps: float) -> None:
    """Print the results of each attack, and the accuracies."""
    rows = [
        (done.attack, str(done.tried), str(len(done.falsified)), f"{100 * accuracy:.2f}", f"{done.seconds:.1f}")
        for done, accuracy in zip(evaluation.rounds, evaluation.accuracies.values(), strict=True)
    ]
    console = wide_console()
    console.print(Grid(headings=("attack", "tried", "falsified", "adversarial %", "seconds"), rows=rows))
    console.print(
        f"{len(evaluation.labels)} samples, {norm} eps {decimals(eps)}: "
        f"natural {100 * evaluation.natural_accuracy:.2f} %, "
        f"adversarial {100 * evaluation.adversarial_accuracy:.2f} %, {evaluation.seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    pairs = zip(evaluation.labels, evaluation.predictions, strict=True)
    wrong = [label != said for label, said in pairs]
    falsified = [by is not None or missed for by, missed in zip(evaluation.falsified_by, wrong, strict=True)]
    print(fairness.summary(evaluation.labels, {"natural": wrong, "adversarial": falsified}))

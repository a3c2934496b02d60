"""`ctbench certify`: prove that a network is right on the whole region around test images."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.table import Table

from ctbench.analyses import fairness
from ctbench.cli import failures, subjects
from ctbench.cli.options import (
    Commands,
    add_attack_strength,
    add_data,
    add_device,
    add_stages,
    add_timeout,
    check_place,
    positive,
    seconds,
    wide_console,
)
from ctbench.cli.subjects import Subject
from ctbench.files import write_whole
from ctbench.graph import precision
from ctbench.onnx import save_onnx
from ctbench.progress import progress_bars
from ctbench.regions import Linf
from ctbench.results import OUTCOMES, Certification, CertificationFiles, SampleRecord, Verdict
from ctbench.verify import CASCADES, Records, certify, stages_by_name, timeout_of, with_attack, write_robustness

CASCADE = ("clean", *(stage.title for stage in CASCADES["complete"]))


def add_to(commands: Commands) -> None:
    command = commands.add_parser("certify", help="certify test images of a run, of weights or of an ONNX file")
    subjects.add_to(command)
    add_stages(command)
    add_attack_strength(command)
    add_timeout(command)
    command.add_argument(
        "--total", type=seconds, metavar="S", help="seconds for all samples together (default: no limit)"
    )
    command.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="processes; they share torch's threads"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="the records (default: in the run folder)")
    command.add_argument("--resume", action="store_true", help="keep the existing records, certify the other samples")
    command.add_argument(
        "--counterexamples", action="store_true", help="also write the counterexamples, in a folder next to the records"
    )
    command.add_argument("--export", type=Path, metavar="DIR", help="write open samples as VNN-LIB for other verifiers")
    failures.add_strict(command)
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_data(command)
    add_device(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    subject = subjects.subject(args)
    stages = with_attack(stages_by_name(args.stages), steps=args.attack_steps, restarts=args.attack_restarts)
    threat, timeout = subject.threat, args.timeout or timeout_of(args.stages)
    samples = subject.samples(args.samples)
    if args.export:
        check_export(args.export, threat.name)
    x, y = subject.images[samples.start : samples.stop]
    files = CertificationFiles(args.out) if args.out else subject.folder.certification(subject.name)
    before = [record for record in files.read() if record.index in samples] if args.resume else []
    try:
        with failures.without_warning(), _progress(len(x), before, quiet=args.quiet) as on_record:
            certification = certify(
                subject.model.to(args.device),
                x,
                y,
                threat,
                stages=stages,
                timeout=timeout,
                total=args.total,
                records=Records(
                    files.records,
                    resume=args.resume,
                    counterexamples=args.counterexamples,
                    first=samples.start,
                    about={"dataset": subject.dataset, "network": subject.network} | subject.selection,
                    on_record=on_record,
                ),
                replay=subject.replay,
                workers=args.workers,
            )
    except KeyboardInterrupt:
        kept = f"{len(files.read())} records are kept in {files.records}"
        raise KeyboardInterrupt(f"interrupted; {kept}, and the same command with --resume continues") from None
    show(certification, threat.name, threat.eps)
    if args.export:
        standing = [place for place, record in enumerate(certification) if record.verdict is Verdict.UNKNOWN]
        if standing:
            export(args.export, subject, samples, standing, timeout)
        else:
            print(f"no sample is open: nothing is written to {args.export}")
    print(files.records)
    failures.tell({"": certification.failures}, strict=args.strict)


@contextmanager
def _progress(samples: int, before: list[SampleRecord], *, quiet: bool) -> Iterator[Callable[[SampleRecord], None]]:
    """A progress bar with the verdicts so far, if the output is a terminal."""
    with progress_bars(quiet=quiet) as bars:
        task = bars.add_task("certify", total=samples, completed=len(before), text="")
        seen, start = Certification.of(before).counts, time.perf_counter()

        def on_record(record: SampleRecord) -> None:
            seen[record.verdict] += 1
            rate = (sum(seen.values()) - len(before)) / (time.perf_counter() - start)
            text = "  ".join(f"{verdict} {count}" for verdict, count in seen.items())
            bars.update(task, advance=1, text=f"{text}  {rate:.3g} samples/s")

        yield on_record


def show(certification: Certification, norm: str, eps: float) -> None:
    """Print the accuracies, and the verdicts and seconds of each stage, with a column for each reason of "unknown"."""
    finished = Certification.of(record for record in certification if record.finished)
    table = Table("stage", *OUTCOMES, "seconds")
    decided, seconds = finished.outcomes_by_stage, certification.seconds_by_stage
    for stage in dict.fromkeys((*CASCADE, *decided, *seconds)):
        if stage in decided or stage in seconds:
            counts = (str(decided.get(stage, {}).get(outcome, 0)) for outcome in OUTCOMES)
            table.add_row(stage, *counts, f"{seconds.get(stage, 0):.1f}")
    counts = (f"[bold]{count}" for count in finished.outcomes.values())
    table.add_row("[bold]all", *counts, f"[bold]{certification.seconds:.1f}")
    console = wide_console()
    console.print(table)
    console.print(
        f"{len(finished)} samples, {norm} eps {eps:g}: natural {100 * finished.natural_accuracy:.2f} %, adversarial "
        f"{100 * finished.adversarial_accuracy:.2f} %, certified {100 * finished.certified_accuracy:.2f} %, "
        f"{certification.seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    if len(finished):
        wrong = [record.verdict is Verdict.MISCLASSIFIED for record in finished]
        falsified = [record.verdict in (Verdict.MISCLASSIFIED, Verdict.FALSIFIED) for record in finished]
        unproved = [record.verdict is not Verdict.CERTIFIED for record in finished]
        labels = [record.label for record in finished]
        print(fairness.summary(labels, {"natural": wrong, "adversarial": falsified, "certified": unproved}))
    explained = [record for record in finished if record.reason]
    if explained:
        print(f"{len(explained)} samples stayed open, e.g. sample {explained[0].index}: {explained[0].reason}")
    if len(certification) > len(finished):
        print(
            f"{len(certification) - len(finished)} more samples were not decided in time: --resume continues with them"
        )


def check_export(folder: Path, norm: str) -> None:
    """Check in advance whether open samples can be exported to a folder.

    Raises:
        ValueError: regions of this norm cannot be exported, or the folder already holds exported samples.
        OSError: the folder cannot be created or is not writable.
    """
    if norm != Linf.name:
        raise ValueError(f"--export writes boxes, but the norm is {norm}: leave it out, or use --norm linf")
    listed = folder / "instances.csv"
    if listed.exists():
        raise ValueError(f"{folder} already holds exported properties: choose another folder for --export")
    check_place(listed)


def export(folder: Path, subject: Subject, samples: range, standing: list[int], timeout: float) -> None:
    """Export open samples for other verifiers: network.onnx, INDEX.vnnlib.gz, and instances.csv with a list of them.

    Args:
        folder: the target folder; it is created if it does not exist.
        subject: the network, the images and the radius of the linf ball.
        samples: the indices of the samples in the data set.
        standing: the positions of the open samples in `samples`.
        timeout: the seconds for each sample, in the list.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = subject.model.cpu()
    x, y = subject.images[[samples[place] for place in standing]]
    like = precision(model, x)
    with torch.no_grad():
        classes = model(subject.images[:1][0].to(like)).shape[1]
    save_onnx(model, folder / "network.onnx", tuple(x.shape[1:]), dtype=like.dtype)
    region, clip = subject.threat.region(x.double()).hull, subject.threat.clip
    # the exported box must cover the whole region. The corners of the region are rounded inward, so round them outward
    ends = (torch.nextafter(end, end + way) for end, way in ((region.lower, -1.0), (region.upper, 1.0)))
    corners = (end if clip is None else end.clamp(*clip) for end in ends)
    lines = []
    for place, lower, upper, label in zip(standing, *corners, y.tolist(), strict=True):
        name = f"{samples[place]}.vnnlib.gz"
        write_robustness(folder / name, lower, upper, label, classes)
        lines.append(f"network.onnx,{name},{timeout:g}\n")
    write_whole(folder / "instances.csv", "".join(lines).encode())

"""`ctbench certify`: prove for test images that a network is right on the whole region around them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ctbench.analyses import fairness
from ctbench.cli import failures, subjects
from ctbench.cli.options import Commands, add_data, add_device, add_stages, check_place, positive, seconds, wide_console
from ctbench.cli.subjects import Subject
from ctbench.graph import precision
from ctbench.onnx import save_onnx
from ctbench.regions import Linf
from ctbench.results import OUTCOMES, Certification, CertificationFiles, SampleRecord, Verdict
from ctbench.results.jsonl import write_whole
from ctbench.verify import CASCADES, certify, stages_by_name, write_robustness

CASCADE = ("clean", *(stage.title for stage in CASCADES["complete"]))


def add_to(commands: Commands) -> None:
    command = commands.add_parser("certify", help="certify test images: of a run, of weights, of an ONNX file")
    subjects.add_to(command)
    add_stages(command)
    command.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="S", help="seconds for each sample (default: 60)"
    )
    command.add_argument(
        "--total", type=seconds, metavar="S", help="seconds for all samples together (default: no limit)"
    )
    command.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="processes; they share torch's threads"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="the records (default: in the run folder)")
    command.add_argument("--resume", action="store_true", help="keep the records there are, certify the rest")
    command.add_argument(
        "--counterexamples", action="store_true", help="write them, too, in a folder beside the records"
    )
    command.add_argument("--export", type=Path, metavar="DIR", help="write open samples as VNN-LIB for other verifiers")
    failures.add_strict(command)
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_data(command)
    add_device(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    subject = subjects.subject(args)
    threat, stages = subject.threat, stages_by_name(args.stages)
    samples = subject.samples(args.samples)
    if args.export:
        check_export(args.export, threat.name)
    x, y = subject.images[samples.start : samples.stop]
    files = CertificationFiles(args.out) if args.out else subject.folder.certification(subject.name)
    before = [record for record in files.read() if record.index in samples] if args.resume else []
    try:
        with failures.without_warning(), _progress(len(x), before, quiet=args.quiet) as watch:
            found = certify(
                subject.model.to(args.device),
                x,
                y,
                threat=threat,
                stages=stages,
                timeout=args.timeout,
                total=args.total,
                replay=subject.replay,
                workers=args.workers,
                first=samples.start,
                files=files,
                counterexamples=args.counterexamples,
                about={"dataset": subject.dataset, "network": subject.network},
                resume=args.resume,
                watch=watch,
            )
    except KeyboardInterrupt:
        kept = f"{len(files.read())} records are kept in {files.records}"
        raise KeyboardInterrupt(f"interrupted; {kept}, and the same command with --resume goes on") from None
    show(found, threat.name, threat.eps)
    if args.export:
        standing = [place for place, record in enumerate(found) if record.verdict is Verdict.UNKNOWN]
        if standing:
            export(args.export, subject, samples, standing, args.timeout)
        else:
            print(f"no sample is open: nothing is written to {args.export}")
    print(files.records)
    failures.tell({"": found.failures}, strict=args.strict)


@contextmanager
def _progress(samples: int, before: list[SampleRecord], *, quiet: bool) -> Iterator[Callable[[SampleRecord], None]]:
    """A bar with the verdicts so far, where a person is watching."""
    console = Console(stderr=True)
    columns = (
        TextColumn("[bold]certify"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("", total=samples, completed=len(before), text="")
        seen, start = Certification.of(before).counts, time.perf_counter()

        def watch(record: SampleRecord) -> None:
            seen[record.verdict] += 1
            rate = (sum(seen.values()) - len(before)) / (time.perf_counter() - start)
            text = "  ".join(f"{verdict} {count}" for verdict, count in seen.items())
            progress.update(task, advance=1, text=f"{text}  {rate:.3g} samples/s")

        yield watch


def show(found: Certification, norm: str, eps: float) -> None:
    """Print the accuracies, and what each stage decided and took; why samples are unknown in a column each."""
    finished = Certification.of(record for record in found if record.finished)
    table = Table("stage", *OUTCOMES, "seconds")
    decided, seconds = finished.outcomes_by_stage, found.seconds_by_stage
    for stage in dict.fromkeys((*CASCADE, *decided, *seconds)):
        if stage in decided or stage in seconds:
            counts = (str(decided.get(stage, {}).get(outcome, 0)) for outcome in OUTCOMES)
            table.add_row(stage, *counts, f"{seconds.get(stage, 0):.1f}")
    counts = (f"[bold]{count}" for count in finished.outcomes.values())
    table.add_row("[bold]all", *counts, f"[bold]{found.seconds:.1f}")
    console = wide_console()
    console.print(table)
    console.print(
        f"{len(finished)} samples, {norm} eps {eps:g}: natural {100 * finished.natural_accuracy:.2f} %, adversarial "
        f"{100 * finished.adversarial_accuracy:.2f} %, certified {100 * finished.certified_accuracy:.2f} %, "
        f"{found.seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    if len(finished):
        wrong = [record.verdict is Verdict.MISCLASSIFIED for record in finished]
        turned = [record.verdict in (Verdict.MISCLASSIFIED, Verdict.FALSIFIED) for record in finished]
        unproved = [record.verdict is not Verdict.CERTIFIED for record in finished]
        labels = [record.label for record in finished]
        print(fairness.summary(labels, {"natural": wrong, "adversarial": turned, "certified": unproved}))
    explained = [record for record in finished if record.reason]
    if explained:
        print(f"{len(explained)} samples stayed open, as sample {explained[0].index}: {explained[0].reason}")
    if len(found) > len(finished):
        print(f"{len(found) - len(finished)} samples more were not decided in time: --resume goes on with them")


def check_export(folder: Path, norm: str) -> None:
    """Look whether open samples can be written to a folder, before time is spent on finding them.

    Raises:
        ValueError: regions of this norm cannot be written, or the folder holds some already.
        OSError: the folder cannot be made or written to.
    """
    if norm != Linf.name:
        raise ValueError(f"--export writes boxes, and the norm is {norm}: leave it out, or take --norm linf")
    listed = folder / "instances.csv"
    if listed.exists():
        raise ValueError(f"{folder} holds exported properties already: choose another folder for --export")
    check_place(listed)


def export(folder: Path, subject: Subject, samples: range, standing: list[int], timeout: float) -> None:
    """Write what is to be proved for other verifiers: network.onnx, INDEX.vnnlib.gz, and instances.csv to list them.

    Args:
        folder: where to; made if there is none.
        subject: the network, the images and the radius of the linf ball.
        samples: the samples that were certified.
        standing: the places of the open ones among them.
        timeout: seconds for each, in the list.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = subject.model.cpu()
    x, y = subject.images[[samples[place] for place in standing]]
    like = precision(model, x)
    with torch.no_grad():
        classes = model(subject.images[:1][0].to(like)).shape[1]
    save_onnx(model, folder / "network.onnx", tuple(x.shape[1:]), dtype=like.dtype)
    region, clip = subject.threat.region(x.double()).hull, subject.threat.clip
    # what others prove must cover the whole region, whose ends are rounded inward
    ends = (torch.nextafter(end, end + way) for end, way in ((region.lower, -1.0), (region.upper, 1.0)))
    corners = (end if clip is None else end.clamp(*clip) for end in ends)
    lines = []
    for place, lower, upper, label in zip(standing, *corners, y.tolist(), strict=True):
        name = f"{samples[place]}.vnnlib.gz"
        write_robustness(folder / name, lower, upper, label, classes)
        lines.append(f"network.onnx,{name},{timeout:g}\n")
    write_whole(folder / "instances.csv", "".join(lines).encode())

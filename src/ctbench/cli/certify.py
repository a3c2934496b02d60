"""`ctbench certify`: prove that a network is right on the whole region around test images."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from ctbench.cli import failures, subjects
from ctbench.cli.certified import show, show_radii
from ctbench.cli.engines import engine
from ctbench.cli.options import check_place, strength
from ctbench.cli.subjects import Subject
from ctbench.files import write_whole
from ctbench.graph import precision
from ctbench.onnx import save_onnx
from ctbench.progress import progress_bars
from ctbench.regions import Linf
from ctbench.results import Certification, CertificationFiles, SampleRecord, Verdict, jsonl
from ctbench.verify import Records, certify_radii, stages_by_name, timeout_of, with_attack, write_robustness


def run(args: argparse.Namespace) -> None:
    place = engine(args.on, args.device, workers=args.workers)  # before data are read
    if args.out:
        check_place(args.out)
    eps = args.eps or [None]
    subject = subjects.subject(argparse.Namespace(**{**vars(args), "eps": eps[0]}))
    stages = with_attack(stages_by_name(args.stages), steps=args.attack_steps, restarts=args.attack_restarts)
    at_radii = [subject if radius is None else subject.at(radius) for radius in eps]
    if len(eps) > 1 and (args.out or args.export):
        raise ValueError("--out and --export are for one radius: leave them out, or give one --eps")
    timeout, samples = args.timeout or timeout_of(args.stages), subject.samples(args.samples)
    if args.export:
        check_export(args.export, subject.threat.name)
    x, y = subject.images[samples.start : samples.stop]
    files = {each.threat.eps: CertificationFiles(args.out) if args.out else each.certification for each in at_radii}
    try:
        with failures.without_warning(), _progress(len(x), quiet=args.quiet) as (on_start, on_record):
            certifications = certify_radii(
                subject.model.to(place.home),
                x,
                y,
                subject.threat,
                eps=list(files),
                stages=stages,
                timeout=timeout,
                total=args.total,
                records={
                    radius: Records(
                        each.records,
                        resume=args.resume,
                        counterexamples=args.counterexamples,
                        first=samples.start,
                        about={"dataset": subject.dataset, "network": subject.network}
                        | subject.selection
                        | ({"attack": strength(args)} if strength(args) else {}),
                        on_start=partial(on_start, f"certify {radius:g}" if len(files) > 1 else "certify"),
                        on_record=on_record,
                        in_memory=False,
                    )
                    for radius, each in files.items()
                },
                replay=subject.replay,
                engine=place,
            )
    except KeyboardInterrupt:
        numbers = {each.records: jsonl.count(each.records) for each in files.values() if each.records.is_file()}
        kept = ", ".join(f"{number} records are kept in {path}" for path, number in numbers.items())
        again = "the same command with --resume continues"
        raise KeyboardInterrupt(f"interrupted; {kept or 'there are no records yet'}, and {again}") from None
    if len(files) == 1:
        show(certifications[subject.threat.eps], subject.threat.name, subject.threat.eps)
    else:
        show_radii(certifications, subject.threat.name)
    if args.export:
        standing = [
            number
            for number, record in enumerate(certifications[subject.threat.eps])
            if record.verdict is Verdict.UNKNOWN
        ]
        if standing:
            export(args.export, subject, samples, standing, timeout)
        else:
            print(f"no sample is open: nothing is written to {args.export}")
    for each in files.values():
        print(each.records)
    failed = {f"eps {radius:g}" if len(files) > 1 else "": one.failures for radius, one in certifications.items()}
    failures.tell(failed, strict=args.strict, what="radius")


@contextmanager
def _progress(
    samples: int, *, quiet: bool
) -> Iterator[tuple[Callable[[str, Certification], None], Callable[[SampleRecord], None]]]:
    """A progress bar with the verdicts so far, on a terminal: what to call at the start, and after each record."""
    with progress_bars(quiet=quiet) as bars:
        task = bars.add_task("certify", total=samples, text="")
        seen, before, start = dict.fromkeys(Verdict, 0), 0, time.perf_counter()

        def on_start(title: str, kept: Certification) -> None:
            nonlocal before, start
            before, start = len(kept), time.perf_counter()
            seen.update(kept.counts)
            bars.reset(task, total=samples, completed=before, description=title)

        def on_record(record: SampleRecord) -> None:
            seen[record.verdict] += 1
            rate = (sum(seen.values()) - before) / (time.perf_counter() - start)
            text = "  ".join(f"{verdict} {count}" for verdict, count in seen.items())
            bars.update(task, advance=1, text=f"{text}  {rate:.3g} samples/s")

        yield on_start, on_record


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

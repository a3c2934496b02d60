"""`ctbench radius`: the largest certified and the smallest falsified radius of each test image."""

from __future__ import annotations

import argparse
import statistics

from ctbench.cli import subjects
from ctbench.cli.engines import engine
from ctbench.cli.options import check_place, wide_console
from ctbench.progress import progress_bars
from ctbench.report import Grid
from ctbench.results import Radii, RadiusFiles, SampleRecord
from ctbench.results.decimals import decimals
from ctbench.verify import Records, radii, stages_by_name, timeout_of
from ctbench.verify.radius_search import twice

ROWS = 8  # radii of the printed curve


def run(args: argparse.Namespace) -> None:
    place = engine(args.on, args.device)  # before data are read
    if args.out:
        check_place(args.out)
    subject = subjects.subject(args)
    threat = twice(subject.threat) if args.eps is None else subject.threat
    samples = subject.samples(args.samples)
    x, y = subject.images[samples.start : samples.stop]
    files = RadiusFiles(args.out) if args.out else subject.folder.radii(subject.at(threat.eps).name)
    with progress_bars(quiet=args.quiet) as bars:
        task = bars.add_task("trials", total=None, text="")

        def on_record(record: SampleRecord) -> None:
            bars.update(task, advance=1, text=f"sample {record.index} {record.verdict}")

        try:
            radii(
                subject.model.to(place.home),
                x,
                y,
                threat,
                tolerance=args.tolerance,
                stages=stages_by_name(args.stages),
                timeout=args.timeout or timeout_of(args.stages),
                total=args.total,
                records=Records(
                    files.records,
                    resume=args.resume,
                    first=samples.start,
                    about={"dataset": subject.dataset, "network": subject.network} | subject.selection,
                    on_record=on_record,
                ),
                replay=subject.replay,
                engine=place,
            )
        except KeyboardInterrupt:
            kept = f"the trials are kept in {files.records}"
            raise KeyboardInterrupt(f"interrupted; {kept}, and the same command with --resume continues") from None
    show(files.read(), threat.name)
    print(files.records)


def show(found: Radii, norm: str) -> None:
    """Print the accuracies at some radii, and the median radii."""
    radii = [found.largest * place / ROWS for place in range(ROWS + 1)]
    rows = [
        [decimals(eps), f"{100 * found.adversarial_accuracy(eps):.2f}", f"{100 * found.certified_accuracy(eps):.2f}"]
        for eps in radii
    ]
    title = f"{len(found)} samples, {norm}, steps of {found.tolerance:.4g}"
    wide_console().print(Grid(headings=("eps", "adversarial %", "certified %"), rows=rows, title=title))
    right = [sample for sample in found if sample.right]
    if right:
        certified = statistics.median(sample.certified or 0.0 for sample in right)
        falsified = statistics.median(sample.falsified or float("inf") for sample in right)
        above = f"{falsified:.4g}" if falsified <= found.largest else f"above {found.largest:.4g}"
        print(
            f"median of the {len(right)} samples that are right: certified up to {certified:.4g}, "
            f"falsified from {above}"
        )

"""`ctbench merge`: join the records of parts of a data set, e.g. from several machines, in one file."""

from __future__ import annotations

import argparse
import sys

from ctbench.cli import failures
from ctbench.cli.certified import show
from ctbench.results import CertificationFiles, jsonl


def run(args: argparse.Namespace) -> None:
    files = CertificationFiles(args.out)
    certification = files.merge([CertificationFiles(part) for part in args.parts])
    for part in args.parts:
        if line := jsonl.torn(part):
            print(
                f"{part}, line {line}: the record was truncated and is ignored: "
                f"certify --resume --out {args.out} computes it again",
                file=sys.stderr,
            )
    indices = [record.index for record in certification]
    if indices and (missing := max(indices) + 1 - min(indices) - len(indices)):
        print(f"{missing} of the samples {min(indices)} to {max(indices)} are in no part", file=sys.stderr)
    settings = files.read_settings()
    show(certification, settings["norm"], settings["eps"])
    print(files.records)
    failures.tell({"": certification.failures}, strict=False)

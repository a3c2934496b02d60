"""`ctbench merge`: the records of parts of a data set, as several machines certify them, in one file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ctbench.cli import failures
from ctbench.cli.certify import show
from ctbench.cli.options import Commands
from ctbench.results import CertificationFiles, jsonl


def add_to(commands: Commands) -> None:
    command = commands.add_parser("merge", help="put the records of parts of a data set into one file")
    command.add_argument("out", type=Path, metavar="OUT", help="a new .jsonl file")
    command.add_argument("parts", type=Path, nargs="+", metavar="PART", help="records of certify --samples A:B")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    files = CertificationFiles(args.out)
    found = files.merge([CertificationFiles(part) for part in args.parts])
    for part in args.parts:
        if line := jsonl.torn(part):
            print(
                f"{part}, line {line}: the record was cut short and is left out: "
                f"certify --resume --out {args.out} makes it again",
                file=sys.stderr,
            )
    indices = [record.index for record in found]
    if indices and (missing := max(indices) + 1 - min(indices) - len(indices)):
        print(f"of samples {min(indices)} to {max(indices)} {missing} are in no part", file=sys.stderr)
    settings = files.read_settings()
    show(found, settings["norm"], settings["eps"])
    print(files.records)
    failures.tell({"": found.failures}, strict=False)

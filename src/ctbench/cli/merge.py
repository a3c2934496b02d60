"""`ctbench merge`: the records of parts of a data set, as several machines certify them, in one file."""

from __future__ import annotations

import argparse
from pathlib import Path

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
    settings = jsonl.read_json(files.settings)
    show(found, settings["norm"], settings["eps"])
    print(files.records)

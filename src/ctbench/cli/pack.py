"""`ctbench pack`: a run with its records in one file."""

from __future__ import annotations

import argparse

from ctbench.cli.options import check_place
from ctbench.cli.own import called
from ctbench.datasets import Data
from ctbench.packs import pack


def run(args: argparse.Namespace) -> None:
    check_place(args.out)
    for message in pack(args.run, args.out, data=called(args.data_from, Data) if args.data_from else args.data):
        print(message)
    print(args.out)

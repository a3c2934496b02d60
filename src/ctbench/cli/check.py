"""`ctbench check`: a line for each claim of a pack or a run; the exit status is 1 if one does not hold."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from ctbench import zoo
from ctbench.cli.own import called
from ctbench.datasets import Data
from ctbench.packs import check


def run(args: argparse.Namespace) -> int:
    if not zoo.is_entry(args.pack) and not Path(args.pack).exists():
        raise FileNotFoundError(f"there is no file or folder {args.pack}: check the path")
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    data = called(args.data_from, Data) if args.data_from else args.data
    failed = total = 0
    for claim in check(args.pack, samples=args.samples, seed=seed, timeout=args.timeout, data=data):
        print(claim, flush=True)
        total, failed = total + 1, failed + (not claim.holds)
    print(f"{total - failed} of {total} claims hold; --seed {seed} makes the same random choice")
    return 1 if failed else 0

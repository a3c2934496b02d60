"""`ctbench COMMAND ...`: finds the command, and turns errors into one line and an exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from ctbench.cli import attack, certify, compare, demo, listing, merge, reproduce, sweep, train, vnncomp
from ctbench.memory import keep_freed_memory

COMMANDS = (train, certify, attack, vnncomp, merge, compare, sweep, reproduce, listing, demo)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    made = _Parser(prog="ctbench", description="Train networks whose robustness can be proved, and prove it.")
    made.add_argument("--version", action="version", version=f"ctbench {version('ctbench')}")
    made.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, or 1 for an error, 130 for an interruption."""
    keep_freed_memory()
    args = parser().parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, ArithmeticError, OSError) as error:
        if args.traceback:
            raise
        print(f"ctbench: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interruption:
        told = str(interruption) or "interrupted; what was finished is kept, --resume goes on from there"
        print(f"ctbench: {told}", file=sys.stderr)
        return 130
    return 0

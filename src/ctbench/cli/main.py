"""`ctbench COMMAND ...`: finds the command, and turns errors into one line and an exit status."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from ctbench.cli import attack, certify, compare, demo, listing, merge, reproduce, sweep, train, vnncomp
from ctbench.cli.options import imported
from ctbench.memory import keep_freed_memory
from ctbench.results.jsonl import UNFINISHED

COMMANDS = (train, certify, attack, vnncomp, merge, compare, sweep, reproduce, listing, demo)

NO_FOLDER = "a file stands where a folder is wanted: choose another place"
NO_RIGHT = "it may not be read or written: change the permissions, or choose another place"
REFUSALS = {
    errno.ENOENT: "there is no such file or folder: check the path",
    errno.EISDIR: "a folder stands where a file is wanted: name a file, or choose another place",
    errno.EEXIST: NO_FOLDER,  # of what makes a folder that may be there already
    errno.ENOTDIR: NO_FOLDER,
    errno.EACCES: NO_RIGHT,
    errno.EPERM: NO_RIGHT,
    errno.EROFS: NO_RIGHT,
}


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    made = _Parser(prog="ctbench", description="Train networks whose robustness can be proved, and prove it.")
    made.add_argument("--version", action="version", version=f"ctbench {version('ctbench')}")
    made.add_argument("--traceback", action="store_true", help="show where an error comes from")
    made.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="a Python module with classes of your own (methods, data sets, networks, threat models, attacks, stages) "
        "or layers, to import first",
    )
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, or 2 for an error, 130 for an interruption."""
    keep_freed_memory()
    args = parser().parse_args(arguments)
    try:
        for module in args.modules:
            _import(module)
        args.run(args)
    except (ValueError, ArithmeticError, OSError) as error:
        if args.traceback:
            raise
        print(f"ctbench: error: {' '.join(explained(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        told = str(interruption) or "interrupted; what was finished is kept, --resume goes on from there"
        print(f"ctbench: {told}", file=sys.stderr)
        return 130
    return 0


def _import(module: str) -> None:
    try:
        imported(module)
    except ImportError as error:
        raise ValueError(f"--import {module}: {error}; name a module that is installed or in {Path.cwd()}") from None


def explained(error: Exception) -> str:
    """What an error says; where the system refuses a file or folder, which one, why, and what to do."""
    if not isinstance(error, OSError) or error.filename is None or error.errno not in REFUSALS:
        return str(error)
    path = str(error.filename2 or error.filename)  # of two, the second is where the first could not go
    if path.endswith(UNFINISHED):
        path += f" (to become {path.removesuffix(UNFINISHED)}; remove it if it was left over)"
    return f"{path}: {REFUSALS[error.errno]}"

"""`ctbench COMMAND ...`: runs a command, and prints an error in one line with an exit status."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from ctbench.cli import (
    agree,
    analyse,
    attack,
    certify,
    compare,
    corruptions,
    demo,
    listing,
    merge,
    reproduce,
    sweep,
    train,
    vnncomp,
)
from ctbench.cli.options import imported
from ctbench.files import UNFINISHED
from ctbench.memory import keep_freed_memory

COMMANDS = (
    train,
    certify,
    attack,
    analyse,
    vnncomp,
    merge,
    compare,
    agree,
    corruptions,
    sweep,
    reproduce,
    listing,
    demo,
)

NO_FOLDER = "it is a file, but a folder is expected: choose another place"
NO_RIGHT = "no permission to read or write it: change the permissions, or choose another place"
REFUSALS = {
    errno.ENOENT: "there is no such file or folder: check the path",
    errno.EISDIR: "it is a folder, but a file is expected: name a file, or choose another place",
    errno.EEXIST: NO_FOLDER,  # raised by mkdir(exist_ok=True)
    errno.ENOTDIR: NO_FOLDER,
    errno.EACCES: NO_RIGHT,
    errno.EPERM: NO_RIGHT,
    errno.EROFS: NO_RIGHT,
}


class _Parser(argparse.ArgumentParser):
    """Reports an error in the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    root = _Parser(prog="ctbench", description="Train networks whose robustness can be proved, and prove it.")
    root.add_argument("--version", action="version", version=f"ctbench {version('ctbench')}")
    root.add_argument("--traceback", action="store_true", help="show where an error comes from")
    root.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="a Python module with classes of your own (methods, data sets, networks, threat models, attacks, stages, "
        "analyses) or layers, to import first",
    )
    commands = root.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 after an error, 130 after an interruption."""
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
        message = str(interruption) or "interrupted; finished results are kept, --resume continues from there"
        print(f"ctbench: {message}", file=sys.stderr)
        return 130
    return 0


def _import(module: str) -> None:
    try:
        imported(module)
    except ImportError as error:
        raise ValueError(f"--import {module}: {error}; name a module that is installed or in {Path.cwd()}") from None


def explained(error: Exception) -> str:
    """The message of an error. For a file or folder that the system rejects: which one, why, and what to do."""
    if not isinstance(error, OSError) or error.filename is None or error.errno not in REFUSALS:
        return str(error)
    path = str(error.filename2 or error.filename)  # with two names, the second is the target of a rename
    if path.endswith(UNFINISHED):
        path += f" (to become {path.removesuffix(UNFINISHED)}; remove it if it was left over)"
    return f"{path}: {REFUSALS[error.errno]}"

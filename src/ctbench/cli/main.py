"""`ctbench COMMAND ...`: runs a command, and prints an error in one line with an exit status."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from ctbench.cli.arguments import (
    agree,
    analyse,
    attack,
    certify,
    check,
    compare,
    convert,
    corruptions,
    curves,
    demo,
    listing,
    merge,
    pack,
    radius,
    report,
    reproduce,
    show,
    sweep,
    train,
    tune,
    vnncomp,
)
from ctbench.cli.options import imported
from ctbench.files import UNFINISHED
from ctbench.memory import keep_freed_memory

COMMANDS = {  # the arguments of each command; what it does is in the module of this name in ctbench.cli
    "train": train,
    "show": show,
    "certify": certify,
    "radius": radius,
    "attack": attack,
    "analyse": analyse,
    "vnncomp": vnncomp,
    "merge": merge,
    "compare": compare,
    "agree": agree,
    "curves": curves,
    "report": report,
    "pack": pack,
    "check": check,
    "convert": convert,
    "corruptions": corruptions,
    "sweep": sweep,
    "tune": tune,
    "reproduce": reproduce,
    "listing": listing,
    "demo": demo,
}

NO_FOLDER = "it is a file, but a folder is expected: choose another place"
NO_RIGHT = "no permission to read or write it: change the permissions, or choose another place"
NO_SPACE = "the disk is full: make room, then run the same command again (with --resume, if it has this option)"
REFUSALS = {
    errno.ENOENT: "there is no such file or folder: check the path",
    errno.EISDIR: "it is a folder, but a file is expected: name a file, or choose another place",
    errno.EEXIST: NO_FOLDER,  # raised by mkdir(exist_ok=True)
    errno.ENOTDIR: NO_FOLDER,
    errno.EACCES: NO_RIGHT,
    errno.EPERM: NO_RIGHT,
    errno.EROFS: NO_RIGHT,
    errno.ENOSPC: NO_SPACE,
    errno.EDQUOT: NO_SPACE,
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
        "analyses) or layers, to import first: its name, or the path of its file; also after the command",
    )
    commands = root.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS.values():
        command.add_to(commands)
    for module, subparser in zip(COMMANDS, commands.choices.values(), strict=True):
        subparser.set_defaults(module=module, command=subparser)  # whose help explains an unknown argument
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 if a check failed, 2 after an error, 130 after an interruption."""
    keep_freed_memory()
    modules, rest = _imports(sys.argv[1:] if arguments is None else arguments)
    args, unknown = parser().parse_known_args(rest)
    if unknown:
        args.command.error(f"unrecognized arguments: {' '.join(unknown)}")
    args.modules = modules
    try:
        for module in modules:
            _import(module, traceback=args.traceback)
        status = import_module(f"ctbench.cli.{args.module}").run(args)  # now, because most commands need torch
    except (ValueError, ArithmeticError, OSError) as error:
        if args.traceback:
            raise
        print(f"ctbench: error: {' '.join(explained(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        onward = "--resume continues from there" if "resume" in args else "the same command continues from there"
        message = str(interruption) or f"interrupted; finished results are kept, {onward}"
        print(f"ctbench: {message}", file=sys.stderr)
        return 130
    return status or 0


def _imports(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules of all options --import, wherever they stand, and the other arguments."""
    option = _Parser(prog="ctbench", add_help=False, allow_abbrev=False)
    option.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE")
    found, rest = option.parse_known_args(arguments)
    return found.modules, rest


def _import(module: str, *, traceback: bool) -> None:
    try:
        imported(module)
    except Exception as error:  # the module of the user may raise any error
        if traceback and not isinstance(error, ImportError):
            raise
        reason = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"--import {module}: {reason}; name a module that is installed or in {Path.cwd()}, or the path of its file"
        ) from None


def explained(error: Exception) -> str:
    """The message of an error. For a file or folder that the system rejects: which one, why, and what to do."""
    if not isinstance(error, OSError) or error.filename is None or error.errno not in REFUSALS:
        return str(error)
    path = str(error.filename2 or error.filename)  # with two names, the second is the target of a rename
    if path.endswith(UNFINISHED):
        path += f" (to become {path.removesuffix(UNFINISHED)}; remove it if it was left over)"
    return f"{path}: {REFUSALS[error.errno]}"

"""Options and types that several commands share."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

import torch
from rich.console import Console

from ctbench import time_budget
from ctbench.members import required_fields

T = TypeVar("T")
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="the folder of the data sets (default: $CTBENCH_DATA, else the user's cache)",
    )


def add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", type=device, default="cpu", help="the device: cpu (the default) or cuda")


def add_stages(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--stages",
        metavar="NAMES",
        default="complete",
        help="fast: bounds and an attack; complete (the default): then branch and bound; ctbench: the evaluation of "
        "CTBench, with a stronger attack; or names of stages and domains, e.g. interval,milp (ctbench list stages)",
    )


def add_timeout(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--timeout",
        type=seconds,
        metavar="S",
        help="seconds for each sample (default: 60; with --stages ctbench 1000)",
    )


def add_attack_strength(command: argparse.ArgumentParser) -> None:
    command.add_argument("--attack-steps", type=positive, metavar="N", help="steps of each attack instead of its own")
    command.add_argument(
        "--attack-restarts", type=positive, metavar="N", help="restarts of each attack instead of its own"
    )


def wide_console(*, stderr: bool = False) -> Console:
    """Standard output or error; if it is not a terminal, tables are not limited to the width of a terminal."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=260)


def device(text: str) -> torch.device:
    """An available device."""
    try:
        target = torch.device(text)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise argparse.ArgumentTypeError(f"there is no device {text!r} to compute on ({reason})") from None
    return target


def check_place(path: Path) -> None:
    """Raise OSError if a file cannot be written, before hours of work: its folder is a file, or not writable."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def imported(module: str) -> ModuleType:
    """A module, from the working folder or installed."""
    sys.path.insert(0, str(Path.cwd()))  # like python -m
    return import_module(module)


def by_name(option: str, name: str, types: Mapping[str, type[T]], **fields: Any) -> T:
    """The value of a class that an option names, with its defaults.

    Raises:
        ValueError: there is no such class, or it has other fields without a default.
    """
    if name not in types:
        raise ValueError(f"{option} is {name!r}: it must be one of {', '.join(types)} (--import MODULE adds your own)")
    missing = [field for field in required_fields(types[name]) if field not in fields]
    if missing:
        raise ValueError(f"{option} is {name!r}, which has no default for {', '.join(missing)}: add one, or use Python")
    return types[name](**fields)


def radius(text: str) -> float:
    """A number, or a fraction such as 8/255."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a radius, e.g. 0.1 or 8/255") from None


def seconds(text: str) -> float:
    """A positive number of seconds."""
    try:
        return time_budget.seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def chosen(text: str) -> range:
    """The first N samples, or samples A to B - 1, e.g. 100:200."""
    start, colon, stop = text.partition(":")
    if not colon:
        return range(positive(text))
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a range A:B with A < B, e.g. 100:200")
    return range(int(start), int(stop))

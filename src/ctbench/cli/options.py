"""Options and types that several commands share."""

from __future__ import annotations

import argparse
import errno
import math
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from rich.console import Console

from ctbench import durations

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


def add_engine(command: argparse.ArgumentParser) -> None:
    """Add the options that say where the work is done; `engines.engine` reads them."""
    command.add_argument(
        "--on",
        metavar="PLACE",
        help="where to work: local (all cores, or with --device cuda all accelerators), local:N (N processes), ray "
        "(the Ray cluster of this machine, or a new one) or ray://HOST:PORT; default: in this process",
    )
    command.add_argument("--device", default="cpu", help="the device of networks: cpu (the default) or cuda")


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


def attack_strength(args: argparse.Namespace) -> dict[str, int]:
    """The steps and restarts that the options give to attacks, if any."""
    strength = {"steps": args.attack_steps, "restarts": args.attack_restarts}
    return {name: value for name, value in strength.items() if value is not None}


def strength(args: argparse.Namespace) -> str:
    """The same as text for the names of files, e.g. "20-steps-3-restarts"; "" if the options give none."""
    return "-".join(f"{value}-{name}" for name, value in attack_strength(args).items())


def add_strict(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--strict", action="store_true", help="exit with status 2 if a stage failed, after all results are written"
    )


def wide_console(*, stderr: bool = False) -> Console:
    """Standard output or error; if it is not a terminal, tables are not limited to the width of a terminal."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=260)


def device(text: str) -> str:
    """An available device."""
    if text == "cpu":  # which is there without a look at torch, whose import takes seconds
        return text
    from ctbench import devices

    try:
        devices.available(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def check_place(path: Path) -> None:
    """Raise OSError if a file cannot be written, before hours of work: it is a folder, or as for `check_out_folder`."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    check_out_folder(path.parent)


def check_out_folder(folder: Path) -> None:
    """Raise OSError if a folder cannot be made or takes no files: a part of its path is a file, or not writable."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:  # /proc looks writable, and has no place for files
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OSError(error.errno if full else errno.EACCES, os.strerror(errno.EACCES), str(there)) from None


def check_figure(option: str, path: Path) -> None:
    """Check in advance that a picture can be written.

    Raises:
        ValueError: its name is not that of a PNG or SVG file.
        OSError: as for `check_place`.
    """
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{option} is {path}: give a file that ends in .png or .svg")
    check_place(path)


def imported(module: str) -> ModuleType:
    """A module by its name, from the working folder or installed, or by the path of its file.

    Raises:
        ImportError: there is no such module or file, or the name of the file is that of another module.
    """
    path = Path(module)
    if path.suffix != ".py":
        sys.path.insert(0, str(Path.cwd()))  # like python -m
        return import_module(module)
    if not path.is_file():
        raise ImportError(f"there is no file {path}")
    sys.path.insert(0, str(path.resolve().parent))  # workers import it by its name
    own = import_module(path.stem)
    if Path(own.__file__ or "").resolve() != path.resolve():
        raise ImportError(f"another module is called {path.stem!r} ({own.__file__}): rename {path}")
    return own


def add_own(command: argparse.ArgumentParser) -> None:
    """Add the options that give a module and data of the user's own."""
    add_model(command)
    add_data_from(command)


def add_data_from(command: argparse.ArgumentParser) -> None:
    """Add the option that gives data of the user's own."""
    command.add_argument(
        "--data-from",
        metavar="MODULE:FUNCTION",
        help="data of your own: a function that returns ctbench.datasets.Data (see Data.of)",
    )


def add_model(command: argparse.ArgumentParser) -> None:
    """Add the option that gives a module of the user's own."""
    command.add_argument(
        "--model",
        metavar="MODULE:FUNCTION",
        help="a network of your own: a Python function that takes no arguments and returns a torch module; MODULE may "
        "be a path, e.g. nets/mine.py:build",
    )


def add_changes(command: argparse.ArgumentParser) -> None:
    """Add a recipe, and the options that change its fields."""
    command.add_argument("recipe", metavar="RECIPE", help="a recipe's name (ctbench list recipes) or a recipe.json")
    add_set(command)
    for name, (path, about) in SHORT.items():
        command.add_argument(f"--{name}", metavar="N" if name != "eps" else "EPS", help=f"short for {path}=: {about}")


def add_set(command: argparse.ArgumentParser) -> None:
    """Add the option that changes a field of a recipe."""
    command.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change a field of the recipe (ctbench show RECIPE), e.g. optimizer.lr=0.001, threat.eps=2/255, "
        "ramp.end=50%% or method=ibp; may be repeated",
    )


SHORT = {
    "epochs": ("epochs", "the length of the run; ramps and milestones are stretched with it"),
    "eps": ("threat.eps", "the radius, e.g. 2/255"),
    "seed": ("seed", "the source of all randomness"),
}


def changes(args: argparse.Namespace) -> list[str]:
    """The changes of a recipe on the command line, the short forms first.

    Raises:
        ValueError: a field is changed twice.
    """
    short = {name: value for name in SHORT if (value := getattr(args, name)) is not None}
    check_changes(args.changes, {SHORT[name][0]: f"--{name} {value}" for name, value in short.items()})
    return [*(f"{SHORT[name][0]}={value}" for name, value in short.items()), *args.changes]


def check_changes(changes: Iterable[str], others: Mapping[str, str] | None = None) -> None:
    """Raise ValueError if a field is changed twice, by --set PATH=VALUE or by other options (by path)."""
    options = dict(others or {})
    for change in changes:
        path = change.partition("=")[0].strip()
        if path in options:
            raise ValueError(f"{path} is given twice, by {options[path]} and by --set {change}: give it once")
        options[path] = f"--set {change}"


def radius(text: str) -> float:
    """A number, or a fraction such as 8/255."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a radius, e.g. 0.1 or 8/255") from None


def positive_radius(text: str) -> float:
    """A radius above 0."""
    value = radius(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a radius above 0, e.g. 0.1 or 8/255")
    return value


def radii(text: str) -> list[float]:
    """Radii with commas between them, each once, ascending."""
    return sorted({radius(part) for part in text.split(",")})


def seconds(text: str) -> float:
    """A positive number of seconds."""
    try:
        return durations.seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def names(text: str) -> list[str]:
    """Names with commas between them."""
    parts = text.split(",")
    if not all(parts):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name: give names with commas between them")
    return parts


def percents(text: str) -> tuple[float, float]:
    """Two percents with a comma between them."""
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not two percents, e.g. 80,50") from None
    return x, y


def whole(text: str) -> int:
    """A whole number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def chosen(text: str) -> range:
    """The first N samples, or samples A to B - 1, e.g. 100:200."""
    start, colon, stop = text.partition(":")
    if not colon:
        return range(positive(text))
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a range A:B with A < B, e.g. 100:200")
    return range(int(start), int(stop))

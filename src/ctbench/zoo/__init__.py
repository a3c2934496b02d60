"""Trained networks that come with the package, so that everything can be tried without training.

    model = ctbench.load_network("zoo:mnist_small_sabr")
    run = ctbench.load_run("zoo:mnist_small_sabr")
    ctbench certify zoo:mnist_small_sabr --samples 100        # records in runs/zoo/mnist_small_sabr

Each is a run folder, made by the recipe of its name. `README.md` in this folder says how, and `SHA256SUMS` holds the
digests of their weights. What writes records works on a copy in runs/zoo.
"""

from __future__ import annotations

import hashlib
import shutil
from os import PathLike, fspath
from pathlib import Path

PREFIX = "zoo:"
HERE = Path(__file__).parent


def names() -> list[str]:
    """The names of all trained networks, sorted."""
    return sorted(path.parent.name for path in HERE.glob("*/weights.safetensors"))


def is_entry(path: str | PathLike[str]) -> bool:
    """Whether a path stands for a run of the zoo, e.g. "zoo:mnist_small_sabr"."""
    return fspath(path).startswith(PREFIX)


def located(path: str | PathLike[str]) -> Path:
    """The run folder that a path stands for: a folder of the package for "zoo:NAME", and the path itself otherwise.

    Raises:
        FileNotFoundError: there is no such network.
        ValueError: its weights are not those of the package.
    """
    if not is_entry(path):
        return Path(path)
    name = fspath(path).removeprefix(PREFIX)
    if name not in names():
        raise FileNotFoundError(f"there is no {fspath(path)}: choose from {', '.join(PREFIX + one for one in names())}")
    weights = HERE / name / "weights.safetensors"
    if hashlib.sha256(weights.read_bytes()).hexdigest() != digests()[name]:
        raise ValueError(f"{weights} is damaged: install ctbench again")
    return weights.parent


def digests() -> dict[str, str]:
    """The SHA-256 of the weights of each network, by name."""
    lines = (HERE / "SHA256SUMS").read_text().splitlines()
    return {path.removesuffix("/weights.safetensors"): digest for digest, path in map(str.split, lines)}


def working_copy(path: str | PathLike[str], folder: Path = Path("runs/zoo")) -> Path:
    """The run folder that records may be written to: the path itself, or a copy in `folder` of a network of the zoo.

    The network is named as "zoo:NAME" or by its folder of the package. An existing copy is used as it is.

    Raises:
        FileNotFoundError, ValueError: as for `located`.
        ValueError: there is another network in the place of the copy.
    """
    source = located(path)
    if source.parent != HERE:
        return source
    copy = folder / source.name
    weights = copy / "weights.safetensors"
    if not copy.exists():
        unfinished = folder / f".{source.name}"  # a copy appears as a whole
        shutil.copytree(source, unfinished, dirs_exist_ok=True)
        unfinished.rename(copy)
    elif not weights.is_file() or weights.read_bytes() != (source / weights.name).read_bytes():
        raise ValueError(f"{copy} is not a copy of {PREFIX}{source.name}: move it, or work in another folder")
    return copy

"""Where a command works: what --on, --device and the number of workers say."""

from __future__ import annotations

import argparse
from pathlib import Path

from ctbench import engine as engines
from ctbench.cli.options import device as available
from ctbench.datasets import Dataset
from ctbench.datasets.corrupted import Corrupted
from ctbench.datasets.files import data_root
from ctbench.datasets.folder import Folder
from ctbench.engine import Engine, Here, Local, Ray
from ctbench.engine.local import accelerators


def check_paths(place: Engine, dataset: Dataset, data: Path | None) -> None:
    """Raise ValueError if workers with another working folder would not find the images of a data set."""
    if isinstance(dataset, Corrupted):
        check_paths(place, dataset.base, data)
    elif isinstance(dataset, Folder) and isinstance(place, Ray):
        root, path = data_root(data), Path(dataset.path)
        if not (path.is_absolute() or (root / path).exists()):
            raise ValueError(
                f"dataset.path is {dataset.path!r}, which is not in the data folder {root}: workers of Ray have "
                f"another working folder, so give the absolute path, e.g. {path.absolute()}"
            )


def engine(on: str | None, device: str = "cpu", *, workers: int | None = None, apart: bool = False) -> Engine:
    """The engine that the options choose.

    Args:
        on: the value of --on.
        device: the value of --device.
        workers: the value of --workers or --jobs, the short form of --on local:N.
        apart: whether even a single worker is a process of its own.

    Raises:
        ValueError: the options contradict each other, there is no such engine, or this machine has no such device.
    """
    if on is not None and workers is not None:
        raise ValueError(f"--on {on} and {workers} workers are two answers to one question: give one of the two")
    chosen = None if on is None else engines.engine(on, device=device)
    if not isinstance(chosen, Ray):  # the driver of a cluster may have no accelerator
        try:
            available(device)
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"--device: {error}") from None
    if chosen is not None:
        return chosen
    if workers is None:
        workers = len(accelerators()) if device == "cuda" else 1
    return Here(device) if workers == 1 and not apart else Local(workers=workers, device=device)

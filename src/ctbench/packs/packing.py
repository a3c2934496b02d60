"""Write a run into one file: weights, recipe, versions, records, the network as ONNX, and the digest of its data."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

from ctbench import zoo
from ctbench.datasets import Data
from ctbench.graph import UnsupportedLayerError
from ctbench.onnx import save_onnx
from ctbench.packs.archive import DATA, NAMES, write
from ctbench.packs.digests import about_data
from ctbench.results import RunFolder, jsonl
from ctbench.training import Run, load_run


def pack(run: str | Path, out: str | Path, *, data: Data | str | Path | None = None) -> list[str]:
    """Write a complete run into a ZIP file. The state of its training, locks and logs are left out.

    Args:
        run: the run folder, or "zoo:NAME".
        out: the file, NAME.zip; an existing one is replaced.
        data: the folder of the data sets, or the data of a run of your own data (`Data.of`); None: as in `train`.

    Returns:
        Messages about what is not in the pack, e.g. an ONNX file of a network that ONNX cannot hold.

    Raises:
        FileNotFoundError: there is no such run, it is not complete, or its data are not there.
        ValueError: a file of the run is damaged or a link, or its records are about other images than the test set.
    """
    path, folder = Path(out), RunFolder(zoo.located(run))
    if path.suffix != ".zip":
        raise ValueError(f"{path} is not the name of a pack: choose one that ends in .zip")
    loaded = load_run(folder.path)
    tests = data_of(loaded, data)
    for certification in folder.certifications():  # raises if records were edited
        certification.read_settings()
        certification.read()
    for search in folder.searches():
        search.read()
    files = _files(folder)
    messages = [] if folder.certifications() else [f"{folder.path} has no certification: the pack proves nothing"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".packing-") as made:
        files[DATA] = Path(made) / DATA
        jsonl.write_json(files[DATA], about_data(loaded.recipe.dataset.title, tests))
        if folder.exported.name not in files:
            try:
                save_onnx(loaded.model, Path(made) / folder.exported.name, tests.input_shape)
                files[folder.exported.name] = Path(made) / folder.exported.name
            except UnsupportedLayerError as error:
                messages.append(f"no {folder.exported.name} is in the pack: {error}")
        write(path, files, {"packed_with": {"ctbench": version("ctbench")}})
    return messages


def data_of(run: Run, data: Data | str | Path | None) -> Data:
    """The data of a run: those that are given, if it is a run of such data, or its data set."""
    if isinstance(data, Data):
        recognized = getattr(run.recipe.dataset, "recognized", None)
        if recognized is None:
            raise ValueError(f"the run has the data set {run.recipe.dataset.name}: give no other data")
        known: Data = recognized(data)
        return known
    return run.recipe.dataset.load(None if data is None else Path(data))


def _files(folder: RunFolder) -> dict[str, Path]:
    """The files of a run that belong into a pack, by their names in it.

    Raises:
        ValueError: one is a link.
    """
    places = {path.relative_to(folder.path).as_posix(): path for path in sorted(folder.path.rglob("*"))}
    files = {name: path for name, path in places.items() if NAMES.fullmatch(name) and not path.is_dir()}
    for name, path in places.items():
        if path.is_symlink() and (path.is_dir() or name in files):
            raise ValueError(f"{path} is a symbolic link: put the file itself there")
    return files

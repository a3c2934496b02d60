"""A certified run, packs of it, and how frauds are planted in them: with all checksums and digests made again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctbench.networks import MLP
from ctbench.packs import archive, check
from ctbench.packs.packing import _files, pack
from ctbench.results import RunFolder, jsonl
from ctbench.results.checking import sealed, unsealed
from ctbench.training import train
from ctbench.verify import Records, certify

EPS = 0.05
NAME = "linf-0.05"
SAMPLES = 40


@pytest.fixture(scope="session")
def made(tiny, tmp_path_factory) -> Path:
    """A run with 40 certified samples, some of them falsified and misclassified, and its pack next to it."""
    folder = tmp_path_factory.mktemp("packs")
    recipe = tiny(network=MLP(hidden=(20,)), epochs=4, batch_size=64, name="tiny")
    run = train(recipe, out=folder / "run", quiet=True)
    x, y = recipe.dataset.load().test[:SAMPLES]
    about = {"dataset": "digits", "network": "mlp"}
    records = Records(run.folder.certification(NAME).records, counterexamples=True, about=about)
    result = certify(run.model, x, y, eps=EPS, records=records)
    assert all(count > 1 for verdict, count in result.counts.items() if verdict != "unknown")
    pack(run.folder.path, folder / "run.zip")
    return folder / "run"


@pytest.fixture(scope="session")
def other(tiny, tmp_path_factory) -> Path:
    """A run of the same recipe with another seed."""
    recipe = tiny(network=MLP(hidden=(20,)), epochs=4, batch_size=64, name="tiny", seed=1)
    return train(recipe, out=tmp_path_factory.mktemp("other") / "run", quiet=True).folder.path


@pytest.fixture
def run(made, tmp_path) -> RunFolder:
    """A copy of the run."""
    return RunFolder(Path(shutil.copytree(made, tmp_path / "run")))


@pytest.fixture
def zipped(made) -> Path:
    return made.with_suffix(".zip")


def records_of(run: RunFolder) -> list[dict[str, Any]]:
    return jsonl.read(run.certification(NAME).records)


def first(records: list[dict[str, Any]], verdict: str) -> dict[str, Any]:
    return next(record for record in records if record["verdict"] == verdict)


def forge(run: RunFolder, edit: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Edit the records, with checksums that fit."""
    records = records_of(run)
    edited = edit(records)
    jsonl.rewrite(run.certification(NAME).records, [sealed(unsealed(each)) for each in edited or records])


def forge_settings(run: RunFolder, **changes: Any) -> None:
    """Edit the settings, with a checksum that fits."""
    path = run.certification(NAME).settings
    jsonl.write_json(path, sealed(unsealed(json.loads(path.read_text())) | changes))


def repacked(run: RunFolder, honest: Path, out: Path) -> Path:
    """A pack of a run folder as it is, with the data.json and the ONNX file of an honest pack, and a new manifest."""
    unpacked = out.with_suffix("")
    unpacked.mkdir()
    archive.extract(honest, unpacked)
    files = {name: unpacked / name for name in ("data.json", "network.onnx")}
    archive.write(out, files | _files(run), {})
    return out


def failed(path: Path, **options: Any) -> list[str]:
    """The claims of a pack or run that do not hold. A fraud among few samples is always certified again."""
    return [
        str(claim)
        for claim in check(path, **{"samples": SAMPLES, "seed": 0, "timeout": 20.0} | options)
        if not claim.holds
    ]

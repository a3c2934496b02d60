"""Shared by the tests of the data sets: no test reaches the network beyond this machine."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
from numpy.typing import NDArray
from PIL import Image

Write = Callable[[Path, Mapping[str, bytes]], Path]


@pytest.fixture(autouse=True)
def this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads work from 127.0.0.1 and fail from anywhere else, at once."""
    retrieve = pooch.retrieve

    def guarded(url: str, *args: Any, **kwargs: Any) -> str:
        if not url.startswith("http://127.0.0.1"):
            raise ConnectionError("no network in tests")
        return retrieve(url, *args, **kwargs)

    monkeypatch.setattr(pooch, "retrieve", guarded)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("CTBENCH_MIRROR", raising=False)


@pytest.fixture
def png() -> Callable[[NDArray[np.uint8]], bytes]:
    """Encode pixels [H, W] or [H, W, 3] as a PNG file, without loss."""

    def encode(pixels: NDArray[np.uint8]) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG")
        return file.getvalue()

    return encode


def write_folder(path: Path, contents: Mapping[str, bytes]) -> Path:
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path: Path, contents: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, contents: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def folder() -> Write:
    """Write files by name into a folder."""
    return write_folder


@pytest.fixture
def zipped() -> Write:
    """Write files by name into a zip."""
    return write_zip


@pytest.fixture
def tarred() -> Write:
    """Write files by name into a tar, compressed if it is named .gz."""
    return write_tar

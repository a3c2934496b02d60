"""The ZIP file of a pack: how it is written, and how one from anybody is read.

Nothing of a file is believed before it is checked: a pack holds plain files with the names that packs have, no more of
them and no more bytes than a run can have, and its manifest names each of them with its SHA-256.
"""

from __future__ import annotations

import hashlib
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctbench.files import UNFINISHED
from ctbench.results import jsonl

MANIFEST = "manifest.json"
DATA = "data.json"
FORMAT = "ctbench pack 1"
NAME = r"[^/\\:\x00-\x1f\x7f.][^/\\:\x00-\x1f\x7f]*"  # no separator, no control character, no leading dot
NAMES = re.compile(
    r"(recipe|versions|data|manifest)\.json|metrics\.jsonl|weights\.safetensors|network\.onnx"
    rf"|(certified|radii|attacked|analysed|corrupted)/{NAME}\.jsonl?"
    rf"|certified/{NAME}\.counterexamples/(0|[1-9][0-9]*)\.npy"
)
MOST_FILES = 1_000_000
MOST_BYTES = 64 << 30
MOST_RATIO = 200  # of all bytes to those of the ZIP file: text of records is compressed to a tenth or less
ALWAYS = 1 << 20  # bytes that are allowed at any ratio
BLOCK = 1 << 20
SHA256 = re.compile(r"[0-9a-f]{64}")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same run gives the same bytes


class PackError(ValueError):
    """A file that is not a pack, or not a safe one."""


def write(path: Path, files: Mapping[str, Path], about: Mapping[str, Any]) -> None:
    """Write a pack: its files by their names in it, and a manifest of their digests. It appears as a whole."""
    digests = {name: {"sha256": _digest(file), "bytes": file.stat().st_size} for name, file in sorted(files.items())}
    unfinished = path.with_name(path.name + UNFINISHED)
    manifest = unfinished.with_name(unfinished.name + ".json")
    jsonl.write_json(manifest, {"format": FORMAT, **about, "files": digests})
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, file in {MANIFEST: manifest, **dict(sorted(files.items()))}.items():
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, (stat.S_IFREG | 0o644) << 16
                with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                    while block := source.read(BLOCK):
                        target.write(block)
        unfinished.replace(path)
    finally:
        manifest.unlink(missing_ok=True)
        unfinished.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract(path: Path, folder: Path) -> None:
    """Write the files of a pack to an empty folder, after its entries were checked.

    Raises:
        FileNotFoundError: there is no such file.
        PackError: it is not a ZIP file, is damaged, or has an entry that no pack has; the message says which.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check(entries, path.stat().st_size)
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as file:
                    while block := source.read(BLOCK):
                        file.write(block)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise PackError(f"{path} is damaged or not a ZIP file ({error}): get it again") from None
    except PackError as error:
        raise PackError(f"{path} is not a pack that can be opened: {error}") from None


def _check(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Raise PackError if an entry is not a plain file with a name that packs have, or there is too much of anything."""
    if len(entries) > MOST_FILES:
        raise PackError(f"it has {len(entries)} entries, a pack has at most {MOST_FILES}")
    names = set[str]()
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if not NAMES.fullmatch(entry.filename):
            raise PackError(f"it has an entry {entry.filename[:80]!r}, and no pack has a file of this name")
        if kind not in (0, stat.S_IFREG):
            link = "a symbolic link" if kind == stat.S_IFLNK else "not a plain file"
            raise PackError(f"its entry {entry.filename!r} is {link}")
        if entry.filename.casefold() in names:
            raise PackError(f"it has two entries {entry.filename!r}")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise PackError(f"its entry {entry.filename!r} is encrypted, or compressed in another way than packs are")
        names.add(entry.filename.casefold())
    total = sum(entry.file_size for entry in entries)
    most = min(MOST_BYTES, ALWAYS + MOST_RATIO * size)
    if total > most:
        raise PackError(f"it would unpack to {total} bytes from {size}, and a pack of this size has at most {most}")


def unpack(path: Path, folder: Path) -> int:
    """Write the files of a pack to an empty folder, and compare them with its manifest; returns their number.

    Raises:
        FileNotFoundError: there is no such file.
        PackError: it is not a pack, or a file in it was changed; the message says which.
    """
    extract(path, folder)
    return compare_with_manifest(folder, read_manifest(folder))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an unpacked pack.

    Raises:
        PackError: there is none, or it is not one of this format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise PackError(f"there is no {MANIFEST}, so this is not a pack")
    manifest = jsonl.read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        shown = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise PackError(f"{MANIFEST} has the format {shown!r:.80}, expected {FORMAT!r}")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(map(_is_entry, files.values())):
        raise PackError(f"the files of {MANIFEST} are not names with a sha256 and a number of bytes")
    return manifest


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and SHA256.fullmatch(entry["sha256"]) is not None
        and isinstance(entry.get("bytes"), int)
    )


def compare_with_manifest(folder: Path, manifest: Mapping[str, Any]) -> int:
    """Compare the files of an unpacked pack with its manifest; returns their number.

    Raises:
        PackError: a file is missing, is not in the manifest, or has another size or digest.
    """
    files = manifest["files"]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    for name in sorted(files.keys() - there):
        raise PackError(f"{name:.80} is in {MANIFEST}, but not in the pack")
    for name in sorted(there - files.keys()):
        raise PackError(f"{name} is in the pack, but not in {MANIFEST}")
    for name in sorted(there):
        size, said = (folder / name).stat().st_size, files[name]["bytes"]
        if size != said:
            raise PackError(f"{name} has {size} bytes, and {said} in {MANIFEST}: one of the two was changed")
        if _digest(folder / name) != files[name]["sha256"]:
            raise PackError(f"the SHA-256 of {name} is not that in {MANIFEST}: the file was changed")
    return len(there)

"""Runs that are given more than once, as a folder and as packs of it: a report shows them once, and says so."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctbench.results import RunFolder, jsonl

RECORDS = re.compile(r"(certified|radii|attacked|analysed|corrupted)/[^/]+\.jsonl?")


@dataclass(frozen=True, kw_only=True)
class Named:
    """A run folder, and the path or name by which pages call it."""

    folder: RunFolder
    path: Path
    study: Path | None = None  # of a final run
    packed: bool = False
    also: tuple[Path, ...] = ()  # packs of the same run


def check_once(paths: Sequence[Path]) -> None:
    """Raise ValueError if a path is there twice."""
    places = [path.resolve() for path in paths]
    twice = next((path for place, path in enumerate(paths) if places[place] in places[:place]), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice: give it once")


def once(named: Sequence[Named]) -> list[Named]:
    """The runs without packs of a run that is also given as a folder, or as an earlier pack.

    Two runs are the same if their weights have the same bytes and their recipes the same content. Two folders are never
    taken for one run: a copy may have been made to have other records. A pack belongs to the one with its records.
    """
    if not any(each.packed for each in named):
        return list(named)
    kept, places = list[Named](), dict[tuple[str, str], list[int]]()
    for each in sorted(named, key=lambda each: each.packed):
        same = _identity(each.folder)
        equal = places.setdefault(same, []) if same is not None else []
        if each.packed and equal:
            place = min(equal, key=lambda place: len(_different(kept[place].folder, each.folder)))
            kept[place] = replace(kept[place], also=(*kept[place].also, each.path))
        else:
            equal.append(len(kept))
            kept.append(each)
    order = {each.path: place for place, each in enumerate(named)}
    return sorted(kept, key=lambda each: order[each.path])


def _identity(folder: RunFolder) -> tuple[str, str] | None:
    """The digest of the weights, and the recipe; None if one of them is missing or is not JSON."""
    if not (folder.weights.is_file() and folder.recipe.is_file()):
        return None
    try:
        recipe = json.dumps(jsonl.read_json(folder.recipe), sort_keys=True)
    except ValueError:
        return None
    return _digest(folder.weights), recipe


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def told(given: Sequence[Named], shown: Sequence[Named]) -> Iterator[str]:
    """A sentence about each pack that is not shown, with the records in which it differs from the run that is."""
    folders = {each.path: each.folder for each in given}
    for run in shown:
        for pack in run.also:
            different = _different(run.folder, folders[pack])
            but = f"; its own records in {', '.join(different)} are not shown" if different else ""
            yield f"{pack} is a pack of the run {run.path}, which is shown once{but}"


def _different(run: RunFolder, pack: RunFolder) -> list[str]:
    """The files of records of a pack that a run lacks, or has with another content."""
    here, there = _records(run), _records(pack)
    return sorted(name for name in there if here.get(name) != there[name])


def _records(folder: RunFolder) -> dict[str, str]:
    """The digests of the files of records and of their settings, by their names."""
    files = {path.relative_to(folder.path).as_posix(): path for path in folder.path.glob("*/*.json*")}
    return {name: _digest(path) for name, path in files.items() if RECORDS.fullmatch(name)}

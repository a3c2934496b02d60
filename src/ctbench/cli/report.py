"""`ctbench report`: static pages about runs, packs and studies."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from ctbench import zoo
from ctbench.cli.pictured import test_images
from ctbench.cli.repeating import repeated
from ctbench.packs.archive import unpack
from ctbench.report.site import Images, Subject, check_out, environment, page_names, write_report
from ctbench.results import RunFolder
from ctbench.results.runs import names_of

PACK = ".zip"
NO_IMAGES = Images(lacking="the report was made without them (--no-images)")


def run(args: argparse.Namespace) -> None:
    environment()
    check_out(args.out)
    with ExitStack() as stack:
        folders = [_folder(text, stack) for text in args.subjects]
        index = write(folders, args.out, title=args.title, data=args.data, with_images=not args.no_images)
    print(index)


def write(
    folders: Sequence[tuple[RunFolder, Path]],
    out: Path,
    *,
    title: str,
    data: Path | None = None,
    with_images: bool = True,
) -> Path:
    """Write a report about run folders; each has the path by which it was named.

    Raises:
        ValueError: a folder was given twice, or as for `write_report`.
    """
    check_once([path for _, path in folders])
    return write_report(list(_subjects(folders, data, with_images=with_images)), out, title=title)


def check_once(paths: Sequence[Path]) -> None:
    """Raise ValueError if a path is there twice."""
    places = [path.resolve() for path in paths]
    twice = next((path for place, path in enumerate(paths) if places[place] in places[:place]), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice: give each run once")


def _folder(text: str, stack: ExitStack) -> tuple[RunFolder, Path]:
    """The run folder of an argument, and its path. A pack is checked, and unpacked until the stack ends.

    Raises:
        FileNotFoundError: there is no such run.
        PackError: the file is not a pack, or is damaged.
    """
    path = Path(text)
    if path.suffix != PACK or path.is_dir():
        return RunFolder(zoo.working_copy(text)), path
    unpacked = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ctbench-report-")))
    unpack(path, unpacked)
    return RunFolder(unpacked), path


def _subjects(folders: Sequence[tuple[RunFolder, Path]], data: Path | None, *, with_images: bool) -> Iterator[Subject]:
    names = [name.removesuffix(PACK).removeprefix(zoo.PREFIX) for name in names_of([path for _, path in folders])]
    pages = page_names(names, "run")
    for (folder, _), name, page in zip(folders, names, pages, strict=True):
        if not folder.certifications():
            folder.require()
        command, remark = repeated(folder, name, f"{page.removesuffix('.html')}-recipe.json")
        images = test_images(folder, data) if with_images else NO_IMAGES
        yield Subject(folder=folder, name=name, page=page, command=command, remark=remark, images=images)

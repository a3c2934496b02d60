"""`ctbench report`: static pages about runs, packs and studies."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ctbench import zoo
from ctbench.cli.analyse import kinds
from ctbench.cli.listing import about
from ctbench.cli.options import check_out_folder
from ctbench.cli.own import called
from ctbench.cli.pictured import test_images
from ctbench.cli.repeating import repeated
from ctbench.cli.same_runs import Named, check_once, once, told
from ctbench.datasets import Data
from ctbench.packs.archive import PackError, unpack
from ctbench.report.site import (
    AnalysisView,
    SampleImages,
    StudySubject,
    Subject,
    check_out,
    environment,
    page_names,
    write_report,
)
from ctbench.report.site.run_page import run_page
from ctbench.results import RunFolder, Study, StudyFolder
from ctbench.results.runs import names_of

PACK = ".zip"
NO_IMAGES = SampleImages(lacking="the report was made without them (--no-images)")


def run(args: argparse.Namespace) -> None:
    environment()
    check_out(args.out)
    check_out_folder(args.out)
    data = called(args.data_from, Data) if args.data_from else args.data
    with ExitStack() as stack:
        runs = [each for text in args.subjects for each in _named(text, stack)]
        named = once(runs)
        studies = [Study.read(text) for text in args.subjects if StudyFolder(Path(text)).study.is_file()]
        index = write(
            named,
            args.out,
            studies=studies,
            title=args.title,
            data=data,
            with_images=not args.no_images,
            with_samples=not args.no_samples,
        )
        for sentence in told(runs, named):
            print(sentence)
    print(f"{index}: a browser opens this file")


def write(
    named: Sequence[Named],
    out: Path,
    *,
    studies: Sequence[Study] = (),
    title: str,
    data: Path | Data | None = None,
    with_images: bool = True,
    with_samples: bool = True,
) -> Path:
    """Write a report about runs and studies; returns its first page.

    Raises:
        ValueError: a run or a study was given twice, or as for `write_report`.
    """
    check_once([path for each in named for path in (each.path, *each.also)])
    check_once([study.path for study in studies])
    subjects = list(_subjects(named, data, with_images=with_images, with_samples=with_samples))
    pages = page_names([study.path.resolve().name for study in studies], "study")
    searched = [
        StudySubject(study=study, name=study.path.resolve().name, page=page, runs=_pages_of(study, named, subjects))
        for study, page in zip(studies, pages, strict=True)
    ]
    return write_report(subjects, out, studies=searched, title=title)


def _pages_of(study: Study, named: Sequence[Named], subjects: Sequence[Subject]) -> dict[str, str]:
    """The pages of the final runs of a study, by their folders in it."""
    return {
        each.folder.path.relative_to(study.path).as_posix(): subject.page
        for each, subject in zip(named, subjects, strict=True)
        if each.study == study.path
    }


def _named(text: str, stack: ExitStack) -> list[Named]:
    """The runs of an argument: itself, the final runs of a study, or a pack. This is unpacked until the stack ends.

    Raises:
        FileNotFoundError: there is no such run.
        PackError: the file is not a pack, or is damaged.
    """
    path = Path(text)
    if StudyFolder(path).study.is_file():
        runs = [folder for folder in Study.read(path).runs if folder.recipe.is_file()]
        return [Named(folder=folder, path=folder.path, study=path) for folder in runs]
    if path.suffix != PACK or path.is_dir():
        return [Named(folder=RunFolder(zoo.working_copy(text)), path=path)]
    unpacked = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ctbench-report-")))
    unpack(path, unpacked)
    return [Named(folder=RunFolder(unpacked), path=path, packed=True)]


def _subjects(
    named: Sequence[Named], data: Path | Data | None, *, with_images: bool, with_samples: bool
) -> Iterator[Subject]:
    names = [_name(text) for text in names_of([each.path for each in named], _short)]
    pages, views = page_names(names, "run"), _views()
    for each, name, page in zip(named, names, pages, strict=True):
        with _naming_pack(each):
            folder = each.folder
            if not folder.certifications():
                folder.require()
            command, remark = repeated(folder, name, f"{page.removesuffix('.html')}-recipe.json")
            images = test_images(folder, data) if with_images else NO_IMAGES
            subject = Subject(
                folder=folder,
                name=name,
                page=page,
                command=command,
                remark=remark,
                images=images,
                views=views,
                also=tuple(path.name for path in each.also),
                with_samples=with_samples,
            )
            if each.packed:
                run_page(subject)  # reads all that pages show
        yield subject


def _views() -> dict[str, AnalysisView]:
    """How to show the analyses of this package, and those of imported modules."""
    return {name: AnalysisView(about=about(kind), layout=kind.layout) for name, kind in kinds().items()}


@contextmanager
def _naming_pack(each: Named) -> Iterator[None]:
    """A context in which an error about a file of a pack names the pack. Its JSON may hold anything.

    Raises:
        PackError: the pack holds something that no run has.
    """
    try:
        yield
    except (ValueError, OSError, ArithmeticError, TypeError, AttributeError, LookupError, RecursionError) as error:
        if not each.packed:
            raise
        words = str(error).replace(str(each.folder.path), str(each.path))
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise PackError(
            f"{each.path} is not a pack of a run ({kind}{words}): ctbench check says what is wrong"
        ) from None


def _short(path: Path) -> str:
    """The last part of a path; of a final run of a study, after the name of the study."""
    return f"{path.parents[1].name}-{path.name}" if path.parent.name == "final" else path.name


def _name(text: str) -> str:
    return text.removesuffix(PACK).removeprefix(zoo.PREFIX)

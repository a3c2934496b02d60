"""The files of a report: pages made of templates, tables, and a list of what was written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctbench.files import UNFINISHED, naming
from ctbench.report.site.agreement_page import agreement_pages
from ctbench.report.site.analysis_page import compared_analyses
from ctbench.report.site.charts import Chart
from ctbench.report.site.corruption_page import compared_corruptions
from ctbench.report.site.curves import radius_curves, time_chart
from ctbench.report.site.leaderboard import Setting, colours, front_chart, leaderboard, published_table, settings
from ctbench.report.site.run_page import run_page
from ctbench.report.site.studies_page import studies_tables
from ctbench.report.site.study_page import study_page
from ctbench.report.site.study_subject import StudySubject
from ctbench.report.site.subjects import Subject
from ctbench.report.site.tables import FILES, File, Table, files_of
from ctbench.results import jsonl

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
LIST = "report.json"  # the names of all files of a report
STUDIES = "studies.html"
FORMAT = "ctbench report 1"
OURS = re.compile(rf"(?:{FILES}/)?[a-z0-9][a-z0-9.-]*\.(?:html|csv|md|tex|json)")  # the names of files that we write


@dataclass(frozen=True, kw_only=True)
class Board:
    """A setting on the leaderboard."""

    name: str
    title: str
    table: Table
    published: Table | None
    front: Chart | None


@dataclass
class Pages:
    """The files of a report while it is made."""

    templates: Environment
    about: Mapping[str, Any]  # what each page shows
    files: dict[str, str] = field(default_factory=dict)

    def add(self, page: str, template: str, **content: Any) -> None:
        """A page, and the files that its tables and charts have."""
        self.files[page] = self.templates.get_template(template).render(**self.about, page=page, **content)

    def link(self, *files: File) -> None:
        for file in files:
            self.files[f"{FILES}/{file.name}"] = file.content


def environment() -> Environment:
    """The templates; all that they show is escaped.

    Raises:
        ValueError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise ValueError(f"jinja2 is not there ({error}): pip install jinja2") from None
    return Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def check_out(out: Path) -> None:
    """Raise ValueError if a folder holds other files than those of an earlier report."""
    if not out.exists():
        return
    if not out.is_dir():
        raise NotADirectoryError(f"{out} is a file, but a folder is expected: choose another --out")
    strange = sorted(_there(out) - {name + end for name in {*_listed(out), LIST} for end in ("", UNFINISHED)})
    if strange:
        raise ValueError(
            f"{out} holds {strange[0]}, which is not of a report: choose an empty folder with --out, or move this file"
        )


def _there(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir() or path.is_symlink()}


def _listed(out: Path) -> set[str]:
    """The names of the files of the report in a folder; none if there is no report."""
    if not (out / LIST).is_file():
        return set()
    content = jsonl.read_json(out / LIST)
    names = content.get("files") if isinstance(content, dict) and content.get("format") == FORMAT else None
    if not isinstance(names, list) or not all(isinstance(name, str) and OURS.fullmatch(name) for name in names):
        raise ValueError(f"{out / LIST} is not the list of a report: choose an empty folder with --out")
    return set(names)


def write_report(
    subjects: Sequence[Subject], out: Path, *, studies: Sequence[StudySubject] = (), title: str = "Certified training"
) -> Path:
    """Write pages about runs and studies into a folder, in place of an earlier report there.

    Args:
        subjects: the runs; their names and pages are all different.
        studies: the studies; their pages are also different.
        out: the folder.
        title: of all pages.

    Returns:
        The first page, which a browser opens from the file.

    Raises:
        ValueError: there are no runs, a file of a run is damaged or was edited, the folder holds other files, or jinja2
            is not installed.
    """
    if not subjects and not studies:
        raise ValueError("there are no runs: give at least one run folder, pack or study")
    check_out(out)
    files = report_files(subjects, studies, title)
    assert all(OURS.fullmatch(name) for name in files), f"a file of a report has another name: {sorted(files)}"
    before = _listed(out)
    (out / FILES).mkdir(parents=True, exist_ok=True)
    jsonl.write_json(out / LIST, {"format": FORMAT, "files": sorted(before | files.keys())})
    for name, content in files.items():
        with naming(out / name):
            (out / name).write_text(content, encoding="utf-8")
    for name in before - files.keys():
        (out / name).unlink(missing_ok=True)
    jsonl.write_json(out / LIST, {"format": FORMAT, "files": sorted(files)})
    return out / "index.html"


def report_files(subjects: Sequence[Subject], studies: Sequence[StudySubject], title: str) -> dict[str, str]:
    """The names and contents of all files of a report."""
    boards = settings(subjects)
    agreements = agreement_pages(subjects)
    analyses, corruptions = compared_analyses(subjects), compared_corruptions(subjects)
    menu = [("Leaderboard", "index.html"), ("Fronts and curves", "curves.html")]
    menu += [("Agreements", "agreements.html")] if agreements else []
    menu += [("Analyses", "analyses.html")] if analyses or corruptions else []
    menu += [("Studies", STUDIES)] if len(studies) > 1 else [(f"Study: {study.name}", study.page) for study in studies]
    about = {
        "title": title,
        "pages": menu,
        "version": version("ctbench"),
        "style": _own("style.css"),
        "script": _own("script.js"),
    }
    pages = Pages(templates=environment(), about=about)
    _leaderboard(pages, subjects, boards)
    if agreements:
        pages.add("agreements.html", "agreements.html", agreements=agreements)
        for one in agreements:
            pages.link(*one.files, *one.table.files, *one.pairs.files, *one.hard.files)
    if analyses or corruptions:
        pages.add("analyses.html", "analyses.html", analyses=analyses, corruptions=corruptions)
        pages.link(*files_of([*analyses, *corruptions]))
    for subject in subjects:
        run = run_page(subject)
        pages.add(subject.page, "run.html", run=run)
        pages.link(*run.files)
    if len(studies) > 1:
        tables = studies_tables(studies)
        pages.add(STUDIES, STUDIES, tables=tables)
        pages.link(*files_of(tables))
    for study in studies:
        searched = study_page(study)
        pages.add(study.page, "study.html", study=searched)
        pages.link(*files_of(searched.tables))
    return pages.files


def _leaderboard(pages: Pages, subjects: Sequence[Subject], found: Sequence[Setting]) -> None:
    """The leaderboard, and the page of fronts and curves."""
    numbers = colours(subjects)
    boards = [
        Board(
            name=setting.name,
            title=setting.title,
            table=leaderboard(setting),
            published=published_table(setting),
            front=front_chart(setting, numbers),
        )
        for setting in found
    ]
    waiting = [subject for subject in subjects if not subject.certified]
    pages.add("index.html", "index.html", boards=boards, runs=subjects, waiting=waiting)
    fronts = [board.front for board in boards if board.front]
    radii = radius_curves(subjects, "radii")
    times = [curve for setting in found if (curve := time_chart(setting)) is not None]
    pages.add("curves.html", "curves.html", fronts=fronts, radii=radii, times=times)
    pages.link(*files_of([*fronts, *radii.charts, *times]))
    pages.link(*files_of(_tables(boards)))


def _tables(boards: Sequence[Board]) -> Iterator[Table]:
    for board in boards:
        yield board.table
        if board.published:
            yield board.published


def _own(name: str) -> str:
    """A file of ours that is part of each page, as it is."""
    from markupsafe import Markup

    return Markup((HERE / name).read_text(encoding="utf-8"))

"""What a report is about: runs with their certifications, and where their pages are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctbench.report.comparison import Row, rows_of, shown_radius
from ctbench.report.site.measured import Analysed, AnalysisView, Corrupted
from ctbench.results import Certification, CertificationFiles, Open, RunFolder, SampleRecord, Verdict, jsonl

Pixels = NDArray[np.float64]  # [C, H, W], in [0, 1]
FindImages = Callable[[Sequence[SampleRecord]], Mapping[int, Pixels]]


def _no_images(records: Sequence[SampleRecord]) -> Mapping[int, Pixels]:
    return {}


@dataclass(frozen=True, kw_only=True)
class SampleImages:
    """The test images of a run.

    Args:
        find: the images of records, by index; those that are not the images of the records are not among them.
        classes: the names of the classes, by label.
        lacking: why there are no images.
    """

    find: FindImages = _no_images
    classes: tuple[str, ...] = ()
    lacking: str = ""

    def class_name(self, label: int) -> str:
        """The label, and the name of its class if it has another one."""
        name = self.classes[label] if 0 <= label < len(self.classes) else ""
        return f"{label} {name}" if name and name != str(label) else str(label)


@dataclass(frozen=True, kw_only=True)
class Certified:
    """A certification of a run: its row in tables, its files and their settings."""

    row: Row
    files: CertificationFiles
    settings: Mapping[str, Any]

    @property
    def records(self) -> Certification:
        assert self.row.certification is not None, "the row of a certification has it"
        return self.row.certification

    @property
    def setting(self) -> tuple[str, str, str]:
        """What certifications that are compared have in common: data set, norm and radius."""
        return self.row.dataset, self.row.norm, repr(self.row.eps)

    @property
    def title(self) -> str:
        return f"{self.row.norm} eps {shown_radius(self.row.eps)}"

    @property
    def unfinished(self) -> str:
        """How many samples are decided, or had their time in the last attempt, e.g. "40 of 100"; "" if all."""
        return self.row.unfinished

    @property
    def samples(self) -> str:
        """A digest of all samples."""
        return self.row.samples

    def in_memory(self) -> Certified:
        """The same with its records in memory, for what looks at them several times."""
        return replace(self, row=replace(self.row, certification=Certification(tuple(self.records))))

    @property
    def out_of_time(self) -> int:
        return self.records.outcomes[f"{Verdict.UNKNOWN} ({Open.TIME})"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run of the report.

    Args:
        folder: its files.
        name: in tables.
        page: the name of its page.
        command: the command that repeats it; "" if there is none.
        remark: what is to be said of the command, or why there is none.
        images: its test images.
        views: how to show analyses, by their names.
        also: the names of packs of the same run that were given as well.
        with_samples: whether its page links to a table of all its samples.
    """

    folder: RunFolder
    name: str
    page: str
    command: str = ""
    remark: str = ""
    images: SampleImages = field(default_factory=SampleImages)
    views: Mapping[str, AnalysisView] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    with_samples: bool = True

    @cached_property
    def certified(self) -> tuple[Certified, ...]:
        """Its certifications, in the order of their names."""
        files = self.folder.certifications()
        rows = rows_of(self.folder, self.name) if files else []
        return tuple(
            Certified(row=row, files=each, settings=each.read_settings()) for row, each in zip(rows, files, strict=True)
        )

    @cached_property
    def about(self) -> Row:
        """A row with what is known of the run."""
        return self.certified[0].row if self.certified else rows_of(self.folder, self.name)[0]

    @cached_property
    def recipe(self) -> dict[str, Any]:
        content = jsonl.read_json(self.folder.recipe) if self.folder.recipe.is_file() else {}
        assert isinstance(content, dict), "rows_of has read it"
        return content

    @cached_property
    def analysed(self) -> tuple[Analysed, ...]:
        """Its analyses, in the order of their names."""
        return tuple(filter(None, map(Analysed.read, self.folder.analyses())))

    @cached_property
    def corrupted(self) -> tuple[Corrupted, ...]:
        """Its tests on corrupted images, in the order of their names."""
        return tuple(filter(None, map(Corrupted.read, self.folder.corruptions())))

    def view(self, analysis: str) -> AnalysisView:
        """How to show an analysis."""
        return self.views.get(analysis, AnalysisView())

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """The metrics of each epoch."""
        return jsonl.read(self.folder.metrics)


def page_names(names: Iterable[str], prefix: str) -> list[str]:
    """A file name for each name, all different: letters, digits, dots and dashes alone."""
    pages = list[str]()
    for name in names:
        plain = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60] or "unnamed"
        page, more = f"{prefix}-{plain}.html", 2
        while page in pages:
            page, more = f"{prefix}-{plain}-{more}.html", more + 1
        pages.append(page)
    return pages


def settings_of(subjects: Iterable[Subject]) -> dict[tuple[str, str, str], list[tuple[Subject, Certified]]]:
    """The certifications by their settings, in the order of data set, norm and radius."""
    groups: dict[tuple[str, str, str], list[tuple[Subject, Certified]]] = {}
    for subject in subjects:
        for certified in subject.certified:
            groups.setdefault(certified.setting, []).append((subject, certified))
    return dict(sorted(groups.items(), key=lambda item: (*item[0][:2], _radius(item[1][0][1].row.eps))))


def _radius(eps: Any) -> float:
    return float(eps) if isinstance(eps, int | float) else float("inf")


def slug(*parts: object) -> str:
    """A part of a file name made of texts."""
    return re.sub(r"[^a-z0-9.]+", "-", " ".join(map(str, parts)).lower()).strip("-.") or "unnamed"

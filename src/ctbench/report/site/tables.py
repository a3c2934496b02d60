"""Tables of pages: cells with links, marks and values to sort by, and the same tables as files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ctbench.report.formats import as_csv, as_latex, as_markdown
from ctbench.report.grid import NOTHING, Bold
from ctbench.report.intervals import Spread

FILES = "files"  # the folder of tables and other files
OTHER_SAMPLES = "Rows are not all of the same samples and regions: compare those with care."
TITLES = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX", "json": "JSON"}


@dataclass(frozen=True)
class File:
    """A file that pages link to."""

    name: str
    content: str

    @property
    def link(self) -> tuple[str, str]:
        """What the link says, and where it goes."""
        return TITLES[self.name.rpartition(".")[2]], f"{FILES}/{self.name}"


class WithFiles(Protocol):
    """A table, a picture, or a part of a page."""

    @property
    def files(self) -> Sequence[File]: ...


def files_of(parts: Iterable[WithFiles]) -> Iterator[File]:
    """The files of all parts."""
    return (file for part in parts for file in part.files)


@dataclass(frozen=True)
class Remark:
    """A short word in a table, what it means, and what it says of its row."""

    word: str
    meaning: str
    detail: str = ""
    plain: bool = False  # whether it is no reason for care

    @property
    def said(self) -> str:
        """The meaning, and what it says of its row."""
        return f"{self.meaning}: {self.detail}" if self.detail else self.meaning


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table.

    Args:
        text: what it shows, unless it has links.
        detail: what it shows in smaller letters after it.
        value: what it is sorted by; None: by its text.
        links: texts and places, shown instead of the text.
        remarks: words that qualify the row.
        bold: whether it is better than all others.
        share: the length of a bar in the cell, in [0, 1].
    """

    text: str
    detail: str = ""
    value: float | None = None
    links: tuple[tuple[str, str], ...] = ()
    remarks: tuple[Remark, ...] = ()
    bold: bool = False
    share: float | None = None
    colour: int = 0  # of the bar

    @property
    def plain(self) -> str:
        """The text in a file."""
        words = f"{self.text}, {self.detail}" if self.detail else self.text
        return Bold(words) if self.bold else words


def percent(share: float | None, *, bar: bool = False) -> Cell:
    """A share in [0, 1] as percent."""
    if share is None:
        return Cell(text=NOTHING)
    return Cell(text=f"{100 * share:.2f}", value=100 * share, share=share if bar else None)


def mean_cell(spread: Spread | None, others: Collection[Spread] = ()) -> Cell:
    """A mean with half the width of its interval, bold if the interval lies above those of all others."""
    if spread is None:
        return Cell(text=NOTHING)
    shown = f"{spread.mean:.2f}" + ("" if spread.half is None else f" ± {spread.half:.2f}")
    return Cell(text=shown, value=spread.mean, bold=spread.is_above_all(others))


def count(number: int) -> Cell:
    return Cell(text=str(number), value=number)


def number(value: float | None, form: str = "{:.4g}") -> Cell:
    return Cell(text=NOTHING) if value is None else Cell(text=form.format(value), value=value)


def text(words: object) -> Cell:
    return Cell(text=str(words))


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of a table; `facts` are what pages filter by."""

    cells: tuple[Cell, ...]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a page.

    Args:
        name: of its files; "" if it has none.
        caption: above it.
        headings: of the columns.
        texts: the places of the columns that hold texts; the others hold numbers.
        lines: the rows.
        note: below it.
        order: the column by which it is sorted, descending; None: as it is.
        kind: "published" for results of others.
        csv: the numbers of its file, if they are not those that it shows.
    """

    name: str = ""
    caption: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    texts: Collection[int] = (0,)
    note: str = ""
    order: int | None = None
    kind: str = ""
    csv: str = ""

    @property
    def remarks(self) -> list[Remark]:
        """Each remark word once."""
        every = [remark for line in self.lines for cell in line.cells for remark in cell.remarks]
        return list({remark.word: remark for remark in every}.values())

    @property
    def files(self) -> tuple[File, ...]:
        """The table as files; none if it has no name."""
        if not self.name:
            return ()
        cells = [[cell.plain for cell in line.cells] for line in self.lines]
        values = [[f"{c.value:.10g}" if c.value is not None else c.plain for c in line.cells] for line in self.lines]
        return (
            File(f"{self.name}.csv", self.csv or as_csv(self.headings, values)),
            File(f"{self.name}.md", as_markdown(self.headings, cells, texts=self.texts) + "\n"),
            File(f"{self.name}.tex", as_latex(self.headings, cells, texts=self.texts) + "\n"),
        )


def table(
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    texts: Collection[int] = (0,),
    name: str = "",
    note: str = "",
) -> Table:
    """A table of cells."""
    lines = tuple(Line(cells=tuple(row)) for row in rows)
    return Table(name=name, caption=caption, headings=tuple(headings), lines=lines, texts=texts, note=note)

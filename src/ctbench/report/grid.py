"""A table that fits its terminal: no number is ever cut or broken.

A table that is too wide is drawn in the first of these forms that fits: with the columns that are equal in all rows in
its title; without lines; turned, so that each row becomes a column, in several parts if need be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

NOTHING = "-"  # the cell of a value that is not there
LONGEST_NAME = 20  # characters of a line of the name of a row, at the head of a turned table


class Bold(str):
    """The text of a cell that is printed in bold."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Rows of plain texts, to be printed by rich.

    Args:
        headings: of the columns.
        rows: a cell for each heading; the first one names the row.
        texts: the number of the first columns that hold texts, the others hold numbers.
        title: above the table.
        total: whether the last row sums up the others.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    title: str = ""
    total: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        short = self.without_equal_columns()
        for grid, lines in ((self, True), (short, True), (short, False)):
            if (widths := grid._widths(options.max_width, lines=lines)) is not None:
                yield grid._drawn(widths, lines=lines)
                return
        yield from short._turned(options.max_width)

    def without_equal_columns(self) -> Grid:
        """The grid without columns that are empty, or equal in all rows: the title tells their value."""
        columns = {place: {row[place] for row in self.rows} for place in range(1, len(self.headings))}
        empty = {place for place, cells in columns.items() if cells <= {NOTHING}}
        equal = {place for place, cells in columns.items() if len(cells) == 1 and len(self.rows) > 1} - empty
        shared = ", ".join(f"{self.headings[place]} {self.rows[0][place]}" for place in sorted(equal))
        kept = [place for place in range(len(self.headings)) if place not in empty | equal]
        return replace(
            self,
            headings=[self.headings[place] for place in kept],
            rows=[[row[place] for place in kept] for row in self.rows],
            texts=sum(place < self.texts for place in kept),
            title=": ".join(part for part in (self.title, shared) if part),
        )

    def _widths(self, most: int, *, lines: bool) -> list[int] | None:
        """The widths of the columns, as wide as their headings where there is room; None if they do not fit."""
        columns = list(zip(self.headings, *self.rows, strict=True))
        widths = [max(map(cell_len, (*heading.split(), *cells))) for heading, *cells in columns]
        room = most - sum(widths) - (3 * len(widths) + 1 if lines else 2 * (len(widths) - 1))
        if room < 0:
            return None
        for place, heading in enumerate(self.headings):
            more = min(room, max(0, cell_len(heading) - widths[place]))
            widths[place], room = widths[place] + more, room - more
        return widths

    def _drawn(self, widths: Sequence[int], *, lines: bool) -> Table:
        if lines:
            table = Table(title=self.title or None, title_justify="left")
        else:
            table = Table(
                title=self.title or None,
                title_justify="left",
                box=box.SIMPLE_HEAD,
                show_edge=False,
                pad_edge=False,
                padding=(0, 1, 0, 0),
            )
        for place, (heading, width) in enumerate(zip(self.headings, widths, strict=True)):
            table.add_column(Text(heading), width=width, justify="left" if place < self.texts else "right")
        for place, row in enumerate(self.rows):
            last = self.total and place == len(self.rows) - 1
            table.add_row(*map(_text, row), style="bold" if last else None)
        return table

    def _turned(self, most: int) -> Iterator[Table]:
        """Tables with a column for each of the rows, as many of them in each table as fit."""
        first = max(map(cell_len, self.headings))
        widths = [max(min(cell_len(row[0]), LONGEST_NAME), *map(cell_len, row[1:]), 1) for row in self.rows]
        place, title = 0, self.title
        while place < len(self.rows):
            end, used = place, first + 4
            while end < len(self.rows) and (end == place or used + widths[end] + 3 <= most):
                used, end = used + widths[end] + 3, end + 1
            table = Table(title=title or None, title_justify="left")
            table.add_column(Text(self.headings[0]), width=min(first, max(1, most - widths[place] - 7)))
            for row, width in zip(self.rows[place:end], widths[place:end], strict=True):
                table.add_column(Text(row[0], overflow="fold"), width=min(width, most), justify="right")
            for line, heading in enumerate(self.headings[1:], start=1):
                table.add_row(Text(heading), *(_text(row[line]) for row in self.rows[place:end]))
            yield table
            place, title = end, ""


def _text(cell: str) -> Text:
    return Text(cell, style="bold" if isinstance(cell, Bold) else "")

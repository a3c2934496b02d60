"""Tables fit their terminal, and no number is cut or broken."""

import re
from io import StringIO

import pytest
from rich.console import Console

from ctbench.report import Grid

HEADINGS = ("run", "data", "method", "natural %", "certified %", "unknown (not decided)", "failed stages", "train")
ROWS = [
    (
        f"mnist_small_{method}_with_a_long_name",
        "mnist",
        method,
        f"9{place}.{place}5",
        f"{place}0.25",
        "1234",
        "-",
        "12.5 min",
    )
    for place, method in enumerate(("standard", "pgd", "ibp", "sabr", "taps"))
]


def drawn(grid: Grid, width: int) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(grid)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160, 260])
@pytest.mark.parametrize("total", [False, True])
def test_every_cell_is_whole_at_every_width(width, total):
    text = drawn(Grid(headings=HEADINGS, rows=ROWS, texts=3, total=total), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    words = re.findall(r"[^\s\u2500-\u257f]+", text)
    for row in ROWS:
        for cell in (row[2], row[3], row[4], row[7].split()[0]):
            assert cell in words


def test_equal_columns_are_in_the_title_and_empty_ones_are_left_out():
    text = drawn(Grid(headings=HEADINGS, rows=ROWS, texts=3, title="five runs"), 100)
    title, *table = text.splitlines()
    assert title.startswith("five runs: data mnist, unknown (not decided) 1234, train 12.5 min")
    assert "failed" not in text
    assert len([line for line in table if "mnist_small" in line]) == len(ROWS)


def test_a_table_that_fits_has_all_its_columns():
    text = drawn(Grid(headings=HEADINGS, rows=ROWS, texts=3), 200)
    assert all(heading in text.splitlines()[1] for heading in HEADINGS)


def test_a_row_alone_is_turned_where_it_is_too_wide():
    lines = drawn(Grid(headings=HEADINGS, rows=ROWS[:1], texts=3), 60).splitlines()
    assert [line.split("\u2502")[1].strip() for line in lines if line.startswith("\u2502")] == [
        *HEADINGS[1:6], "train"
    ]  # fmt: skip


def test_cells_are_no_markup():
    assert "[bold]run" in drawn(Grid(headings=("run", "n"), rows=[("[bold]run", "1")]), 80)

"""A table as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence

from ctbench.report.grid import Bold

Cells = Sequence[Sequence[str]]
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}


def as_markdown(headings: Sequence[str], rows: Cells, *, texts: Collection[int]) -> str:
    """A Markdown table.

    Args:
        headings: of the columns.
        rows: a cell for each heading.
        texts: the places of the columns that hold texts; the others hold numbers.
    """
    rule = ["---" if place in texts else "---:" for place in range(len(headings))]
    lines = [_markdown(headings), rule, *map(_markdown, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown(cells: Sequence[str]) -> list[str]:
    plain = [" ".join(cell.split()).replace("|", r"\|").replace("<", "&lt;") for cell in cells]  # never a tag of HTML
    return [f"**{text}**" if isinstance(cell, Bold) else text for cell, text in zip(cells, plain, strict=True)]


def as_csv(headings: Sequence[str], rows: Cells) -> str:
    """A line of headings, then a line for each row."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([headings, *rows])
    return text.getvalue()


def as_latex(headings: Sequence[str], rows: Cells, *, texts: Collection[int]) -> str:
    """A LaTeX table for the package booktabs."""
    columns = "".join("l" if place in texts else "r" for place in range(len(headings)))
    head, *body = (f"{' & '.join(map(_latex, line))} \\\\" for line in (headings, *rows))
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join(["% needs \\usepackage{booktabs}", *lines, r"\end{tabular}"])


def _latex(cell: str) -> str:
    escaped = re.sub(r"[\\~^&%$#_{}]", lambda match: LATEX[match[0]], " ".join(cell.split()))
    text = escaped.replace("±", r"$\pm$")
    return rf"\textbf{{{text}}}" if isinstance(cell, Bold) else text

"""Tables and figures computed only from result files."""

from ctbench.report.agreement import agreement_csv, agreement_markdown, agreement_tables, write_difficulties
from ctbench.report.comparison import Row, markdown, rows, table
from ctbench.report.figures import Panel, Plot, Point, as_csv, draw, points
from ctbench.report.scatter import Mark, draw_scatter, scatter_marks

__all__ = [
    "Mark",
    "Panel",
    "Plot",
    "Point",
    "Row",
    "agreement_csv",
    "agreement_markdown",
    "agreement_tables",
    "as_csv",
    "draw",
    "draw_scatter",
    "markdown",
    "points",
    "rows",
    "scatter_marks",
    "table",
    "write_difficulties",
]

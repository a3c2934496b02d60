"""Tables and figures computed only from result files."""

from ctbench.report.agreement import agreement_csv, agreement_markdown, agreement_tables, write_difficulties
from ctbench.report.comparison import Row, markdown, rows, table
from ctbench.report.figures import Panel, Plot, Point, as_csv, draw, points

__all__ = [
    "Panel",
    "Plot",
    "Point",
    "Row",
    "agreement_csv",
    "agreement_markdown",
    "agreement_tables",
    "as_csv",
    "draw",
    "markdown",
    "points",
    "rows",
    "table",
    "write_difficulties",
]

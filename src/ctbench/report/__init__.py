"""Tables and figures computed only from result files."""

from ctbench.report.comparison import Row, markdown, rows, table
from ctbench.report.figures import Panel, Plot, Point, as_csv, draw, points

__all__ = ["Panel", "Plot", "Point", "Row", "as_csv", "draw", "markdown", "points", "rows", "table"]

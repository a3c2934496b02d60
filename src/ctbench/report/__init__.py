"""Tables made of results alone."""

from ctbench.report.comparison import Row, markdown, rows, table

__all__ = ["Row", "markdown", "rows", "table"]

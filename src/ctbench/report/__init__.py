"""Tables and figures computed only from result files."""

from ctbench.report.agreement import agreement_csv, agreement_markdown, agreement_tables, write_difficulties
from ctbench.report.comparison import Row, csv_lines, latex, markdown, rows, table
from ctbench.report.figures import Panel, Plot, Point, as_csv, draw, points
from ctbench.report.frames import to_pandas
from ctbench.report.fronts import Front, front_rows, front_table, fronts, group_marks
from ctbench.report.generalisation import Ratios, draw_heat_map, ratio_csv, ratio_markdown, ratio_rows, ratio_table
from ctbench.report.grid import Grid
from ctbench.report.groups import Group, grouped, groups_csv, groups_latex, groups_markdown, groups_table, separating
from ctbench.report.scatter import Mark, draw_scatter, scatter_marks

__all__ = [
    "Front",
    "Grid",
    "Group",
    "Mark",
    "Panel",
    "Plot",
    "Point",
    "Ratios",
    "Row",
    "agreement_csv",
    "agreement_markdown",
    "agreement_tables",
    "as_csv",
    "csv_lines",
    "draw",
    "draw_heat_map",
    "draw_scatter",
    "front_rows",
    "front_table",
    "fronts",
    "group_marks",
    "grouped",
    "groups_csv",
    "groups_latex",
    "groups_markdown",
    "groups_table",
    "latex",
    "markdown",
    "points",
    "ratio_csv",
    "ratio_markdown",
    "ratio_rows",
    "ratio_table",
    "rows",
    "scatter_marks",
    "separating",
    "table",
    "to_pandas",
    "write_difficulties",
]

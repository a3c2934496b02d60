"""Pictures and CSV files of rows."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from ctbench.report import drawings
from ctbench.report.drawings import Bars, Curves, HeatMap, Histogram, Scatter, rows_csv

ROWS = [
    {"setting": setting, "method": method, "x": x, "y": x * factor, "by": by}
    for setting in ("a", "b")
    for method, factor, by in (("IBP", 1.0, "here"), ("SABR", 2.0, "Müller et al. 2023"))
    for x in (0.5, 1.0, 2.0)
]
DRAWINGS = [
    Bars(group="method", values=("y",), colour="x", hatch="setting", panel=None),
    Bars(group="method", values=("x", "y")),
    Curves(x="x", values=("y",), series=("method",), log=True),
    Curves(x="x", values=("x", "y")),
    Scatter(x="x", y="y"),
    HeatMap(down=("method",), across="x", value="y"),
    Histogram(value="y", series=("method",)),
]


def shown(drawing, rows):
    """The axes of the first panel."""
    axis = drawing.panels({(): rows})[1][0]
    drawing.show(axis, rows)
    return axis


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: type(drawing).__name__)
def test_the_same_rows_give_the_same_picture(drawing, tmp_path):
    for name in ("one.png", "two.png"):
        drawing.draw(ROWS, "title", tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    drawing.draw([{**row, "y": 3 * row["y"] ** 2} for row in ROWS], "title", tmp_path / "other.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "other.png").read_bytes()
    with pytest.raises(ValueError, match=r"neither a \.png nor a \.svg"):
        drawing.draw(ROWS, "title", tmp_path / "three.pdf")


def test_bars_have_the_heights_of_the_means():
    axis = shown(Bars(group="method", values=("y",)), ROWS)
    assert [patch.get_height() for patch in axis.patches] == pytest.approx([3.5 / 3, 7 / 3])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["IBP", "SABR"]


def test_bars_of_a_hatched_column_differ_in_their_hatch():
    axis = shown(Bars(group="method", values=("y",), hatch="setting"), ROWS)
    assert len({patch.get_hatch() for patch in axis.patches}) == 2


def test_lines_go_through_the_points_and_leave_out_texts():
    rows = [*ROWS, {"setting": "a", "method": "IBP", "x": 4.0, "y": None}]
    axis = shown(Curves(x="x", values=("y",), series=("method",)), rows)
    assert [line.get_xydata().tolist() for line in axis.lines] == [
        [[0.5, 0.5], [1, 1], [2, 2]],
        [[0.5, 1], [1, 2], [2, 4]],
    ]


def test_values_with_the_same_last_word_name_the_axis():
    rows = [{"x": x, "standard error": x, "robust error": 2 * x} for x in (1.0, 2.0)]
    errors = ("standard error", "robust error")
    assert shown(Curves(x="x", values=errors), rows).get_ylabel() == "error"
    assert shown(Curves(x="x", values=(*errors, "x")), rows).get_ylabel() == ""


@pytest.mark.parametrize(("methods", "outside"), [(2, False), (3, True)])
def test_a_long_legend_stands_below_the_panels(methods, outside, tmp_path, monkeypatch):
    rows = [{"method": str(number), "x": x, "y": x + number, "z": x} for number in range(methods) for x in (1.0, 2.0)]
    figures = []
    monkeypatch.setattr(drawings, "save", lambda figure, title, path: figures.append(figure))
    Curves(x="x", values=("y", "z"), series=("method",), panel=None).draw(rows, "title", tmp_path / "it.png")
    (figure,) = figures
    assert bool(figure.legends) is outside
    assert (figure.axes[0].get_legend() is None) is outside


def test_published_marks_are_hollow():
    axis = shown(Scatter(x="x", y="y"), ROWS[:6])
    filled = [bool(len(mark.get_facecolor())) for mark in axis.collections]
    assert filled == [True] * 3 + [False] * 3


def test_cells_of_a_heat_map_have_their_numbers():
    axis = shown(HeatMap(down=("method",), across="x", value="y"), ROWS)
    assert [text.get_text() for text in axis.texts] == ["0.5", "1", "2", "1", "2", "4"]


def test_csv_has_all_columns_and_leaves_missing_cells_empty():
    text = rows_csv([{"method": "IBP", "y": 1 / 3}, {"method": "a, b", "z": None, "w": 2}])
    assert text == 'method,y,z,w\nIBP,0.333333,,\n"a, b",,,2\n'


def test_bars_are_standard_errors_of_several_rows():
    rows = [{"x": 1.0, "y": y, "z": 2 * y} for y in (2.0, 4.0, 6.0)] + [{"x": 2.0, "y": 5.0, "z": 9.0}]
    axis = shown(Curves(x="x", values=("y", "z"), error_bars=True), rows)
    bars, ends = axis.collections, []
    for collection in bars:
        several, single = collection.get_segments()
        assert not np.isfinite(single).any()  # a single row has no standard error
        ends.append(several[:, 1].tolist())
    error = 2 / 3**0.5
    assert ends == [pytest.approx([4 - error, 4 + error]), pytest.approx([8 - 2 * error, 8 + 2 * error])]
    assert [to_hex(bar.get_color()[0]) for bar in bars] == [to_hex(line.get_color()) for line in axis.lines[:4:3]]
    assert not shown(Curves(x="x", values=("y",)), rows).collections
    assert not shown(Curves(x="x", values=("y",), error_bars=True), rows[-1:]).collections

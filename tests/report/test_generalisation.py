"""Tables and heat maps of ratios."""

import pytest
from tests.results.test_generalisation import RECORDS, record

from ctbench import report
from ctbench.results import Generalisation

NETWORKS = {
    "first": Generalisation(RECORDS),
    "second": Generalisation((record("clean", None, 10), record("zigzag", 1, 5), record("fog", 1, 7))),
}


def test_rows_have_the_columns_of_the_first_network():
    first, second = report.ratio_rows(NETWORKS)
    assert list(first.ratios) == list(second.ratios) == ["fog", "zigzag", "mean"]
    assert first.ratios == pytest.approx({"fog": 0.75, "zigzag": 0.5, "mean": 0.625})
    assert second.ratios == pytest.approx({"fog": 0.7, "zigzag": 0.5, "mean": 0.6})
    labels = [row.label for row in report.ratio_rows(NETWORKS, by_severity=True)]
    assert labels == ["first", "first, 1", "first, 5", "second", "second, 1"]


def test_texts():
    rows = report.ratio_rows(NETWORKS, by_severity=True)
    lines = report.ratio_markdown(rows).splitlines()
    assert lines[0] == "| run | severity | clean % | fog | zigzag | mean |"
    assert lines[4] == "| first | 5 | 80.00 | 0.500 | 0.250 | 0.375 |"
    assert report.ratio_csv(rows).splitlines()[1] == "first,all,0.8,0.7499999999999999,0.5,0.625"
    assert len(report.ratio_table(rows).rows) == 5


def test_other_corruptions_are_refused():
    other = Generalisation((record("clean", None, 10), record("fog", 1, 5)))
    with pytest.raises(ValueError, match="b and a differ in the corruptions zigzag: test both on them"):
        report.ratio_rows({"a": NETWORKS["first"], "b": other})


def test_a_heat_map_shows_each_ratio(monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    report.draw_heat_map(report.ratio_rows(NETWORKS), "title", tmp_path / "map.png")
    axis = drawn[0].axes[0]
    assert drawn[0].get_suptitle() == "title"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["fog", "zigzag", "mean"]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["first", "second"]
    assert axis.images[0].get_array().tolist() == [pytest.approx([0.75, 0.5, 0.625]), pytest.approx([0.7, 0.5, 0.6])]
    assert [text.get_text() for text in axis.texts] == ["0.75", "0.50", "0.62", "0.70", "0.50", "0.60"]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("once.svg", "again.svg"):
        report.draw_heat_map(report.ratio_rows(NETWORKS), "title", tmp_path / name)
    assert (tmp_path / "once.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()

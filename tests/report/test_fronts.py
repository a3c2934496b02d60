"""Fronts and hypervolumes, against a count of cells, and how they are drawn."""

import random
from pathlib import Path

import pytest

from ctbench.report.fronts import dominates, front_rows, front_table, fronts, group_marks, hypervolume
from ctbench.report.groups import Group
from ctbench.report.intervals import Spread
from ctbench.report.scatter import Mark, draw_scatter


def mark(label: str, x: float, y: float, **fields) -> Mark:
    return Mark(**{"dataset": "mnist", "norm": "linf", "eps": 0.1, "label": label, "x": x, "y": y} | fields)


@pytest.mark.parametrize(
    ("first", "second", "holds"),
    [((2, 2), (1, 1), True), ((2, 1), (1, 1), True), ((1, 1), (1, 1), False), ((2, 0), (1, 1), False)],
)
def test_a_point_dominates_one_that_is_nowhere_higher(first, second, holds):
    assert dominates(first, second) is holds


@pytest.mark.parametrize("seed", range(20))
def test_the_hypervolume_is_a_number_of_cells(seed):
    """On a grid of whole numbers, count the cells below and left of a point."""
    draw = random.Random(seed)
    points = [(draw.randint(0, 12), draw.randint(0, 12)) for _ in range(draw.randint(0, 8))]
    low = (draw.randint(0, 6), draw.randint(0, 6))
    cells = sum(
        any(x < point[0] and y < point[1] for point in points) for x in range(low[0], 12) for y in range(low[1], 12)
    )
    assert hypervolume(points, low) == cells
    assert hypervolume(points[::-1], low) == cells


MARKS = [mark("a", 99, 90), mark("b", 98, 95), mark("c", 97, 94), mark("d", 98, 94), mark("other", 99.9, 99, by="them")]


def test_a_front_names_who_dominates_and_leaves_published_results_out():
    (front,) = fronts(MARKS)
    told = {one.label: one.dominated_by for one in front.marks}
    assert told == {"a": "", "b": "", "c": "b", "d": "b", "other": ""}
    assert front.share == pytest.approx((98 * 95 + 1 * 90) / 10_000)
    (near,) = fronts(MARKS, (90.0, 90.0))
    assert near.share == pytest.approx(8 * 5 / 100)
    with pytest.raises(ValueError, match="give two percents in"):
        fronts(MARKS, (100.0, 0.0))


def test_equal_points_are_both_on_the_front():
    (front,) = fronts([mark("a", 99, 90), mark("b", 99, 90)])
    assert [one.dominated_by for one in front.marks] == ["", ""]


def test_each_setting_has_its_front():
    found = fronts([mark("a", 99, 90), mark("b", 98, 80, eps=0.3)])
    assert [(front.setting, front.marks[0].dominated_by) for front in found] == [
        ("mnist, linf eps 0.1", ""),
        ("mnist, linf eps 0.3", ""),
    ]


def group(label: str, natural: list[float], certified: list[float], eps=0.1) -> Group:
    spreads = {"natural": Spread.of(natural), "adversarial": Spread.of(certified), "certified": Spread.of(certified)}
    about = {
        "dataset": "mnist",
        "network": "cnn7",
        "norm": "linf",
        "eps": eps,
        "samples": 100,
        "threat": "",
        "samples_digest": "",
    }
    return Group(**about, by=(("method", label),), runs=tuple(map(str, range(len(natural)))), **spreads)


def test_groups_are_means_with_intervals_beside_published_results():
    marks = group_marks([group("ibp", [98.0, 98.4], [97.0, 97.4]), group("pgd", [99.0], [0.0])], "natural", "certified")
    ours = {one.label: one for one in marks if not one.by}
    assert (ours["ibp"].x, ours["ibp"].y, ours["ibp"].runs) == (pytest.approx(98.2), pytest.approx(97.2), 2)
    assert ours["ibp"].spread == pytest.approx((12.7062 * 0.2, 12.7062 * 0.2), rel=1e-4)
    assert ours["pgd"].spread is None
    assert {one.label for one in marks if one.by == "CTBench"} >= {"IBP", "MTL-IBP"}
    with pytest.raises(ValueError, match="'speed' is not an accuracy"):
        group_marks([], "natural", "speed")


@pytest.mark.parametrize(("about", "said"), [(("t", "other"), "samples"), (("other", "s"), "threat models")])
def test_a_front_does_not_compare_what_was_certified_for_something_else(about, said):
    ours = [mark("a", 99, 90, about=("t", "s")), mark("b", 98, 80, about=("t", "s"))]
    assert len(fronts([*ours, mark("c", 97, 85, by="them")])) == 1
    with pytest.raises(ValueError, match=f"b and d were certified for different {said}, so a front does not compare"):
        fronts([*ours, mark("d", 97, 70, about=about)])


def test_tables_and_pictures_of_fronts(tmp_path):
    found = fronts([*MARKS, mark("e", 98.5, 92, spread=(0.3, 0.2), runs=3)])
    rows = front_rows(found, "natural", "certified")
    assert [(row["label"], row["by"], row["dominated by"]) for row in rows if row["label"] in "ac"] == [
        ("a", "here", ""),
        ("c", "here", "b"),
    ]
    assert next(row for row in rows if row["by"] == "them")["runs"] is None
    table = front_table(found, "natural", "certified")
    assert [row[2] for row in table.rows] == ["on the front"] * 3 + ["dominated by b"] * 2
    marks = [one for front in found for one in front.marks]
    for name in ("front.svg", "again.svg"):
        draw_scatter(marks, "natural", "certified", tmp_path / name, front=True)
    drawn = (tmp_path / "front.svg").read_text()
    assert drawn == (tmp_path / "again.svg").read_text()
    assert "opacity: 0.3" in drawn
    draw_scatter(MARKS[:2], "natural", "certified", Path(tmp_path / "plain.svg"))
    assert "opacity: 0.3" not in (tmp_path / "plain.svg").read_text().replace("stroke-opacity: 0.3", "")

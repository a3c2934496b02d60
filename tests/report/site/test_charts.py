"""Where the parts of a picture lie."""

import pytest

from ctbench.report.site.charts import BOTTOM, HEIGHT, LEFT, TOP, Axis, Point, Series, chart, percents


def marks(*places: tuple[float, float], **fields: object) -> Series:
    return Series(name="a", kind="marks", points=tuple(Point(x=x, y=y, text=f"{x} {y}", **fields) for x, y in places))


def test_an_axis_places_values_and_rounds_its_ticks():
    axis = Axis(label="x", low=0.0, high=1.0, start=100, stop=200)
    assert [axis.place(value) for value in (0.0, 0.25, 1.0, 7.0, -1.0)] == [100, 125, 200, 200, 100]
    assert [(tick.place, tick.text) for tick in axis.ticks] == [
        (100, "0"), (120, "0.2"), (140, "0.4"), (160, "0.6"), (180, "0.8"), (200, "1"),
    ]  # fmt: skip


def test_a_logarithmic_axis_has_decades():
    axis = Axis(label="x", low=0.001, high=10.0, start=0, stop=40, log=True)
    assert [(tick.place, tick.text) for tick in axis.ticks] == [
        (0, "0.001"), (10, "0.01"), (20, "0.1"), (30, "1"), (40, "10"),
    ]  # fmt: skip
    assert axis.place(0.0) == 0  # which has no logarithm


def test_higher_values_lie_higher():
    picture = chart("a", "a", [marks((0, 0), (1, 10))], x="x", y="y", x_range=(0, 1), y_range=(0, 10))
    first, second = picture.paths[0].points
    assert (first.x, first.y, second.y) == (LEFT, HEIGHT - BOTTOM, TOP)
    assert picture.paths[0].tips[1][2] == "1 10"


def test_labels_never_cover_each_other_and_a_crowd_has_fewer():
    picture = chart(
        "a", "a", [marks(*[(50 + 0.01 * n, 50.0) for n in range(20)], label="the same place")], x="x", y="y"
    )
    labelled = [point for point in picture.paths[0].points if point.label]
    assert 1 <= len(labelled) < 20
    boxes = [(point.label_y, point.label_x, point.anchor) for point in labelled]
    assert len(set(boxes)) == len(boxes)


def test_a_few_values_far_below_are_off_the_scale_and_drawn_at_its_edge():
    values = [(0.0, 0.0), (93.0, 0.5), (94.0, 0.0), (95.0, 0.0)]
    low, high = percents(values)
    assert 85 < low < 92.5
    assert 95 < high < 97
    picture = chart("a", "a", [marks(*[(1.0, y) for y, _ in values])], x="x", y="y", y_range=(low, high))
    assert [point.off for point in picture.paths[0].points] == [True, False, False, False]
    assert picture.paths[0].points[0].y == HEIGHT - BOTTOM


def test_percents_of_equal_values_have_room():
    low, high = percents([(100.0, 0.0)] * 3)
    assert low < 100 < high


def test_bars_stand_on_their_floor():
    bars = Series(name="a", kind="bars", points=(Point(x=1.0, y=5.0, text="5"),), width=1.0)
    picture = chart("a", "a", [bars], x="x", y="y", x_range=(0, 2), y_range=(0, 10))
    _, top, _, height = picture.paths[0].points[0].box or (0, 0, 0, 0)
    assert (top + height, height) == pytest.approx((HEIGHT - BOTTOM, (HEIGHT - BOTTOM - TOP) / 2))


def test_the_line_around_a_front_passes_through_its_corners_from_the_left():
    picture = chart(
        "a", "a", [marks((1, 9), (5, 2))], x="x", y="y", x_range=(0, 10), y_range=(0, 10), front=[(5, 2), (1, 9)]
    )
    first, second = picture.paths[0].points
    assert picture.front == f"M{LEFT:g} {first.y:g}H{first.x:g}V{second.y:g}H{second.x:g}V{HEIGHT - BOTTOM:g}"


def test_what_others_published_is_always_on_the_scale():
    low, high = percents([(0.0, 0.0), (83.0, 0.0), (84.0, 0.0), (85.0, 0.0)], [60.0, 94.0])
    assert 0 < low < 60
    assert high > 94


def test_a_short_logarithmic_axis_has_ticks_between_decades():
    axis = Axis(label="x", low=0.3, high=3.0, start=0, stop=10, log=True)
    assert [tick.text for tick in axis.ticks] == ["0.5", "1", "2"]
    picture = chart("a", "a", [marks((1e-5, 1), (1e-5, 2))], x="x", y="y", log_x=True)
    assert picture.x.low < 1e-5 < picture.x.high

"""Labels in pictures: none hides another one or a mark, and each belongs to its mark."""

import math
from itertools import combinations

import pytest

from ctbench.report.figures import panels
from ctbench.report.labels import MARK, NEAR, Label, draw_labels

pytest.importorskip("matplotlib")


def crowd(count=16, radius=0.4):
    """Marks on two turns of a spiral in the middle of a panel, closer to each other than their labels are wide."""
    angles = [4 * math.pi * k / count for k in range(count)]
    return [
        Label(
            text=f"method {k}",
            x=math.cos(a) * radius * k / count,
            y=math.sin(a) * radius * k / count,
            size=6,
            color="k",
        )
        for k, a in enumerate(angles)
    ]


def drawn(labels, limits=(-2, 2)):
    figure, (axis,) = panels(1, width=6.0, height=5.5)
    axis.scatter([label.x for label in labels], [label.y for label in labels], label="runs")
    axis.set(xlim=limits, ylim=limits)
    axis.legend()
    draw_labels(axis, labels)
    figure.draw_without_rendering()
    texts = {text.get_text(): text.get_window_extent() for text in axis.texts if text.get_text()}
    return axis, texts


def points(axis, labels):
    return [axis.transData.transform((label.x, label.y)) for label in labels]


def meet(one, other):
    return one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1


def test_labels_of_a_crowd_do_not_hide_each_other_nor_the_marks_nor_the_legend():
    labels = crowd()
    axis, texts = drawn(labels)
    assert set(texts) == {label.text for label in labels}
    assert not [pair for pair in combinations(texts, 2) if meet(texts[pair[0]], texts[pair[1]])]
    for x, y in points(axis, labels):
        assert not [name for name, box in texts.items() if box.x0 < x < box.x1 and box.y0 < y < box.y1]
    assert not [name for name, box in texts.items() if meet(box, axis.get_legend().get_window_extent())]
    frame = axis.get_window_extent()
    assert all(
        frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        for box in texts.values()
    )


def test_a_label_far_from_its_mark_has_a_line_to_it():
    labels = crowd()
    axis, texts = drawn(labels)
    scale = axis.figure.dpi / 72
    lines = [text for text in axis.texts if not text.get_text()]
    far = set()
    for label, (x, y) in zip(labels, points(axis, labels), strict=True):
        box = texts[label.text]
        gap = math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1)) / scale
        if gap > NEAR + MARK:
            far.add((label.x, label.y))
    assert far
    assert far <= {line.xy for line in lines}


def test_a_lone_mark_has_its_label_beside_it_without_a_line():
    alone = [Label(text="alone", x=0.0, y=0.0, size=8, color="k")]
    axis, texts = drawn(alone)
    ((x, y),) = points(axis, alone)
    assert len(axis.texts) == 1
    assert max(abs(texts["alone"].x0 - x), abs(texts["alone"].y0 - y)) / (axis.figure.dpi / 72) < NEAR + MARK


@pytest.mark.parametrize("corner", [(-2, -2), (2, 2), (-2, 2), (2, -2)])
def test_a_label_at_the_edge_stays_inside(corner):
    label = Label(text="a long name of a run", x=corner[0], y=corner[1], size=8, color="k")
    axis, texts = drawn([label])
    box, frame = texts[label.text], axis.get_window_extent()
    assert frame.x0 <= box.x0 < box.x1 <= frame.x1
    assert frame.y0 <= box.y0 < box.y1 <= frame.y1


def test_a_label_without_a_line_is_nearest_to_its_own_mark():
    places = {"sabr": (0.0, 0.0), "crown-ibp": (0.14, 0.05), "ibp": (-0.05, 0.3), "taps": (0.1, -0.2)}
    labels = [Label(text=name, x=x, y=y, size=8, color="k") for name, (x, y) in places.items()]
    axis, texts = drawn(labels)
    joined = {text.xy for text in axis.texts if not text.get_text()}
    alone = [label for label in labels if (label.x, label.y) not in joined]
    assert alone
    for label in alone:
        box = texts[label.text]
        gaps = [
            math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1)) for x, y in points(axis, labels)
        ]
        assert min(gaps) == gaps[labels.index(label)]

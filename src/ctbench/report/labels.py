"""Labels of marks in a picture, each where it hides nothing, joined with its mark by a line if it is far away."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

DISTANCES = (7, 11, 17, 25, 35, 47, 61, 77)  # points from the mark to the nearest edge of its label
DIRECTIONS = 16
NEAR = 11  # points: a label that is farther away has a line
MARK = 3  # points: half the width of a mark
AROUND = 1.5  # points: the empty space around a label
HIDDEN_LABEL, HIDDEN_MARK, CROSSED_LABEL, HIDDEN_BAR = 1000.0, 300.0, 300.0, 30.0  # costs, in points of distance
WRONG_MARK = 300.0  # of a label without a line that is nearer to another mark

Box = NDArray[np.float64]  # [left, bottom, right, top] in pixels


@dataclass(frozen=True, kw_only=True)
class Label:
    """The text of a mark at (x, y), in units of the data."""

    text: str
    x: float
    y: float
    size: float  # of the font, in points
    color: str
    alpha: float = 1.0
    bars: tuple[float, float] | None = None  # half the lengths of the bars of the mark


@dataclass(frozen=True)
class _Place:
    """Where a label may be, and the line from its mark to it, all in pixels."""

    offset: tuple[float, float]  # from the mark to the lower left corner, in points
    box: Box
    end: tuple[float, float]  # of the line
    distance: float  # in points


def draw_labels(axis: Axes, labels: Sequence[Label]) -> None:
    """Write labels beside their marks; call it when all else is drawn, also titles, and the limits of the axes are set.

    The labels with the largest fonts choose their places first, of equal ones those with the most marks around them.
    """
    figure = axis.get_figure(root=True)
    assert figure is not None, "axes belong to a figure"
    figure.draw_without_rendering()  # the layout fixes where marks are
    scale = figure.dpi / 72
    points = axis.transData.transform([(label.x, label.y) for label in labels]).reshape(-1, 2)
    marks = np.concatenate([points - MARK * scale, points + MARK * scale], 1)
    bars = np.array([box for label in labels for box in _bars(axis, label)]).reshape(-1, 4)
    frame, legend = axis.get_window_extent(), axis.get_legend()
    taken = [] if legend is None else [np.array(legend.get_window_extent().extents)]
    near = (np.linalg.norm(points[:, None] - points, axis=2) < 40 * scale).sum(1)
    for place in sorted(range(len(labels)), key=lambda place: (-labels[place].size, -near[place])):
        label, point = labels[place], points[place]
        written = axis.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=label.size,
            color=label.color,
            alpha=label.alpha,
        )
        written.set_in_layout(False)
        others = np.delete(marks, place, 0)
        best = min(
            _places(written, point, scale, np.array(frame.extents)),
            key=lambda at: _cost(at, point, np.array(taken).reshape(-1, 4), others, bars),
        )
        written.set_position(best.offset)
        taken.append(best.box)
        if best.distance > NEAR:
            line = axis.annotate(
                "",
                (label.x, label.y),
                xytext=((best.end[0] - point[0]) / scale, (best.end[1] - point[1]) / scale),
                textcoords="offset points",
                arrowprops={
                    "arrowstyle": "-", "linewidth": 0.4, "color": label.color, "alpha": label.alpha, "shrinkA": 0,
                    "shrinkB": MARK,
                },
            )  # fmt: skip
            line.set_in_layout(False)


def _bars(axis: Axes, label: Label) -> Iterator[Box]:
    """The boxes of the bars of a mark."""
    if label.bars is not None:
        for across, up in ((label.bars[0], 0.0), (0.0, label.bars[1])):
            ends = [(label.x - across, label.y - up), (label.x + across, label.y + up)]
            yield axis.transData.transform(ends).reshape(4)


def _places(text: Text, point: NDArray[np.float64], scale: float, frame: Box) -> list[_Place]:
    """The places of a label inside the frame, the nearest first; the nearest of all if it fits nowhere."""
    extent = text.get_window_extent()
    half = np.array([extent.width, extent.height]) / 2 + AROUND * scale
    places = []
    for distance, step in product(DISTANCES, range(DIRECTIONS)):
        angle = 2 * math.pi * (step + 2) / DIRECTIONS  # up to the right first
        way = np.array([math.cos(angle), math.sin(angle)])
        middle = point + way * distance * scale + half * np.clip(1.5 * way, -1, 1)  # a side or a corner is nearest
        box = np.concatenate([middle - half, middle + half])
        offset = (box[:2] - point) / scale + AROUND
        places.append(_Place(tuple(offset), box, tuple(np.clip(point, box[:2], box[2:])), float(distance)))
    inside = [at for at in places if (at.box[:2] >= frame[:2]).all() and (at.box[2:] <= frame[2:]).all()]
    return inside or places[:1]


def _cost(
    place: _Place, point: NDArray[np.float64], labels: NDArray[np.float64], marks: Box, bars: NDArray[np.float64]
) -> float:
    """The price of a place: the distance, and what the label and its line hide, or leave unclear."""
    cost = (
        place.distance
        + HIDDEN_LABEL * _hidden(place.box, labels)
        + HIDDEN_MARK * _hidden(place.box, marks)
        + HIDDEN_BAR * _hidden(place.box, bars)
    )
    if place.distance > NEAR:
        line = np.linspace(point, place.end, 20)
        return cost + CROSSED_LABEL * sum(_crosses(line, box) for box in labels)
    others = (marks[:, :2] + marks[:, 2:]) / 2
    ends = np.clip(others, place.box[:2], place.box[2:])
    nearer = np.linalg.norm(others - ends, axis=1) <= 1.5 * math.dist(point, place.end)
    return cost + WRONG_MARK * bool(nearer.any())


def _hidden(box: Box, others: NDArray[np.float64]) -> int:
    """How many boxes, [N, 4], a box meets."""
    return int(((box[:2] <= others[:, 2:]) & (others[:, :2] <= box[2:])).all(1).sum())


def _crosses(line: NDArray[np.float64], box: Box) -> bool:
    """Whether one of some points, [N, 2], is in a box."""
    return bool(((line >= box[:2]) & (line <= box[2:])).all(1).any())

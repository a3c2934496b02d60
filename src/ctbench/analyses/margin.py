"""How close are two classes of a data set? Its implicit margin.

    gamma = min ||x_i - x_j||   over all i, j with y_i != y_j

De Bartolomeis et al., "How robust accuracy suffers from certified training with convex relaxations", section 3.4, in
the l2 norm. No classifier is robust at both points of the pair with a radius of gamma / 2 or more.

    data_margin(x, y).distance
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ctbench.specification import check_samples

ORDERS = {"l2": 2.0, "linf": math.inf, "l1": 1.0}
ROWS, COLUMNS = 1024, 8192  # the size of the matrix of distances in memory


class Margin(NamedTuple):
    distance: float
    pair: tuple[int, int]  # the two samples at this distance, ascending


def data_margin(x: Tensor, y: Tensor, norm: str = "l2") -> Margin:
    """The smallest distance between two samples of different classes.

    In the l2 norm, matrix products find the nearest pair, and its distance is then computed from the difference. So if
    distances differ by only about 1e-8 of the norm of the data, the wrong pair may be chosen.

    Args:
        x: inputs, [N, *shape].
        y: their classes, [N] integers.
        norm: "l2", "linf" or "l1".

    Raises:
        ValueError: the norm is unknown, inputs are not finite or do not have one label each, or there is one class.
    """
    if norm not in ORDERS:
        raise ValueError(f"norm is {norm!r}: it must be one of {', '.join(ORDERS)}")
    check_samples(x, y)
    if not bool(torch.isfinite(x).all()):
        raise ValueError("the inputs hold NaN or infinite values: a distance needs finite numbers")
    classes = y.unique().tolist()
    if len(classes) < 2:
        raise ValueError(f"all samples are of class {classes[0]}: a margin is between two classes")
    flat, order, nearest = x.flatten(1), ORDERS[norm], Margin(math.inf, (0, 0))
    for label in classes[:-1]:
        for rows in (y == label).nonzero().flatten().split(ROWS):
            for columns in (y > label).nonzero().flatten().split(COLUMNS):
                distances = torch.cdist(flat[rows].double(), flat[columns].double(), p=order)
                row, column = divmod(int(distances.argmin()), len(columns))
                distance = float(distances[row, column])
                if distance < nearest.distance:
                    i, j = int(rows[row]), int(columns[column])
                    nearest = Margin(distance, (min(i, j), max(i, j)))
    i, j = nearest.pair
    return nearest._replace(distance=float(torch.linalg.vector_norm(flat[i].double() - flat[j].double(), order)))

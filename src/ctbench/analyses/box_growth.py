"""How fast do interval boxes grow through a trained network, and where are their centres?

    kappa of an op = mean radius of its output boxes / mean radius of its input boxes        over inputs and neurons

for boxes of the radius lambda eps around the inputs, for each lambda. Beside each op, the product over affine ops, the
product over activations, and the growth of the whole network, from the input to the logits. In a chain of layers the
last is the product of the other two. Müller et al. 2023, "Certified training: small boxes are all you need", section 4
(`relu_growth` has its closed form).

`centres` is a histogram of the centres of the boxes that the last activation takes, their Figure 3: training with small
boxes leaves fewer of them below 0.

    box_growth(model, x, eps=0.1).mean("activations", x=1.0)
    centres(model, x, eps=0.1).mean("share below 0")
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from ctbench.analyses.base import Analysis, Part, Where, measurement
from ctbench.domains import interval
from ctbench.graph import Affine, Elementwise, Graph
from ctbench.regions import Box
from ctbench.results import Layout, Measurement, Measurements

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


@dataclass(frozen=True, kw_only=True)
class BoxGrowth(Analysis):
    """The growth rates of interval boxes, op by op and over the network, for several shares of the radius.

    Args:
        shares: the values of lambda.

    Raises:
        ValueError: a share is not a number above 0; when called, if eps is 0.
    """

    name: ClassVar[str] = "box-growth"
    size: ClassVar[int | None] = None
    layout: ClassVar[Layout] = Layout(
        kind="lines", quantities=("affine", "activations"), label="growth rate", x_label="lambda", log=True
    )
    shares: tuple[float, ...] = SHARES

    def __post_init__(self) -> None:
        check_shares(self.shares)

    def measure(self, part: Part) -> list[Measurement]:
        check_radius(part)
        return [measurement(_rates(part, share), share) for share in self.shares]


def check_radius(part: Part) -> None:
    """Raise ValueError if there are no shares of the radius, because it is 0."""
    if not part.threat.eps:
        raise ValueError("eps is 0: boxes of no radius do not grow, give a radius above 0")


def check_shares(shares: tuple[float, ...]) -> None:
    """Raise ValueError unless these are values of lambda."""
    if not shares or not all(0 < share < math.inf for share in shares):
        raise ValueError(f"shares are {shares}: give multiples of eps above 0, e.g. 0.01, 0.1, 1")


def _rates(part: Part, share: float) -> dict[str, float]:
    net = part.net
    radii = [0.0] * len(net.nodes)
    for boxes, weight in _boxes(part, share):
        radii = [radius + weight * float(box.radius.double().mean()) for radius, box in zip(radii, boxes, strict=True)]
    rates = {
        at: radii[at] / radii[node.inputs[0]] if radii[node.inputs[0]] else math.nan
        for at, node in enumerate(net.nodes)
        if len(node.inputs) == 1
    }
    growth = {
        "affine": math.prod(rate for at, rate in rates.items() if isinstance(net.nodes[at].op, Affine)),
        "activations": math.prod(rate for at, rate in rates.items() if isinstance(net.nodes[at].op, Elementwise)),
        "whole": radii[-1] / radii[0],
    }
    ops = {f"layer {at}: {type(net.nodes[at].op).__name__.lower()}": rate for at, rate in rates.items()}
    return {name: rate for name, rate in (growth | ops).items() if math.isfinite(rate)}


def _boxes(part: Part, share: float) -> Iterator[tuple[list[Box], float]]:
    """The interval boxes of all nodes for some samples, and the share of these samples."""
    for some in part.split(interval.footprint(part.net, 1)):
        yield interval.boxes(some.net, some.scaled(share)), len(some.x) / len(part.x)


@dataclass(frozen=True, kw_only=True)
class Centres(Analysis):
    """A histogram of the centres of the interval boxes that the last activation takes.

    Args:
        bins: the number of bins, of one width, from the smallest centre to the largest.

    Raises:
        ValueError: bins is below 1; when called, if the network has no activation.
    """

    name: ClassVar[str] = "centres"
    size: ClassVar[int | None] = None
    layout: ClassVar[Layout] = Layout(
        kind="lines", quantities=("density",), label="density", x_label="centre of the box before the last activation"
    )
    bins: int = 60

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"bins is {self.bins}: give a number of bins, 1 or more")

    def measure(self, part: Part) -> list[Measurement]:
        at = _before_last_activation(part.net)
        edges = _edges(part, at, self.bins)
        counts, number, below, total, squares = edges.new_zeros(self.bins), 0, 0, 0.0, 0.0
        for values in _centres(part, at):
            counts += torch.histogram(values, edges).hist
            number += values.numel()
            below += int((values < 0).sum())
            total += float(values.sum())
            squares += float(values.square().sum())
        mean = total / number
        deviation = math.sqrt(max(0.0, squares / number - mean**2))
        whole = {"share below 0": below / number, "mean": mean, "standard deviation": deviation}
        densities = counts / number / (edges[1:] - edges[:-1])
        middles = ((edges[1:] + edges[:-1]) / 2).tolist()
        bins = [measurement({"density": density}, x) for density, x in zip(densities.tolist(), middles, strict=True)]
        return [measurement(whole), *bins]


def _before_last_activation(net: Graph) -> int:
    """The position of the node that the last activation reads."""
    places = [node.inputs[0] for node in net.nodes if isinstance(node.op, Elementwise)]
    if not places:
        raise ValueError("the network has no activation: there is no layer to show the centres of")
    return places[-1]


def _centres(part: Part, at: int) -> Iterator[Tensor]:
    """The centres at a node, of some samples at a time, flat and in double precision on the CPU."""
    return (boxes[at].center.double().flatten().cpu() for boxes, _ in _boxes(part, 1.0))


def _edges(part: Part, at: int, bins: int) -> Tensor:
    ends = [torch.stack(values.aminmax()) for values in _centres(part, at)]
    low, high = float(torch.stack(ends)[:, 0].min()), float(torch.stack(ends)[:, 1].max())
    wide = high if high > low else low + 1.0
    return torch.linspace(low, wide, bins + 1, dtype=torch.float64)


def box_growth(
    model: nn.Module, x: Tensor, *, shares: tuple[float, ...] = SHARES, **where: Unpack[Where]
) -> Measurements:
    """The quantities "affine", "activations" and "whole" over lambda, for inputs [N, *shape].

    `where` as for `Analysis`. Raises ValueError as `BoxGrowth` does.
    """
    return BoxGrowth(shares=shares)(model, x, **where)


def centres(model: nn.Module, x: Tensor, *, bins: int = 60, **where: Unpack[Where]) -> Measurements:
    """The quantities "share below 0", "mean" and "standard deviation", and "density" over the centres of the bins.

    x is [N, *shape], `where` as for `Analysis`. Raises ValueError as `Centres` does.
    """
    return Centres(bins=bins)(model, x, **where)

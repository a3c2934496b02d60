"""Exact line search: the worst point of segments, for a network of affine layers and piecewise linear activations.

Along a segment c + s a, |s| <= 1, such a network is linear between breakpoints: the shares s at which the input of an
activation crosses one of its kinks, 0 for a ReLU. An objective that is convex in the logits, such as the cross-entropy
or minus the smallest margin, is therefore largest at a breakpoint or at an end:

    S_0 = {-1, 1},   S_i = S_{i-1} and every s at which a neuron of activation i crosses a kink
    s*  = argmax over the last S_i of objective(z(c + s a), y)

Between neighbours of S_{i-1}, the input of activation i is linear in s. So crossings, and the values of nodes at them,
are interpolated, and the layers before the first activation are computed only at the two ends.

    region = FirstCoordinate(eps=3.0).region(x)
    points = worst_on_segments(net, region, y)                                       # with the largest cross-entropy
    errors = violation(net(worst_on_segments(net, region, y, violation)), y) > 0     # the exact robust errors

"How robust accuracy suffers from certified training with convex relaxations" (section 3.2, App. A.2) and "Certified
defences can hurt generalisation" (App. D.1) train and evaluate with such a search. Every breakpoint takes time, and a
large network has tens of thousands on a segment (docs/benchmarks.md). For such networks use `LineSearch`, which
evaluates a grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctbench.attacks.line_search import segments
from ctbench.graph import Affine, Graph
from ctbench.graph.ops import Add, Concat, Input, PiecewiseLinear
from ctbench.regions import Region
from ctbench.specification import cross_entropy

# logits [N, K] and labels [N] to the values that the adversary maximises, [N]; convex in the logits
Convex = Callable[[Tensor, Tensor], Tensor]
MEMORY = 2**22  # the maximal number of values of all nodes together, at the places that are computed at once


@torch.no_grad()
def worst_on_segments(net: Graph, region: Region, y: Tensor, objective: Convex = cross_entropy) -> Tensor:
    """The point of each sample's segments at which the objective is largest, [B, *shape], without gradient.

    Args:
        net: a frozen graph of affine layers and piecewise linear activations.
        region: segments, or another region of one dimension, in the network's precision.
        y: labels, [B].
        objective: must be convex in the logits; the maximum is exact except for rounding.

    Raises:
        ValueError: an op is neither affine nor piecewise linear, or the region does not consist of segments.
    """
    center, arms = segments(region)
    point, highest = center, center.new_full((len(center),), -math.inf)
    with torch.autocast(center.device.type, enabled=False):  # half precision would misplace breakpoints
        for arm in arms:
            share, value = _highest(breakpoints(net, center, arm), y, objective)
            better = (value > highest).view(-1, *[1] * (center.dim() - 1))
            point = torch.where(better, center + share.view_as(better) * arm, point)
            highest = torch.maximum(highest, value)
        return region.project(point)


@dataclass(frozen=True, eq=False)
class Places:
    """N places on the segments of several samples; neighbours on a segment follow one another."""

    sample: Tensor  # [N], ascending
    share: Tensor  # [N], from -1 to 1, ascending on a segment
    values: dict[int, Tensor]  # of nodes by their positions, [N, *node]; linear between neighbours

    def cut(self, at: int, kinks: set[float], count: int) -> Iterator[Places]:
        """These places and crossings of a kink by node `at`, `count` at a time. Each part repeats the last place."""
        pairs = (self.sample[1:] == self.sample[:-1]).nonzero().flatten()
        value = self.values[at].flatten(1)
        first, second = value[pairs], value[pairs + 1]
        before, fraction = [torch.arange(len(value), device=value.device)], [torch.zeros_like(self.share)]
        for kink in kinks:
            crossing = torch.sign(first - kink) * torch.sign(second - kink) < 0
            before.append(pairs[crossing.nonzero()[:, 0]])
            fraction.append((kink - first[crossing]) / (second - first)[crossing])
        every, ahead = torch.cat(before), torch.cat(fraction)
        order = ahead.argsort(stable=True)
        order = order[every[order].argsort(stable=True)]
        for start in range(0, len(order) - 1, count - 1):
            part = order[start : start + count]
            yield self._between(every[part], ahead[part])

    def _between(self, left: Tensor, fraction: Tensor) -> Places:
        """Places at fractions of the way from the places `left`, [M], to their right neighbours."""
        right = left + (fraction > 0)  # the last place of a segment has no neighbour: the next place is on another one

        def interpolated(values: Tensor) -> Tensor:
            return torch.lerp(values[left], values[right], fraction.view(-1, *[1] * (values.dim() - 1)))

        values = {node: interpolated(values) for node, values in self.values.items()}
        return Places(self.sample[left], interpolated(self.share), values)


@torch.no_grad()
def breakpoints(net: Graph, center: Tensor, arm: Tensor, *, memory: int = MEMORY) -> Iterator[Places]:
    """All breakpoints of a network along segments, and the ends of the segments, in parts. Values are the logits only.

    Between neighbours on a segment the network is linear. Some places may appear twice.

    Args:
        net: a frozen graph of affine layers and piecewise linear activations.
        center, arm: the segments c + s a with |s| <= 1, [B, *shape] each.
        memory: the maximal number of values of all nodes together, at the places of one part.

    Raises:
        ValueError: an op is neither affine nor piecewise linear.
    """
    _check(net)
    count = max(2, memory // sum(math.prod(node.shape) for node in net.nodes))
    kinks, output = [_kinks(net, at) for at in range(len(net.nodes))], len(net.nodes) - 1
    last_reader = {source: at for at, node in enumerate(net.nodes) for source in node.inputs} | {output: output + 1}

    def step(places: Places, at: int) -> Places:
        """Compute node `at`, and drop the values that no later node reads."""
        node = net.nodes[at]
        values = places.values | {at: node.op(*(places.values[i] for i in node.inputs))}
        return replace(places, values={i: value for i, value in values.items() if last_reader.get(i, 0) > at})

    def follow(places: Places, at: int) -> Iterator[Places]:
        """Compute the nodes after `at`, up to the output."""
        while at < output and not kinks[at]:
            at += 1
            places = step(places, at)
        if at == output:
            yield places
        else:
            for part in places.cut(at, kinks[at], count):
                yield from follow(step(part, at + 1), at + 1)

    every = torch.arange(len(center), device=center.device)
    for sample, c, a in zip(*(tensor.split(count // 2) for tensor in (every, center, arm)), strict=True):
        ends = torch.stack([c - a, c + a], dim=1).flatten(0, 1)
        yield from follow(Places(sample.repeat_interleave(2), c.new_tensor([-1, 1]).repeat(len(c)), {0: ends}), 0)


def _highest(parts: Iterator[Places], y: Tensor, objective: Convex) -> tuple[Tensor, Tensor]:
    """The share of the best place of each sample, and its value, both [B]."""
    rows = []
    for places in parts:
        (logits,) = places.values.values()
        rows.append((places.sample, places.share, objective(logits, y[places.sample])))
    sample, share, value = (torch.cat(column) for column in zip(*rows, strict=True))
    highest = value.new_full((len(y),), -math.inf).scatter_reduce(0, sample, value, "amax")
    best = value == highest[sample]
    return share.new_zeros(len(y)).scatter_reduce(0, sample[best], share[best], "amax", include_self=False), highest


def _kinks(net: Graph, at: int) -> set[float]:
    """The kinks of the activations that read a node."""
    readers = (node.op for node in net.nodes if at in node.inputs)
    return {kink for op in readers if isinstance(op, PiecewiseLinear) for kink in op.kinks}


def _check(net: Graph) -> None:
    """Raise ValueError unless every op is affine or piecewise linear."""
    for node in net.nodes:
        if not isinstance(node.op, Input | Affine | Add | Concat | PiecewiseLinear):
            raise ValueError(
                f"layer '{node.name}' is a {type(node.op).__name__}: an exact line search needs a frozen graph of "
                f"affine layers and piecewise linear activations, e.g. ReLU; for others use attacks.LineSearch"
            )

"""beta-CROWN: CROWN where the signs of some pre-activations are known. Wang et al. 2021, "Beta-CROWN: efficient bound
propagation with per-neuron split constraints for neural network robustness verification".

    min of <c, f(x)> over x in the region with s_j z_j >= 0   >=   max over alpha in [0, 1] and beta >= 0 of

        CROWN's bound of  <c, f(x)> - sum_j beta_j s_j z_j

with alpha the free slopes and z_j the pre-activations of known sign s_j (1 or -1). A known sign also makes the ReLU
behind it linear. Any alpha and beta are sound, so the ascent may end at any step and the best bound counts.

    found = beta_crown.ascend(graph, region, spec, splits, start, steps=10)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ctbench.domains import crown
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.relaxations import adaptive
from ctbench.graph import Graph, Lines, Node, walk_backward
from ctbench.graph.ops import Max, ReLU
from ctbench.regions import Box, Region

MEAN_DECAY, SQUARE_DECAY, TINY = 0.9, 0.999, 1e-8  # Adam's

ByNode = dict[int, Tensor]  # [N, *node] each, by the position of the node that a ReLU reads


def split_nodes(graph: Graph) -> list[int]:
    """The nodes whose entries' signs can be known: those that a ReLU reads, but for the input."""
    return sorted({node.inputs[0] for node in graph.nodes if isinstance(node.op, ReLU)} - {0})


def clipped(inner: list[Box], signs: ByNode) -> list[Box]:
    """The boxes with what the known signs add: no negative values where it is 1, no positive ones where it is -1."""
    found = list(inner)
    for at, sign in signs.items():
        box = inner[at]
        lower = torch.where(sign > 0, box.lower.clamp(min=0), box.lower)
        found[at] = Box(lower, torch.where(sign < 0, box.upper.clamp(max=0), box.upper))
    return found


@dataclass(frozen=True, eq=False)
class Multipliers:
    """The free numbers of N bounds."""

    slopes: ByNode  # alpha, in [0, 1]
    signs: ByNode  # s: 1 or -1 where it is known, else 0
    weights: ByNode  # beta, at least 0; counts where a sign is known

    def take(self, chosen: Tensor) -> Multipliers:
        return Multipliers(*({at: value[chosen] for at, value in part.items()} for part in self._parts()))

    def join(self, other: Multipliers) -> Multipliers:
        pairs = zip(self._parts(), other._parts(), strict=True)
        return Multipliers(*({at: torch.cat([a[at], b[at]]) for at in a} for a, b in pairs))

    def _parts(self) -> tuple[ByNode, ByNode, ByNode]:
        return self.slopes, self.signs, self.weights

    @classmethod
    def begin(cls, graph: Graph, inner: list[Box]) -> Multipliers:
        """Adaptive slopes, and no sign known."""
        nodes = {at: inner[at] for at in split_nodes(graph)}
        zeros = {at: torch.zeros_like(box.lower) for at, box in nodes.items()}
        return cls({at: (box.upper > -box.lower).to(box.lower.dtype) for at, box in nodes.items()}, zeros, zeros)


@dataclass(frozen=True, eq=False)
class Bounds:
    """N bounds, and what they were made of."""

    values: Tensor  # [N]
    form: LinearForm  # over the input, [N, 1, *shape]
    relaxed: dict[int, tuple[Tensor, Lines]] = field(default_factory=dict)
    # of every ReLU, by its position: the coefficients of its output [N, *node], and its lines


def bounds(graph: Graph, region: Region, spec: Tensor, inner: list[Box], free: Multipliers) -> Bounds:
    """The bounds of one form each, spec [N, *output], over N regions; inner are the clipped boxes."""
    place = {id(node): at for at, node in enumerate(graph.nodes)}
    relaxed: dict[int, tuple[Tensor, Lines]] = {}

    def relax(node: Node, form: Form) -> Form:
        if isinstance(node.op, Max):
            return crown.under_maximum(form, crown.lines_of(node, inner, adaptive))
        source = node.inputs[0]
        if not isinstance(node.op, ReLU) or source not in free.slopes:
            return form.relaxed(crown.lines_of(node, inner, adaptive))
        box = inner[source]
        lines = node.op.lines(box.lower, box.upper, free.slopes[source], node.op.chord(box.lower, box.upper))
        relaxed[place[id(node)]] = form.dense().coefficients.squeeze(1), lines
        return form.relaxed(lines)

    def rule(node: Node, form: Form) -> tuple[Form, ...]:
        at = place[id(node)]
        if at in free.weights:
            known = LinearForm(-(free.signs[at] * free.weights[at]).unsqueeze(1), 0.0)
            form = form + known
        return crown.shares(node, form, relax)

    start: Form = LinearForm(spec.unsqueeze(1), 0.0)
    last = walk_backward(graph, rule, start).dense()
    return Bounds(last.minimum(region).squeeze(1), last, relaxed)


def ascend(
    graph: Graph,
    region: Region,
    spec: Tensor,
    inner: list[Box],
    free: Multipliers,
    *,
    steps: int,
    slope_rate: float = 0.1,
    weight_rate: float = 0.1,
    decay: float = 0.98,
) -> tuple[Tensor, Multipliers]:
    """The best bounds [N] that some steps of Adam find, and the free numbers that gave them.

    Args:
        graph: a frozen graph.
        region, spec, inner: N regions, N forms of the output [N, *output], and the clipped boxes of all nodes.
        free: where to begin.
        steps: of Adam.
        slope_rate, weight_rate: the size of the first step, in alpha and in beta; each later one is `decay` as large.
        decay: see there.
    """
    values = {("slope", at): value for at, value in free.slopes.items()}
    values |= {("weight", at): value for at, value in free.weights.items()}
    means = {key: torch.zeros_like(value) for key, value in values.items()}
    squares = dict(means)
    best, kept = torch.full_like(spec.flatten(1)[:, 0], -torch.inf), dict(values)
    for step in range(steps + 1):
        with torch.enable_grad():
            values = {key: value.detach().requires_grad_() for key, value in values.items()}
            found = bounds(graph, region, spec, inner, _with(free, values)).values
            gradients = (
                torch.autograd.grad(found.sum(), list(values.values()), allow_unused=True)
                if values and step < steps
                else ()
            )
        better = found.detach() > best
        best = torch.where(better, found.detach(), best)
        kept = {key: torch.where(_like(better, value), values[key].detach(), value) for key, value in kept.items()}
        for key, gradient in zip(values, gradients, strict=False):
            if gradient is None:
                continue
            means[key] = means[key].lerp(gradient, 1 - MEAN_DECAY)
            squares[key] = squares[key].lerp(gradient.square(), 1 - SQUARE_DECAY)
            mean, square = means[key] / (1 - MEAN_DECAY ** (step + 1)), squares[key] / (1 - SQUARE_DECAY ** (step + 1))
            rate = (slope_rate if key[0] == "slope" else weight_rate) * decay**step
            moved = values[key].detach() + rate * mean / (square.sqrt() + TINY)
            values[key] = moved.clamp(0, 1) if key[0] == "slope" else moved.clamp(min=0)
    return best, _with(free, kept)


def _with(free: Multipliers, values: dict[tuple[str, int], Tensor]) -> Multipliers:
    slopes = {at: values["slope", at] for at in free.slopes}
    return Multipliers(slopes, free.signs, {at: values["weight", at] for at in free.weights})


def _like(chosen: Tensor, value: Tensor) -> Tensor:
    """[N] as it broadcasts with [N, *node]."""
    return chosen.view(-1, *[1] * (value.dim() - 1))

"""How strongly is the network regularised towards intervals? Its propagation tightness.

Fix each ReLU as at the input x: on where its pre-activation is >= 0, off elsewhere. The network is then affine around
x, and both its exact margins and their intervals over a box of half-width r have a radius in closed form:

    tightness = mean over k != y of  |J_k| r / r_ibp,k      J_k the gradient of z_y - z_k at x

    r_ibp:  r <- |W| r at affine layers,  r <- mask r at ReLUs,  sums at joins;  the last layer merged with the margins

It lies in (0, 1], and is 1 for one affine layer, for a network with one path and for weights of one sign. Mao et al.
2024, "CTBench", section 5.4 and Figure 5, after Mao et al. 2024, "Understanding certified training with interval bound
propagation". Where no neuron is unstable, it is the quotient of the true radii. With `at_eps`, the quotient of the
radii by CROWN and by intervals of the network itself is computed next to it; this costs about five times as much.

Other activations count with their slope at x, and a maximum is the entry that is the greatest.

    tightness(model, x, y, eps=0.1).mean("tightness")
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from ctbench.analyses.base import Analysis, Part, Where, joined, measurement
from ctbench.domains import crown, interval
from ctbench.domains.backward import back_to_input, by_lines
from ctbench.domains.linear_form import LinearForm
from ctbench.graph import Affine, Elementwise, Graph, Node, Op, walk_forward
from ctbench.graph.ops import Max, PiecewiseLinear, Positive, Shape
from ctbench.regions import Box
from ctbench.results import Layout, Measurement, Measurements

LEAST = 1e-8  # radii below this count as this


@dataclass(frozen=True, eq=False)
class Gate(Affine):
    """x -> slope x, with one slope for each value of each sample: an activation around an input."""

    slope: Tensor  # [B, *node]
    mixes: ClassVar[bool] = False

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.slope * x

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    def linear(self, x: Tensor) -> Tensor:
        return self.slope * x

    def magnitude(self, r: Tensor) -> Tensor:
        return self.slope.abs() * r

    def adjoint(self, a: Tensor) -> Tensor:
        return self.slope.unsqueeze(1) * a

    def offset(self, a: Tensor) -> Tensor | float:
        return 0.0


@dataclass(frozen=True, eq=False)
class Pick(Positive):
    """One of n entries for each value of each sample, [B, n, *node] to [B, *node]: a maximum around an input."""

    chosen: Tensor  # [B, 1, *node], the number of the entry
    count: int

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.gather(1, self.chosen).squeeze(1)

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0][1:]

    def adjoint(self, a: Tensor) -> Tensor:
        spread = a.new_zeros(*a.shape[:2], self.count, *a.shape[2:])
        index = self.chosen.unsqueeze(1).expand(-1, a.shape[1], *self.chosen.shape[1:])
        return spread.scatter(2, index, a.unsqueeze(2))


@singledispatch
def _local(op: Op, x: Tensor) -> Op:
    """The affine op that an op is around its input x."""
    return op


@_local.register
def _(op: Elementwise, x: Tensor) -> Op:
    # at a kink the slope on its right: a ReLU is on at 0
    slopes = PiecewiseLinear.slopes(op, x, x) if isinstance(op, PiecewiseLinear) else op.slopes(x, x)
    return Gate(slopes[0])


@_local.register
def _(op: Max, x: Tensor) -> Op:
    return Pick(x.argmax(1, keepdim=True), x.shape[1])


def locally_affine(net: Graph, x: Tensor) -> Graph:
    """The affine network that a frozen graph is around each of the inputs x, [B, *shape]; it takes B inputs."""
    values = walk_forward(net, lambda node, *inputs: node.op(*inputs), x)
    nodes = [replace(node, op=_local(node.op, values[node.inputs[0]])) for node in net.nodes[1:]]
    return Graph((net.nodes[0], *nodes))


def exact_radii(local: Graph, box: Box, spec: Tensor) -> Tensor:
    """The radii |J| r of forms [B, S, K] of the output of an affine network over a box, [B, S]."""
    jacobian = back_to_input(local, LinearForm(spec, 0.0), by_lines({}), None).coefficients
    return (jacobian.abs().flatten(2) @ box.radius.flatten(1).unsqueeze(2)).squeeze(2)


def interval_radii(local: Graph, box: Box, spec: Tensor) -> Tensor:
    """The radii of the same forms by intervals, [B, S]; the last affine layer is merged with the forms."""
    radii = walk_forward(local, _radius, box.radius)
    form, at = interval.merge_last_layer(local, LinearForm(spec, 0.0), None)
    return (form.coefficients.abs().flatten(2) @ radii[at].flatten(1).unsqueeze(2)).squeeze(2)


def _radius(node: Node, *radii: Tensor) -> Tensor:
    return node.op.magnitude(*radii) if isinstance(node.op, Affine) else node.op(*radii)


@dataclass(frozen=True, kw_only=True)
class Tightness(Analysis):
    """Propagation tightness: the radii of exact margins of the locally affine network, divided by those of intervals.

    Args:
        at_eps: also divide the radii of the network's own margins, by CROWN and by intervals.

    Raises:
        ValueError: when called, if the regions are not boxes, or eps is 0.
    """

    name: ClassVar[str] = "tightness"
    layout: ClassVar[Layout] = Layout(kind="scatter", quantities=("tightness",), label="propagation tightness")
    at_eps: bool = False

    def measure(self, part: Part) -> list[Measurement]:
        if not isinstance(part.region, Box):
            raise ValueError(f"the threat model is {part.threat.name}: tightness divides radii of boxes, take linf")
        if part.threat.eps == 0:
            raise ValueError("eps is 0: the radii of margins are 0, and have no quotient, give a radius above 0")
        parts = part.split(2 * crown.footprint(part.net, 2 * part.spec.shape[1]))
        return [measurement(joined([self._quotients(some) for some in parts]))]

    def _quotients(self, part: Part) -> dict[str, Tensor]:
        local, box = locally_affine(part.net, part.x), part.region.hull
        exact, loose = exact_radii(local, box, part.spec), interval_radii(local, box, part.spec)
        quotients = {"tightness": _quotient(exact, loose)}
        if self.at_eps:
            spec = torch.cat([part.spec, -part.spec], dim=1)
            pairs = (
                bound(part.net, box, spec).chunk(2, dim=1) for bound in (crown.lower_bounds, interval.lower_bounds)
            )
            tight, loose = (-(lower + negative) / 2 for lower, negative in pairs)
            quotients["at eps"] = _quotient(tight, loose)
        return quotients


def _quotient(small: Tensor, large: Tensor) -> Tensor:
    """The mean over the forms of the quotients of their radii, [B, S] each to [B]."""
    return (small.clamp(min=LEAST) / large.clamp(min=LEAST)).mean(1)


def tightness(
    model: nn.Module, x: Tensor, y: Tensor | None = None, *, at_eps: bool = False, **where: Unpack[Where]
) -> Measurements:
    """The quantities "tightness" and "at eps" of each input, [N, *shape], with labels [N]; `where` as for `Analysis`.

    Without labels, the margins are those of the class that the network answers.

    Raises ValueError as `Tightness` does.
    """
    return Tightness(at_eps=at_eps)(model, x, y, **where)

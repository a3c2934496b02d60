"""Branch and bound on the input box, for networks with few inputs.

Wang et al. 2018, "Formal security analysis of neural networks using symbolic intervals" (the refinement of ReluVal),
with the bounds of CROWN (Zhang et al. 2018) on every box:

    until nothing is open:
        take the boxes with the lowest bounds, of all samples together
        bound their margins by CROWN, with inner boxes of their own; where all are positive, a box is closed
        falsified where a centre, or the point at which the lowest form is least, has a negative margin
        halve each box that is open at the coordinate i of the largest (s_i / sum s + g_i / sum g) width_i

with s_i the sum of |a_i| over the open margins, <a, x> + c the form that bounds a margin, and g_i how fast the interval
bounds of these margins fall as the radius grows. A coordinate that hardly counts in the forms may be what makes them
loose, which g sees; by s alone it is never halved. Boxes shrink whatever a network is made of, so this takes all ops
that CROWN takes: tanh, sigmoid and maxima, not ReLU alone. Its time is exponential in the number of inputs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench import budget
from ctbench.deadline import OutOfTime
from ctbench.domains import backward, crown, interval
from ctbench.domains.linear_form import LinearForm
from ctbench.domains.rounding import Losses
from ctbench.graph import Graph
from ctbench.regions import Box
from ctbench.verify.problem import Findings, Problem
from ctbench.verify.stages import Stage
from ctbench.verify.watch import Watch


@dataclass(frozen=True, kw_only=True)
class InputSplit(Stage):
    """Branch and bound on the input boxes of all samples together, in double precision.

    The bound of a sample is the least of those of its boxes, so it holds wherever the search ends.

    Args:
        inputs: networks with more inputs than this are left open, as are regions that are not boxes.
        parts: boxes that are bounded at once on a CPU; as many more on another device as its memory allows, and half as
            many where memory does not suffice.
        nodes: boxes that are bounded for a sample before it is given up.
        share: of a sample's time that it may take.
    """

    name: ClassVar[str] = "input-split"
    proves: ClassVar[bool] = True
    batch_size: int = 16
    inputs: int = 20
    parts: int = 256
    nodes: int = 100_000
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.parts < 1 or self.nodes < 1:
            raise ValueError(f"parts is {self.parts} and nodes is {self.nodes}: give whole numbers >= 1")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}: it is a share of a sample's time, give a number in (0, 1]")

    @property
    def title(self) -> str:
        return "input-split"

    def __call__(self, problem: Problem, generator: torch.Generator) -> Findings:
        exact = problem.exact
        if exact.x[0].numel() > self.inputs or not isinstance(exact.region, Box):
            return Findings()
        watch = Watch(problem.seconds, len(exact), self.share, device=exact.x.device)
        lowest = exact.x.new_full((len(exact),), torch.inf)
        nodes, falsified = torch.zeros_like(lowest), torch.zeros_like(lowest, dtype=torch.bool)
        frontier, witness = Parts.whole(exact), exact.x.clone()
        parts = budget.grown(self.parts, exact.x.device, self.memory)
        boxes, losses = crown.bounded(exact.net, exact.region)
        assert losses is not None, "what double precision proves is rounded outward"
        while len(frontier):
            part, rest = frontier.worst(parts)
            try:
                bound = functools.partial(bounded, part, exact, (boxes, losses))
                found = budget.attempt(bound, last=len(part) == 1)
            except OutOfTime:
                if bool(frontier.least.isneginf().any()):
                    raise  # before the first bounds
                lowest = frontier.lowest(lowest)
                watch.charge(frontier.sample)
                break
            if found is None:
                parts = (len(part) + 1) // 2
                watch.charge(part.sample)
                continue
            part, influence, corner = found
            owner = exact.select(part.sample)
            for at in (part.box.center, corner):
                at, turned = owner.judged(at)  # moved into the exact region
                falsified[part.sample[turned]], witness[part.sample[turned]] = True, at[turned]
            place, divisible = part.place(influence)
            halved = divisible & (part.least <= 0)  # not NaN, which no half would mend
            lowest = part.take(~halved).lowest(lowest)
            frontier = rest.join(part.take(halved).halves(place[halved]))
            watch.charge(part.sample)
            nodes += part.sample.bincount(minlength=len(nodes))
            # a box that cannot be halved has a bound that leaves its sample open, for good
            over = falsified | (nodes >= self.nodes) | watch.late() | ~(lowest > 0)
            ended = over[frontier.sample]
            if bool(ended.any()):
                lowest, frontier = frontier.take(ended).lowest(lowest), frontier.take(~ended)
        late = watch.late() | (frontier.sample.bincount(minlength=len(nodes)) > 0)
        return Findings(bound=lowest, witness=witness, late=late, seconds=watch.spent)


@dataclass(frozen=True, eq=False)
class Parts:
    """Boxes in the regions of some samples, and what is known of the margins there."""

    sample: Tensor  # [N]
    box: Box  # [N, *shape]
    bounds: Tensor  # [N, S]: lower bounds; a half begins with those of the whole

    @classmethod
    def whole(cls, problem: Problem) -> Parts:
        """The regions of all samples of a problem."""
        sample = torch.arange(len(problem), device=problem.x.device)
        return cls(sample, problem.region.hull, torch.full_like(problem.spec[..., 0], -torch.inf))

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def least(self) -> Tensor:
        """The lowest bound of each box, [N]."""
        return self.bounds.amin(1)

    def lowest(self, before: Tensor) -> Tensor:
        """The lowest bound of each sample, [B], with those that there were before."""
        return before.scatter_reduce(0, self.sample, self.least, "amin")

    def take(self, chosen: Tensor) -> Parts:
        return Parts(self.sample[chosen], self.box.take(chosen), self.bounds[chosen])

    def join(self, other: Parts) -> Parts:
        corners = ((self.box.lower, other.box.lower), (self.box.upper, other.box.upper))
        box = Box(*(torch.cat(pair) for pair in corners))
        return Parts(torch.cat([self.sample, other.sample]), box, torch.cat([self.bounds, other.bounds]))

    def worst(self, count: int) -> tuple[Parts, Parts]:
        """The boxes with the lowest bounds, so many at most, and the others."""
        chosen = self.least.topk(min(count, len(self)), largest=False).indices
        others = torch.ones_like(self.sample, dtype=torch.bool).index_fill(0, chosen, False)
        return self.take(chosen), self.take(others)

    def place(self, influence: Tensor) -> tuple[Tensor, Tensor]:
        """The coordinate to halve each box at, [N], where each counts so much, [N, n]; and whether there is one."""
        box = self.box
        # the middle of two neighbouring numbers is one of them
        width = torch.where((box.lower < box.center) & (box.center < box.upper), box.upper - box.lower, 0.0).flatten(1)
        change = influence * width
        return torch.where(change.amax(1, keepdim=True) > 0, change, width).argmax(1), width.amax(1) > 0

    def halves(self, place: Tensor) -> Parts:
        """Both halves of each box."""
        here = F.one_hot(place, self.box.lower.flatten(1).shape[1]).bool().view_as(self.box.lower)
        below = Box(self.box.lower, torch.where(here, self.box.center, self.box.upper))
        above = Box(torch.where(here, self.box.center, self.box.lower), self.box.upper)
        return replace(self, box=below).join(replace(self, box=above))


def bounded(part: Parts, problem: Problem, around: tuple[list[Box], Losses]) -> tuple[Parts, Tensor, Tensor]:
    """Boxes with the bounds of CROWN, where these are better, and what its forms say.

    `around` are boxes and losses over the whole regions of the samples.

    Returns:
        The boxes; how much each coordinate counts in the margins that are open, [N, n]; and the points at which the
        lowest forms are least, [N, *shape].
    """
    shut = part.bounds > 0
    # the open margins first: as many for each box as one has at most, filled up with some that are shut
    rows = shut.to(torch.int8).argsort(dim=1, stable=True)[:, : int((~shut).sum(1).max())]
    spec = problem.spec[part.sample.unsqueeze(1), rows]
    boxes, losses = around
    owner = [box.take(part.sample) for box in boxes], [loss.take(part.sample) for loss in losses]
    form = crown_forms(problem.net, part.box, spec, owner)
    found = torch.maximum(part.bounds.gather(1, rows), form.minimum(part.box))
    a, open_ = form.coefficients.flatten(2), (~(found > 0)).to(spec.dtype).unsqueeze(2)
    shares = (a.abs() * open_).sum(1), widening(problem.net.rounded_outward(False), part.box, spec * open_)
    influence = F.normalize(shares[0], p=1) + F.normalize(shares[1], p=1)
    slope = a[torch.arange(len(part), device=a.device), found.argmin(1)].view_as(part.box.lower)
    corner = torch.where(slope > 0, part.box.lower, part.box.upper)
    return replace(part, bounds=part.bounds.scatter(1, rows, found)), influence, corner


def crown_forms(graph: Graph, box: Box, spec: Tensor, around: tuple[list[Box], Losses]) -> LinearForm:
    """The forms by which CROWN bounds those of a specification, with inner boxes of its own."""
    inner, losses = crown.bounded(graph, box, around=around)
    relax = backward.by_lines(backward.all_lines(graph, inner))
    return backward.back_to_input(graph, LinearForm(spec, 0.0), relax, losses).dense()


def widening(graph: Graph, box: Box, spec: Tensor) -> Tensor:
    """How fast the sum of the interval bounds of some forms falls as the radius of each coordinate grows, [N, n]."""
    with torch.enable_grad():
        radius = box.radius.clone().requires_grad_()
        total = interval.lower_bounds(graph, Box.around(box.center, radius), spec).sum()
        return -torch.autograd.grad(total, radius)[0].flatten(1)

"""COLT: Balunovic & Vechev 2020, "Adversarial training and provable defenses: bridging the gap".

Convex layerwise adversarial training has stages l = 0, 1, 2, ... In stage l the network is cut after its l-th ReLU.
The front maps the region to a zonotope c + sum_i e_i g_i, and an attack searches its error terms e:

    x_l  = c + sum_i e_i g_i,   e = argmax over [-1, 1]^E of CE(back(x_l), y);   x_0 = x', searched in the region itself
    L_l  = CE(back(x_l), y)
    loss = (1 - k) L_(l-1) + k L_l,   k = min(1, f / mixing) after the share f of the stage;   L_0 in stage 0

Neither loss has a gradient in the front of the stage: layers freeze one after the other. A schedule of `progress`,
l + f, defines the stages:

    Schedule(path="method.progress", start_value=0, end_value=3, ramp=LinearRamp(end=epochs))      # stages 0, 1 and 2

Use it as a comparison, for networks with few layers: at small radii it is above IBP in both accuracies, at larger radii
it certifies less (TAPS, Table 1: CIFAR-10). The network should have no batch norm, because the statistics of the back
carry gradients to the front. A natural loss or L1 would also train the front. Its networks need branch and bound or an
integer program. The method does not include the paper's regularisers, or its larger radii in early stages.

The zonotope is that of `domains.zonotope` with all its error terms, but its generators are not computed: the front,
with the band s z + m + h e instead of each ReLU, maps error terms to points. The bands need bounds, which are computed
exactly, backward (CROWN with the slopes of the chords), so the paper's random projections are not needed. Other
activations, and branches that join, are treated in the same way.

Cost, with S steps and R restarts: PGD's attack, with the front in each of its passes, twice while k < 1; and starting
with stage 2, the bounds, a backward pass that is much cheaper than generators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench import attacks, waiting
from ctbench.domains import Crown
from ctbench.domains.relaxations import parallel
from ctbench.domains.zonotope import Band, by_row
from ctbench.graph import Graph, Node, place_of_cut, split, walk_forward
from ctbench.methods.adversary import worst_point
from ctbench.methods.base import Batch, Method, RobustLoss, check_shares, check_weights
from ctbench.regions import Box
from ctbench.specification import cross_entropy_at


@dataclass(frozen=True, kw_only=True)
class COLT(Method):
    """Adversarial training in the zonotopes of one layer after the other. `correct`: right at all points of the attack.

    Args:
        progress: l + f, to be scheduled: stage l, after the share f of the stage. A whole number l is the end of stage
            l - 1 and the start of stage l, with k = 0.
        mixing: the share of a stage in which k rises to 1; 0 switches to the new loss at once.
        attack: the search for x', and for e (with a radius of 1).

    Raises:
        ValueError: progress is not a number >= 0, or mixing not in [0, 1]; when called, if the region is not a box, or
            the network cannot be cut where the stage needs it.
    """

    name: ClassVar[str] = "colt"
    progress: float = 0.0
    mixing: float = 0.3
    attack: attacks.Attack = field(default_factory=lambda: attacks.PGD(steps=8, step_size=0.25))

    def __post_init__(self) -> None:
        check_weights(self, "progress")
        check_shares(self, "mixing")

    def __call__(self, net: Graph, batch: Batch) -> RobustLoss:
        if not isinstance(batch.region, Box):
            raise ValueError(
                f"the region is a {type(batch.region).__name__} but {self.name} makes zonotopes of boxes: use the "
                f"threat model Linf, or another method"
            )
        stage, own = self.stage()
        net = frozen_up_to(net, self._place(net, stage))
        current = self._attacked(net, batch, stage)
        if own == 1:
            return current
        former = self._attacked(net, batch, stage - 1)
        loss = (1 - own) * former.per_sample + own * current.per_sample
        return RobustLoss(loss, correct=former.correct & current.correct)

    def stage(self) -> tuple[int, float]:
        """The stage l, and the weight k of its own loss."""
        stage = max(math.ceil(self.progress) - 1, 0)
        share = self.progress - stage
        return stage, 1.0 if stage == 0 or share >= self.mixing else share / self.mixing

    def _place(self, net: Graph, stage: int) -> int:
        """The node after which a stage cuts the network."""
        depth = walk_forward(net, _count, 0)[-1]
        try:
            return place_of_cut(net, depth - stage)
        except ValueError as error:
            raise ValueError(
                f"progress is {self.progress:g}, but stage {stage} of {self.name} would leave {depth - stage} of the "
                f"network's {depth} activations after its cut, and {error}"
            ) from None

    def _attacked(self, net: Graph, batch: Batch, stage: int) -> RobustLoss:
        """The loss L_l of a stage, with the network frozen up to its cut."""
        front, back = split(net, self._place(net, stage))
        if stage == 0:
            point = worst_point(self.attack, back, batch)
        else:
            zonotope, objective = Relaxed.over(batch.region.hull, front), cross_entropy_at(back.detach(), batch.y)
            errors = zonotope.errors
            worst = self.attack(lambda e: objective(zonotope(e)), errors, errors.center, batch.generator)
            point = zonotope(worst.unsqueeze(0)).squeeze(0)
        logits = back(point)
        loss = F.cross_entropy(logits, batch.y, reduction="none")
        return RobustLoss(loss, correct=logits.argmax(1) == batch.y)


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A network with a band, slope z + middle + half e, instead of each activation and of its input.

    Its values, for all error terms e in [-1, 1], are those of a `domains.zonotope.ZonotopeSet`.
    """

    net: Graph
    bands: list[Band]  # the bands of the input, with slope 0, and of the activations, in order

    @classmethod
    def over(cls, box: Box, net: Graph) -> Relaxed:
        """A frozen graph, relaxed for inputs in a box."""
        boxes = Crown(slope=parallel, select=waiting.is_free(box.center)).boxes(net, box)
        start = Band(torch.zeros_like(box.radius), box.center, box.radius)
        return cls(net, [start, *(Band.around(n.op, boxes[n.inputs[0]]) for n in net.nodes if n.op.relaxed)])

    @property
    def errors(self) -> Box:
        """The box of all error terms, concatenated, [B, E]."""
        like = torch.cat([band.half.flatten(1) for band in self.bands], dim=1)
        return Box.around(torch.zeros_like(like), torch.ones_like(like))

    def __call__(self, errors: Tensor) -> Tensor:
        """The points for error terms: [R, B, E] to [R, B, *node]."""
        halves = [band.half.unsqueeze(1) for band in self.bands]
        parts = errors.transpose(0, 1).split([half[0].numel() for half in halves], dim=2)
        moves: list[Tensor] = [
            band.middle.unsqueeze(1) + half * part.unflatten(2, half.shape[2:])
            for band, half, part in zip(self.bands, halves, parts, strict=True)
        ]
        relaxed = zip(self.bands[1:], moves[1:], strict=True)

        def rule(node: Node, *values: Tensor) -> Tensor:
            if not node.op.relaxed:
                return by_row(node.op, *values)
            band, move = next(relaxed)
            return band.linear(values[0]) + move

        return walk_forward(self.net, rule, moves[0])[-1].transpose(0, 1)


def frozen_up_to(graph: Graph, at: int) -> Graph:
    """The same graph, without gradients for the parameters of the nodes up to `at`."""
    return Graph(Graph(graph.nodes[: at + 1]).detach().nodes + graph.nodes[at + 1 :])


def _count(node: Node, *before: int) -> int:
    """The number of activations on the longest path to a node."""
    return max(before) + node.op.relaxed
